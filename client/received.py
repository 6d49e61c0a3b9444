"""The shared weights that a real site was sent last, kept there so that the next round need not send them again, and
for `fednotes site report`: what it gained is its own to measure. A virtual site keeps none: its simulation has them."""

import logging
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from client.site import Site
from common import wire
from common.errors import InputError, MachineError
from common.files import new_file
from common.messages import Request, Tensors, nothing_held
from common.plan import StudyPlan, parse_plan, plan_to_toml

log = logging.getLogger("fednotes.site")

RECEIVED = "received"
_RUNS = 2  # that are kept, a file each


@dataclass(frozen=True)
class Received:
    """Shared tensors as they stood after a round of a run."""

    plan: StudyPlan
    run: str
    round: int
    tensors: Tensors


def keep_received(site: Site, request: Request) -> None:
    """Keep what came with the request in place of what came before in its run; atomic. The oldest runs go.
    Where the disk refuses, nothing is kept."""
    if site.config.coordinator is None:
        return
    folder = site.folder / RECEIVED
    file = folder / f"{request.run}.safetensors"
    said = {"plan": plan_to_toml(request.plan), "round": str(request.round)}
    tensors = {name: value.copy() for name, value in request.arrays.items()}  # what came may not lie in order
    try:
        with new_file(file) as scratch:
            save_file(tensors, scratch, metadata=said)
    except MachineError as error:  # a full disk costs the site its report, and some time, not the study its round
        log.warning("the weights of round %d are not kept: %s", request.round, error)
    for old in _files(folder)[_RUNS:]:
        if old != file:
            old.unlink(missing_ok=True)


def held(folder: Path, run: str, digest: str) -> Tensors:
    """The shared tensors that the site in `folder` was sent last in a run (32 hex digits), where theirs is the digest.

    Raises:
        FednotesError: `weights-missing`.
    """
    try:
        tensors = load_file(folder / RECEIVED / f"{run}.safetensors")
    except (OSError, SafetensorError):
        return nothing_held(run, digest)
    return tensors if wire.digest(tensors) == digest else nothing_held(run, digest)


def last_received(folder: Path, plan: StudyPlan | None) -> Received:
    """What the site in `folder` received last, of the study with this plan where one is given.

    Raises:
        InputError: `nothing-received`.
    """
    for file in _files(folder / RECEIVED):
        try:
            with safe_open(file, "np") as opened:
                said = opened.metadata() or {}
                theirs = parse_plan(said["plan"])
                if said["round"] == "0" or (plan is not None and plan.hash() != theirs.hash()):
                    continue  # round 0 is the base
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError, KeyError, InputError):
            continue  # damaged, or of another version's plan
        return Received(theirs, file.stem, int(said["round"]), tensors)
    of = "" if plan is None else f" of study {plan.study.name} with this plan"
    raise InputError(
        "nothing-received",
        f"{folder} has received no shared weights{of} yet.",
        "They are kept after each round that the coordinator evaluates.",
    )


def _files(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
