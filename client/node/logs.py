"""The site's log: what node and worker write to standard error, which the supervisor keeps in a file at the site."""

import logging
import sys


def log_here() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for name in ("httpx", "httpcore"):  # a line for every poll
        logging.getLogger(name).setLevel(logging.WARNING)
