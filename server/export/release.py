"""A release: the model of a run in a folder of its own, with its card and its governance. Whole, or not at all.

Where a site refuses, nothing is written, and nothing overrides it.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from common.errors import InputError, StudyError
from common.files import explained, new_folder
from common.results import Summary
from server.base import trained_encoder
from server.checkpoint import load_checkpoint
from server.export.governance import read_governance, write_governance
from server.export.onnx import Checked, check_extra, write_onnx
from server.memorisation import vetoes
from server.report.memorisation import memorisation_sentences
from server.results import save_model
from server.run_folder import PLAN_FILE, RunFolder, no_run

Format = Literal["hugging-face", "sentence-transformers", "onnx"]


class Released(BaseModel):
    """What was written. `files`: bytes of each; `difference`: of ONNX from torch at most, in any coordinate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    formats: list[Format]
    files: dict[str, int]
    difference: float | None
    compared_texts: int
    status: Literal["finished", "stopped"]
    privacy: str
    memorisation: list[str]


def export(path: Path, to: Path, formats: Sequence[Format], unfinished: bool) -> Released:
    """Write the model of the run in `path` into the folder `to`, which is new or empty.

    Args:
        unfinished: whether the last checkpoint of a run that stopped will do.

    Raises:
        InputError: `no-run`, `run-busy`, `no-results`, `run-unfinished`, `release-vetoed`, `out-exists`.
        StudyError: the checkpoints are damaged, or of another plan.
        MachineError: `onnx-missing`, `onnx-differs`; the disk is full, or the folder cannot be written.
    """
    if "onnx" in formats:
        check_extra()
    run, summary = RunFolder(path), _releasable(path, unfinished)
    plan = run.plan
    kept = load_checkpoint(run.checkpoints, plan.hash())
    if kept is None:
        raise StudyError("checkpoint-damaged", f"{run.checkpoints} has no checkpoint.", "Start a new run.")
    with _alone(to), new_folder(to) as scratch:
        encoder = trained_encoder(plan, kept[1])
        card = save_model(scratch, plan, encoder, summary, pooling="sentence-transformers" in formats)
        checked: Checked | None = None
        if "onnx" in formats:
            checked = write_onnx(encoder, scratch, plan.encoder.max_length, card)
        digests = {name: _digest(scratch / name) for name in _files(scratch)}
        write_governance(scratch, read_governance(run, summary), summary, digests)
        files = {name: (scratch / name).stat().st_size for name in _files(scratch)}
    return Released(
        folder=str(to),
        formats=list(formats),
        files=files,
        difference=checked and checked.difference,
        compared_texts=checked.texts if checked else 0,
        status=summary.status,
        privacy=summary.privacy,
        memorisation=memorisation_sentences(summary),
    )


def _releasable(path: Path, unfinished: bool) -> Summary:
    """The results of a run that may be released. Raises InputError."""
    if not (path / PLAN_FILE).exists():
        no_run(path)
    run = RunFolder(path)
    if run.busy():
        raise InputError("run-busy", f"Another process works on {path}.", "Wait for it, or stop it first.")
    summary = run.summary()
    if summary is None:
        raise InputError(
            "no-results", f"{path} has no results: it was ended before its end.", "Resume it, then export it."
        )
    if refusing := vetoes(summary.memorisation):
        codes = ", ".join(sorted({one.veto for one in summary.memorisation if one.veto}))
        raise InputError(
            "release-vetoed",
            f"These sites let the model not be released: {', '.join(refusing)} ({codes}).",
            "Speak with them. Nothing overrides a site: plan a new study, with less training or more privacy.",
        )
    if summary.status != "finished" and not unfinished:
        raise InputError(
            "run-unfinished",
            f"The study of {path} stopped before its end.",
            "Resume it; or export its last checkpoint with --unfinished, and its card will say so.",
        )
    return summary


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Hold the folder above, so that two exports do not write into one; whoever comes later finds the first.

    Raises InputError `out-exists` where there is anything in `to`.
    """
    above = to.absolute().parent
    with explained(to):
        above.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(above, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with explained(to):
            if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
                raise InputError("out-exists", f"{to} is there already.", "Name a new or empty folder with --to.")
        yield
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
