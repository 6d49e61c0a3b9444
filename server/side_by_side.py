"""A grid over real servers whose replies are pulled side by side: one that stalls holds up no other, and no deadline.

Flower's server hands a reply out once, as soon as its upload has begun; its grid then waits until all of it has come,
or three minutes after the last of it, and tells of no other reply meanwhile. Whoever asks for a reply that has been
handed out is told that there is no such message: between two pulls that means nothing.
"""

import threading
import time
from collections.abc import Iterable
from queue import Empty, SimpleQueue

from flwr.app import Message
from flwr.serverapp import Grid

_PATIENCE = 1.0  # seconds that one pull may take before another begins beside it
_NO_SUCH_MESSAGE = 3  # of Flower's error codes


class SideBySide:
    """What `Rounds` needs of a grid, by that of Flower, whose calls may be made from several threads."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._found: SimpleQueue[list[Message] | Exception] = SimpleQueue()
        self._pulls: list[threading.Thread] = []
        self._began = 0.0
        self.get_node_ids, self.get_nodes, self.push_messages = grid.get_node_ids, grid.get_nodes, grid.push_messages

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages that have come since, and maybe late ones to others.

        Raises:
            Exception: what a pull has raised, an earlier one perhaps.
        """
        wanted = list(message_ids)
        self._pulls = [pull for pull in self._pulls if pull.is_alive()]
        # Each that stalls has a reply in its hands; more than that wait for the server itself.
        young = bool(self._pulls) and time.monotonic() - self._began < _PATIENCE
        if not young and len(self._pulls) <= len(wanted):
            self._began = time.monotonic()
            given = (wanted, not self._pulls)
            self._pulls.append(threading.Thread(target=self._pull, args=given, name="pull", daemon=True))
            self._pulls[-1].start()
        replies: list[Message] = []
        try:
            found = self._found.get(timeout=_PATIENCE)
            while True:
                if isinstance(found, Exception):
                    raise found
                replies += found
                found = self._found.get_nowait()
        except Empty:
            return replies

    def _pull(self, wanted: list[str], alone: bool) -> None:
        try:
            replies = list(self._grid.pull_messages(wanted))
            self._found.put([one for one in replies if alone or not _handed_out(one)])
        except Exception as error:
            self._found.put(error)


def _handed_out(reply: Message) -> bool:
    return reply.has_error() and reply.error.code == _NO_SUCH_MESSAGE
