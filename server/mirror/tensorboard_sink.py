"""A study in TensorBoard: a folder of event files, which hold what was written before, and so say what is new.

They are written in TensorBoard's own form and not by torch's SummaryWriter: that names files by the machine, and writes
from a thread of its own, in which an error is lost.
"""

import contextlib
import html
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from common.errors import InputError, MachineError
from common.files import explained
from server.mirror.figures import parameters, part, steps, tags
from server.mirror.sink import Written
from server.record.reader import StudyRecord
from server.run_folder import take

try:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util.tensor_util import make_tensor_proto
except ImportError as error:
    raise MachineError(
        "tensorboard-missing",
        f"TensorBoard's package is not installed, or cannot be loaded ({error.name}).",
        'In an environment of your own, install this checkout with the extra "tensorboard".',
    ) from None

_PARAMETERS, _STATE = "study/parameters", "study/state"
_Key = tuple[str, int, float]  # tag, step, time in seconds


class TensorBoardSink:
    """`folder` gets a folder for each study.

    Raises InputError `mirror-busy`, MachineError `unwritable`, `disk-full`.
    """

    def __init__(self, folder: Path, record: StudyRecord) -> None:
        self._folder = folder / f"{part(record.plan.study.name).replace(':', '-')}-{record.id[:8]}"
        self._open: BinaryIO | None = None
        with explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder, os.O_RDONLY)
        if not take(self._lock):
            os.close(self._lock)
            message = f"Another process writes to {self._folder}."
            raise InputError("mirror-busy", message, "Let it, or end it first.")
        self._there: set[_Key] = set()
        self._said: dict[str, bytes] = {}
        for file in self._files():
            self._read(file)

    def write(self, record: StudyRecord) -> Written:
        written = Written("tensorboard", str(self._folder))
        with explained(self._folder):
            self._say(_PARAMETERS, 0, record.started, parameters(record))
            last = 0
            for step in steps(record):
                last, time = step.round, step.time.timestamp()
                new = {tag: v for tag, v in step.values.items() if (tag, step.round, time) not in self._there}
                if not new:
                    continue
                values = [Summary.Value(tag=tag, simple_value=value) for tag, value in new.items()]
                self._put(Event(wall_time=time, step=step.round, summary=Summary(value=values)))
                self._there |= {(tag, step.round, time) for tag in new}
                written.add(step, len(new))
            self._say(_STATE, last, record.finished or datetime.now(UTC), tags(record))
            if self._open:
                self._open.flush()
        return written

    def close(self) -> None:
        if self._open:
            self._open.close()
        os.close(self._lock)

    def _say(self, tag: str, round_: int, time: datetime, said: dict[str, str]) -> None:
        """A table of text, where it is not what was said last."""
        rows = "".join(f"\n| {_cell(key)} | {_cell(value)} |" for key, value in said.items() if value)
        text = f"| | |\n|---|---|{rows}".encode()
        if self._said.get(tag) == text:
            return
        value = Summary.Value(tag=tag, metadata=create_summary_metadata("", ""), tensor=make_tensor_proto(text))
        self._put(Event(wall_time=time.timestamp(), step=round_, summary=Summary(value=[value])))
        self._said[tag] = text

    def _put(self, event: Event) -> None:
        """Into a file of this process' own: the one before may end in half an event, where its writer was killed."""
        if self._open is None:
            number = len(self._files())
            self._open = (self._folder / f"events.out.tfevents.{number:06d}.fednotes").open("xb")
            self._put(Event(wall_time=event.wall_time, file_version="brain.Event:2"))
        RecordWriter(self._open).write(event.SerializeToString())

    def _read(self, file: Path) -> None:
        for event in _events(file):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    self._there.add((value.tag, event.step, event.wall_time))
                else:
                    self._said[value.tag] = value.tensor.string_val[0]

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("events.out.tfevents.*.fednotes"))


def _events(file: Path) -> Iterator[Event]:
    """All that are whole."""
    with contextlib.suppress(StopIteration):
        yield from LegacyEventFileLoader(str(file)).Load()


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split())).replace("|", "&#124;")
