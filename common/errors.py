"""Errors that a person can act on: a code, a sentence, and the next step.

Every failure that Fednotes foresees is raised as one of these. The command line prints it and exits with `exit_code`
(documented in docs/errors.md); anything else that escapes is a defect and exits with 1.
An error that is raised while notes are in hand never carries their text: it names a file and a line, not the words.
"""


class FednotesError(Exception):
    """A foreseen failure.

    Args:
        code: stable, short, kebab-case; documented in docs/errors.md.
        message: one sentence that names the thing and its value.
        next_step: what the person can do now.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()


class InputError(FednotesError):
    """Something that was given is wrong: a plan, a file of notes, a column, an argument."""

    exit_code = 2


class MachineError(FednotesError):
    """The machine cannot do it: no space, no permission, a missing package."""

    exit_code = 3


class StudyError(FednotesError):
    """The study stopped before its end; its last checkpoint is intact."""

    exit_code = 4
