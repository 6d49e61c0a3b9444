"""What a sink is, and what it says that it wrote."""

from dataclasses import dataclass, field
from typing import Protocol

from server.mirror.figures import Step
from server.record.reader import StudyRecord


@dataclass
class Written:
    """What was new to a sink. `where`: what its user opens; without a password."""

    sink: str
    where: str
    rounds: list[int] = field(default_factory=list)
    values: int = 0

    def add(self, step: Step, values: int) -> None:
        if step.round not in self.rounds:
            self.rounds.append(step.round)
        self.values += values


class Sink(Protocol):
    """Somewhere that a record is mirrored to. It knows by itself what it holds already, also after a kill."""

    def write(self, record: StudyRecord) -> Written:
        """Write what is new. Raises InputError, MachineError."""
