"""The downstream tasks of a site: columns of its own source that say what an encoder is to tell of a note.

A task has labels of its own and may have a text of its own. The split never changes with it: whatever the task reads, a
test note is one that no encoder of the site was trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from client.notes.split import SET_ASIDE
from common.errors import InputError
from common.plan_sections import TaskName
from common.results import Metric, NotScored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from client.notes.store import NoteStore
    from client.site import Site

LABEL = "label"  # the task that every site has whose notes have labels

Progress = Callable[[str, int], None]
_SAME = ("id", "patient", "category", "date")  # of a note, under whatever columns the source is read


class Task(BaseModel):
    """One of the `[[tasks]]` of `site.toml`: the column with the answers, and that with the text where it is not that
    of the site's notes. Every choice in training and every verdict goes by `metric`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: TaskName
    label: str = Field(min_length=1)
    text: str | None = Field(None, min_length=1)
    metric: Metric = "macro-f1"


@dataclass(frozen=True, eq=False)
class OpenTask:
    """A task at its site.

    Attributes:
        task: what was declared.
        notes: the site's notes in their own order and split, with the task's labels as the column `label`, and its text
            where it has one of its own.
        own_text: whether the text is that of the site's notes, so that one embedding of a note serves both.
    """

    task: Task
    notes: "NoteStore"
    own_text: bool


def task_names(site: "Site", own: "NoteStore") -> list[str]:
    """The tasks that a site has; `own` are its notes."""
    declared = [task.name for task in site.config.tasks]
    implied = LABEL not in declared and any(value is not None for value in own.column("label"))
    return [LABEL] * implied + declared


def open_task(
    site: "Site", name: str, own: "NoteStore", tokenizer: "PreTrainedTokenizerBase", progress: Progress | None = None
) -> OpenTask | NotScored:
    """A task by its name, or a sentence where the site has none of that name.

    Reads the source again for columns that the site's own notes lack, or takes them from the cache.

    Args:
        own: `site.notes(tokenizer)`.
        progress: as in `prepare`.

    Raises:
        InputError: `notes-column`: the source has no such column; `notes-changed`; or as `prepare`.
        MachineError: as `prepare`.
    """
    from client.notes.store import prepare, prepare_columns

    task = next((task for task in site.config.tasks if task.name == name), None)
    columns, labels = site.config.notes.columns, own.column("label")
    if task is None:
        if name != LABEL:
            return NotScored(site=site.name, task=name, reason="The site has no task of this name.")
        return OpenTask(Task(name=LABEL, label=columns.names()["label"]), own, own_text=True)
    own_text = task.text in (None, columns.text)
    if own_text and task.label == columns.label:
        return OpenTask(task, own, own_text)
    asked = columns.model_copy(update={"label": task.label, "text": task.text or columns.text})
    source = site.config.notes.model_copy(update={"columns": asked})
    try:
        if own_text:
            read = prepare_columns(source, site.split_key, site.cache, progress)
            places, found = _aligned(own, read.__getitem__, site.name)
            notes, labels = own, read["label"][places]
        else:
            theirs = prepare(source, tokenizer, site.split_key, site.cache, progress)
            places, found = _aligned(own, theirs.column, site.name)
            notes, labels = theirs.view(places), theirs.column("label")[places]
    except InputError as error:
        if error.code == "notes-column":
            raise InputError("notes-column", error.message, f'Name the right one for the task "{name}".') from None
        raise
    labels[~found] = None
    split = np.where(found | own_text, own.column("split"), SET_ASIDE)
    return OpenTask(task, notes.with_columns(label=labels, split=split), own_text)


def _aligned(
    own: "NoteStore", column: Callable[[str], NDArray], site: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each of the site's n notes its place in the other reading of the source, which `column` gives, and whether it
    is there at all: under other columns another row may be broken, and left out by `skip_bad`."""
    rows, mine = column("row"), own.column("row")
    places = np.minimum(np.searchsorted(rows, mine), len(rows) - 1)
    found = rows[places] == mine
    if any((column(name)[places] != own.column(name))[found].any() for name in _SAME):
        raise InputError(
            "notes-changed",
            f"The source of {site} gives other notes, or another order of them, each time it is read.",
            "Let nothing write to it meanwhile; let a query end in ORDER BY.",
        )
    return places, found
