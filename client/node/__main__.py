"""`python -m client.node FOLDER`: the node of a site, in the foreground, its log on standard error."""

import os
import sys
from pathlib import Path

from common.errors import FednotesError
from common.supervisor import QUIET


def main() -> None:
    os.environ.update(QUIET)  # before Flower is imported; the worker inherits it
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a base is a folder, packaged, or was fetched by a person before

    from client.node.logs import log_here
    from client.node.node import run_node

    log_here()
    try:
        run_node(Path(sys.argv[1]))
    except FednotesError as error:
        print(f"error ({error.code}): {error}", file=sys.stderr)
        code = error.exit_code
    except SystemExit:
        code = 0
    sys.stderr.flush()
    os._exit(code)  # threads of a call that hangs are not waited for


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m client.node FOLDER")
    main()
