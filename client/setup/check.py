"""`fednotes site check`: what would go wrong in a study, found before one begins. Nothing leaves but a look at the
coordinator's `/health`."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from client.approval import approvals
from client.ledger import Ledger
from client.node.keys import load_key
from client.notes.store import NoteStore
from client.receipt import verify
from client.setup.finding import Finding, failed
from client.setup.reach import reach
from client.setup.speed import keep_speed, measure
from client.site import SITE_FILE, Site, open_site
from client.tasks import OpenTask, open_task, task_names
from common.encoder import PACKAGED, load_tokenizer
from common.errors import FednotesError
from common.package import package_digest
from common.plan import StudyPlan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LEAST_DISK, _LITTLE_DISK = 1e9, 10e9  # bytes
_LEAST_MEMORY = 4e9


def check(folder: Path, plan: StudyPlan | None) -> Iterator[Finding]:
    """The findings, as they are made. Notes are read with the plan's tokeniser, or the packaged base's."""
    try:
        site = open_site(folder)
    except FednotesError as error:
        yield failed("site.toml", error)
        return
    yield Finding("site.toml", "ok", f"{site.name}, {folder / SITE_FILE}")
    yield Finding(
        "versions",
        "ok",
        f"fednotes {version('fednotes')} (package {package_digest()[:12]}), flwr {version('flwr')}, "
        f"Python {platform.python_version()}",
    )
    yield _folder_mode(folder)
    for name, found in (("key", _key), ("ledger", _ledger), ("approvals", _approvals)):
        yield _tried(name, found, site)
    yield _disk(site)
    yield _memory()
    if site.config.coordinator is None:
        yield Finding("coordinator", "error", f"{SITE_FILE} has no [coordinator].", "Make the site from a kit.")
    else:
        yield from reach(site.coordinator.address, site.coordinator.ca)
    yield from _notes(site, plan)


def _notes(site: Site, plan: StudyPlan | None) -> Iterator[Finding]:
    """Of the notes, and of what rests on them."""
    try:
        tokenizer = load_tokenizer(plan.encoder.base if plan else PACKAGED)
        own = site.notes(tokenizer)
    except FednotesError as error:
        yield failed("notes", error)
        return
    yield _counts(site, own)
    for name in task_names(site, own):
        try:
            task = open_task(site, name, own, tokenizer)
        except FednotesError as error:
            yield failed(f"task {name}", error)
            continue
        if isinstance(task, OpenTask):
            labels = [value for value in task.notes.column("label") if value is not None]
            yield Finding(f"task {name}", "ok", f"{len(labels):,} labelled notes of {len(set(labels)):,} classes")
    if site.config.public is not None:
        yield _public(site, own, tokenizer)
    if plan is None:
        yield Finding("speed", "warning", "Not measured.", "Give a --plan, and its steps are timed here.")
    else:
        yield from _plan(site, own, plan)


def _plan(site: Site, own: NoteStore, plan: StudyPlan) -> Iterator[Finding]:
    from client.admission import refusals, unapproved

    for error in refusals(site, own, plan):
        yield Finding("plan", "error", f"It would be refused ({error.code}): {error.message}", error.next_step)
    if missing := unapproved(site, plan):
        yield Finding("plan", "warning", missing.message, missing.next_step)
    try:
        speed = measure(site.folder, plan)
        keep_speed(site.folder, speed)
    except FednotesError as error:
        yield failed("speed", error)
        return
    yield Finding("speed", "ok", f"{speed.step:.3g} s a step on {speed.device}, {speed.evaluate:.3g} s to evaluate")
    import psutil

    available = psutil.virtual_memory().available
    text = f"{speed.memory / 1e9:.1f} GB in training; {available / 1e9:.1f} GB are free beside it"
    # What is measured is in use now, and so no longer among what is free.
    tight = speed.device == "cpu" and available < 0.5 * speed.memory
    fix = "Close other programs, or ask for a smaller batch_size in the plan."
    yield Finding("memory of the plan", "warning" if tight else "ok", text, fix if tight else "")


def _counts(site: Site, own: NoteStore) -> Finding:
    splits = {split: len(own.split_indices(split)) for split in ("train", "dev", "test")}
    intake, known = own.intake, own.column("patient")
    patients = len({patient for patient in known if patient is not None})
    categories = len({value for value in own.column("category") if value is not None})
    text = (
        ", ".join(f"{count:,} {split}" for split, count in splits.items())
        + f"; {intake.too_short + intake.empty:,} too short or empty, {intake.copies:,} copies across splits; "
        f"{patients:,} patients, {categories:,} categories"
    )
    if splits["train"] < site.config.min_notes:
        return Finding(
            "notes", "error", text, f"At least {site.config.min_notes} training notes are needed (min_notes)."
        )
    if not patients and site.config.policy.unit == "patient":
        fix = "Name the patient column: without one, each note counts as a patient of its own, and is protected alone."
        return Finding("notes", "warning", text, fix)
    if not splits["dev"] or not splits["test"]:
        return Finding("notes", "warning", text, "Give more notes: nothing can be measured without dev and test notes.")
    return Finding("notes", "ok", text)


def _public(site: Site, own: NoteStore, tokenizer: "PreTrainedTokenizerBase") -> Finding:
    """Private training compares with it and adds no noise for it: a note that stands in it is not protected."""
    try:
        store = site.public_notes(tokenizer)
    except FednotesError as error:
        return failed("public text", error)
    assert store is not None  # it is named in site.toml
    known = {store.tokens(i).tobytes() for i in range(len(store))}
    shared = sum(own.tokens(i).tobytes() in known for i in range(len(own)))
    text = f"{len(store):,} texts"
    if shared:
        fix = "Name text that is no secret: no noise is added for what is in it."
        return Finding("public text", "error", f"{text}; {shared:,} notes of this site stand in it.", fix)
    return Finding("public text", "ok", text)


def _key(site: Site) -> str:
    load_key(site.coordinator.key)
    return f"{site.coordinator.key}, for its owner alone"


def _ledger(site: Site) -> str:
    verify(site.folder)
    entries = Ledger(site.folder).entries()
    return f"whole: {len(entries):,} rounds charged" + (f", epsilon {entries[-1].epsilon_total:.3g}" if entries else "")


def _approvals(site: Site) -> str:
    return f"whole: {len(approvals(site)):,} decisions"


def _folder_mode(folder: Path) -> Finding:
    wide = [name for name in (folder, folder / SITE_FILE) if name.stat().st_mode & 0o077]
    if not wide:
        return Finding("permissions", "ok", "this user's alone")
    fix = f"chmod go-rwx {' '.join(map(str, wide))}"
    return Finding("permissions", "warning", f"Others may open {' and '.join(map(str, wide))}.", fix)


def _disk(site: Site) -> Finding:
    place = next(path for path in (site.cache, *site.cache.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free for {site.cache}"
    if not os.access(place, os.W_OK):
        return Finding("disk", "error", f"{place} cannot be written.", "Mend its permissions, or name another cache.")
    if free < _LEAST_DISK:
        return Finding("disk", "error", text, "Free some space: prepared notes and weights are kept there.")
    return Finding("disk", "warning" if free < _LITTLE_DISK else "ok", text, "Free some space." * (free < _LITTLE_DISK))


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    low = memory.available < _LEAST_MEMORY
    return Finding("memory", "warning" if low else "ok", text, "A small encoder needs some 4 GB." * low)


def _tried(name: str, found: Callable[[Site], str], site: Site) -> Finding:
    try:
        return Finding(name, "ok", found(site))
    except FednotesError as error:
        return failed(name, error)
