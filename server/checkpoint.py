"""Checkpoints: one folder a finished round, complete or absent, whenever the process is killed.

`shared.safetensors` holds the shared tensors, `strategy.safetensors` the strategy's moments, and `state.json` the
record of all rounds so far with the digests of both files. There is no random state to keep: every random number in a
study is drawn from a key of seed, site and step. What stays at a site is kept there (client/heads.py).
"""

import hashlib
import re
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file, save_file

from common.errors import StudyError
from common.files import new_folder, write_text
from common.messages import Tensors
from common.results import Memorisation, Round, SiteFacts
from common.scores import SiteScores

KEPT = 2


class State(BaseModel):
    """The record of a run up to a round. `run` (32 hex digits) is the same before and after it is resumed."""

    model_config = ConfigDict(extra="forbid")

    plan_hash: str
    run: str
    round: int
    rounds: list[Round]
    sites: list[SiteFacts]
    left_out_sites: dict[str, str]
    memorisation: list[Memorisation] = []  # of the last round
    scores: list[SiteScores] = []  # likewise
    tensors: list[str] = []  # their order: the files below sort names, and Flower's momentum goes by position
    digests: dict[str, str] = {}

    @property
    def trained(self) -> set[str]:
        """The sites that have returned from a round."""
        return {did.site for one in self.rounds for did in one.sites if did.state == "returned"}


def save_checkpoint(folder: Path, state: State, shared: Tensors, strategy: Tensors) -> None:
    """Write the checkpoint of `state.round` into `folder`; the oldest beyond KEPT go. Raises MachineError."""
    state.tensors = list(shared)
    with new_folder(_place(folder, state.round)) as scratch:
        for name, tensors in (("shared", shared), ("strategy", strategy)):
            save_file(tensors, scratch / f"{name}.safetensors")
            state.digests[name] = _digest(scratch / f"{name}.safetensors")
        (scratch / "state.json").write_text(state.model_dump_json(), encoding="utf-8")
    for number in _rounds(folder)[:-KEPT]:
        shutil.rmtree(_place(folder, number), ignore_errors=True)


def save_state(folder: Path, state: State) -> None:
    """Write the record alone; the tensors of `state.round` stand already. Raises MachineError."""
    write_text(_place(folder, state.round) / "state.json", state.model_dump_json())


def load_checkpoint(folder: Path, plan_hash: str) -> tuple[State, Tensors, Tensors] | None:
    """The newest intact checkpoint (record, shared tensors, strategy state), or None where there is none.

    Raises StudyError where checkpoints exist but none is intact, or where they belong to another plan.
    """
    numbers = _rounds(folder)
    for number in reversed(numbers):
        place = _place(folder, number)
        try:
            state = State.model_validate_json((place / "state.json").read_text("utf-8"))
            for name, digest in state.digests.items():
                if _digest(place / f"{name}.safetensors") != digest:
                    raise ValueError
            stored, strategy = load_file(place / "shared.safetensors"), load_file(place / "strategy.safetensors")
            shared = {name: stored[name] for name in state.tensors}
        except (OSError, ValueError, KeyError):
            continue  # damaged after it was written: the one before still stands
        if state.plan_hash != plan_hash:
            raise StudyError("plan-changed", f"{folder} belongs to another plan.", "Start a new run for a new plan.")
        return state, shared, strategy
    if numbers:
        raise StudyError("checkpoint-damaged", f"No checkpoint in {folder} is intact.", "Start a new run.")
    return None


def _place(folder: Path, number: int) -> Path:
    return folder / f"round-{number:04d}"


def _rounds(folder: Path) -> list[int]:
    names = (path.name for path in folder.glob("round-*") if path.is_dir())
    return sorted(int(name.removeprefix("round-")) for name in names if re.fullmatch(r"round-\d+", name))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
