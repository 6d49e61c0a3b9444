"""What happens in a study, as the rounds tell it: to a display, to the record, to both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from common.results import HeldOut, Round, SiteFacts

Kind = Literal[
    "began",  # the sites were met: a study starts, or goes on after `round`
    "phase",  # what is done outside of rounds
    "joined",  # a site takes part; `result` is what it brings
    "left-out",  # a site cannot take part, or its reply cannot enter the round
    "round-started",
    "sending",  # a site's request is on its way
    "asked",  # it has left the coordinator: the site trains, or will when it next looks
    "returned",
    "unmeasured",  # a site's held-out loss is missing
    "held-out",  # the loss of a round's weights on a site's held-out notes
    "round-ended",  # its checkpoint stands
    "action",  # somebody at the coordinator did something
    "stopped",
    "finished",
]


@dataclass(frozen=True)
class Event:
    """`site` and `text` are empty where they do not apply.

    `code` names what went wrong (docs/errors.md); with it the event is an incident. `result` is what was measured:
    SiteFacts of "joined", HeldOut of "held-out", Round of "round-ended" and "began". `digest` is the SHA-256 (hex) of a
    checkpoint's shared tensors.
    """

    kind: Kind
    round: int
    site: str = ""
    text: str = ""
    code: str = ""
    result: SiteFacts | HeldOut | Round | None = None
    digest: str = ""


OnEvent = Callable[[Event], None]
