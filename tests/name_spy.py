"""Which names are looked up: every process of Python that inherits the environment of a spy writes down each."""

from dataclasses import dataclass
from pathlib import Path

_SPY = """
import os, socket
_ask = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    with open(os.environ["LOOKED_UP"], "a") as file:
        file.write(f"{os.getpid()} {host.decode() if isinstance(host, bytes) else host}\\n")
    return _ask(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""
OURS = {"127.0.0.1", "localhost", "0.0.0.0", "None"}  # `localhost` is the configured host of the tests' federations


@dataclass(frozen=True)
class NameSpy:
    """`folder` is one of its own."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "sitecustomize.py").write_text(_SPY)
        self._file.touch()

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder), "LOOKED_UP": str(self._file)}

    def names(self) -> dict[str, set[int]]:
        """Name -> the processes that looked it up."""
        found: dict[str, set[int]] = {}
        for line in self._file.read_text().splitlines():
            pid, _, name = line.partition(" ")
            found.setdefault(name, set()).add(int(pid))
        return found

    @property
    def _file(self) -> Path:
        return self.folder / "looked-up.txt"
