"""Files for running a coordinator in production, filled in from its `server.toml`."""

import getpass
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from common.errors import InputError
from common.files import explained, write_text
from common.supervisor import QUIET
from server.deployment.config import Server
from server.deployment.gateway import FLEET

TEMPLATES = ("fednotes-coordinator.service", "fednotes-site.service", "fednotes-nginx.conf", "compose.yaml")
SITE_FOLDER = "/srv/fednotes/site"  # the hospital mends it


def write_templates(server: Server, to: Path) -> list[Path]:
    """Write all files; returns their paths. Raises InputError `path-unsafe`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    config = server.config()
    command = Path(sys.executable).with_name("fednotes")
    for path in (server.folder, command):
        if any(letter.isspace() or letter in "\"'%$;{}\\" for letter in str(path)):
            message = f"{path} has a space or another letter that systemd, nginx or compose would misread."
            raise InputError("path-unsafe", message, "Move the folder to a plain path.")
    # Nginx takes over where the gateway listens; without one, the port of the address.
    listen = config.listen or f"0.0.0.0:{config.address.rpartition(':')[2]}"
    values = {
        **config.model_dump(exclude={"listen"}),
        "listen": listen,
        "listen_port": int(listen.rpartition(":")[2]),
        "low_port": int(listen.rpartition(":")[2]) < 1024,
        "host": config.host,
        "folder": server.folder,
        "site_folder": SITE_FOLDER,
        "certificates": server.certificates,
        "command": command,
        "user": getpass.getuser(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "quiet": QUIET,
        "calls": [path.rpartition("/")[2] for path in FLEET],
        "version": version("fednotes"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    environment = Environment(
        loader=PackageLoader("server.deployment"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # configuration files, no HTML; the values are checked where they come in
    )
    with explained(to):
        to.mkdir(parents=True, exist_ok=True)
    for name in TEMPLATES:
        write_text(to / name, environment.get_template(name).render(values))
    return [to / name for name in TEMPLATES]
