"""One line of `fednotes site check`."""

from dataclasses import dataclass
from typing import Literal

from common.errors import FednotesError

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """`fix` says what to do where it is not "ok"."""

    name: str
    state: State
    text: str
    fix: str = ""


def failed(name: str, error: FednotesError) -> Finding:
    return Finding(name, "error", f"({error.code}) {error.message}", error.next_step)
