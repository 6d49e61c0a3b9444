"""`fednotes site leave`: the end of a site. Its key and all that was made of its notes go; its accounts stay."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from client.evaluation.gain import TRAINED_ALONE
from client.evaluation.round_space import BASE_EMBEDDINGS
from client.heads import HEADS
from client.ledger import LEDGER_FILE
from client.node.cli import LOG
from client.node.session import STATE, node_runs
from client.node.status import STATUS
from client.outbox import OUTBOX
from client.received import RECEIVED
from client.scores import SCORED
from client.setup.report import REPORT_FILE
from client.setup.speed import SPEED_FILE
from client.site import Site
from common.errors import MachineError
from common.files import explained
from common.supervisor import LOCK, PROCESSES, running, stop

_GRACE = 30.0  # seconds for the node to end
_OF_NOTES = (HEADS, OUTBOX, RECEIVED, TRAINED_ALONE, BASE_EMBEDDINGS, REPORT_FILE, SPEED_FILE)
_OF_THE_NODE = (STATE, STATUS, str(LOG.parent), PROCESSES, LOCK)  # a log has details of what went wrong
STAYS = ("site.toml", LEDGER_FILE, "secret.key", "receipts", "approvals.jsonl", SCORED)


def leave(site: Site, say: Callable[[str], None]) -> list[Path]:
    """Stop the node, destroy the key, remove what was made of the notes. Returns what was removed.

    A cache outside of the site's folder is left: other sites of this machine may use it.

    Raises:
        MachineError: `already-running`: the node does, and not under our supervisor; as the disk refuses.
    """
    folder = site.folder.resolve()
    if running(folder) is not None:
        say("Stopping the node")
        stop(folder, _GRACE)
    if node_runs(folder):
        raise MachineError("already-running", f"The node of {site.name} runs.", "Stop it where it was started.")
    removed = []
    if site.config.coordinator is not None and site.coordinator.key.exists():
        _destroy(site.coordinator.key)
        removed.append(site.coordinator.key)
    places = [site.folder / name for name in (*_OF_NOTES, *_OF_THE_NODE)]
    if site.cache.resolve().is_relative_to(folder):
        places.append(site.cache)
    else:
        say(f"{site.cache} is outside of {site.folder}: remove it yourself if no other site uses it.")
    for place in places:
        if not place.exists():
            continue
        with explained(place):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        removed.append(place)
    return removed


def _destroy(key: Path) -> None:
    """Overwrite and remove. A disk that copies what it writes, as solid-state disks do, may keep the old bytes."""
    with explained(key):
        with contextlib.suppress(OSError), key.open("r+b") as file:
            file.write(os.urandom(key.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        key.unlink()
