"""Making a coordinator's folder."""

import secrets
import shutil
from pathlib import Path

from common.errors import FednotesError
from common.files import write_text
from server.deployment.certificates import adopt, make_certificates, make_inside
from server.deployment.config import Server, make_config, make_folder
from server.deployment.registry import Registry


def initialise(
    folder: Path, name: str, address: str, listen: str | None, flower_port: int, foreign: tuple[Path, Path, Path] | None
) -> Server:
    """Make the folder with everything that is in it at the beginning.

    `foreign`: certificate, key and authority of the hospital trust, in place of an authority of our own. Where
    something is wrong with them, no folder is left behind.
    """
    server, config = Server(folder), make_config(name, address, listen, flower_port)
    make_folder(server, config)
    try:
        if foreign:
            adopt(server, config, *foreign)
            make_inside(server)
        else:
            make_certificates(server, config)
        server.executor_secret.touch(mode=0o600)
        server.executor_secret.write_bytes(secrets.token_bytes(32))
        write_text(server.sites, Registry().model_dump_json(indent=2) + "\n")
    except FednotesError:
        shutil.rmtree(server.folder, ignore_errors=True)
        raise
    return server
