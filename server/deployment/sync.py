"""Brings the SuperLink's list of sites in line with `sites.json`, as soon as the SuperLink answers.

python -m server.deployment.sync FOLDER
"""

import sys
import time
from pathlib import Path

from common.errors import FednotesError
from server.deployment.config import Server
from server.deployment.control import synchronise

_PATIENCE = 60.0  # seconds; after that the supervisor starts it again


def main(folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            added, gone = synchronise(Server(folder))
            break
        except FednotesError as error:
            if time.monotonic() > deadline or error.code != "superlink-unreachable":
                sys.exit(f"error ({error.code}): {error}")
            time.sleep(0.3)
    print(f"Registered: {', '.join(added) or 'none new'}. Thrown out: {', '.join(gone) or 'none'}.", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
