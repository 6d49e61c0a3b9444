"""All that can go wrong at a hospital in the middle of a study, one after the other: only codes leave.

Run by `make servers`."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import COLUMNS, FIRST, SECRETS, approve, planted
from needles import search
from real_federation import RealFederation, RealSite, events, wait_for
from spoken import spoken

from common.encoder import load_tokenizer
from common.plan import StudyPlan

WORD = SECRETS["text of a training note"]


def truncate_cache(site: RealSite) -> None:
    """The disk loses what the worker has mapped: the kernel kills it, and the next one finds the notes damaged."""
    for file in (site.folder / "cache").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            with file.open("r+b") as opened:
                opened.truncate(100)


def write_over_heads(site: RealSite) -> None:
    for file in (site.folder / "heads").rglob("*.safetensors"):
        file.write_text(f"the head that knew {WORD}" * 10)


def write_over_approvals(site: RealSite) -> None:
    file = site.folder / "approvals.jsonl"
    file.write_text(file.read_text() + json.dumps({"by": WORD}) + "\n")


def break_notes(site: RealSite) -> None:
    """A line of the notes that is no JSON, in a file of another name."""
    broken = site.folder / f"{SECRETS['source that vanished']}.jsonl"
    broken.write_text(json.dumps(dict.fromkeys(COLUMNS.values(), WORD)) + f"\n{{{WORD}\n")
    site.edit(r'^source = ".*"$', f'source = "{broken}"')


def receipts_are_a_file(site: RealSite) -> None:
    shutil.move(site.folder / "receipts", site.folder / "receipts-aside")
    (site.folder / "receipts").write_text(WORD)


# What happens -> the codes that may leave for it.
FAULTS: dict[str, tuple[Callable[[RealSite], None], set[str]]] = {
    "the cache": (truncate_cache, {"worker-died", "cache-damaged", "internal-error"}),
    "site.toml is no TOML": (lambda site: site.write(f"name = {WORD}"), {"site-invalid"}),
    "a key that there is not": (lambda site: site.edit("^min_notes", f"{WORD} = 1\nmin_notes"), {"site-invalid"}),
    "a column that there is not": (
        lambda site: site.edit(f'^category = "{COLUMNS["category"]}"$', f'category = "{WORD}"'),
        {"notes-column"},
    ),
    "a policy": (
        lambda site: site.edit(r"^max_rounds =.*$|^# max_rounds =.*$", "max_rounds = 1"),
        {"rounds-beyond-policy"},
    ),
    "a file that nobody foresaw": (
        lambda site: site.edit("^min_notes = 20$", f'min_notes = 20\nrows = "{WORD}.npy"'),
        {"internal-error"},
    ),
    "broken notes": (break_notes, {"notes-broken-row"}),
    "approvals": (write_over_approvals, {"approvals-damaged"}),
    "receipts": (receipts_are_a_file, {"unwritable", "internal-error"}),
    "heads": (write_over_heads, {"internal-error"}),
}


def mend(site: RealSite, text: str, approvals: dict[Path, bytes]) -> None:
    """All as it was."""
    site.write(text)
    for path, content in approvals.items():
        path.write_bytes(content)
    if (site.folder / "receipts-aside").exists():
        (site.folder / "receipts").unlink()
        shutil.move(site.folder / "receipts-aside", site.folder / "receipts")
    for made in ("heads", "cache"):
        shutil.rmtree(site.folder / made, ignore_errors=True)


@pytest.mark.timeout(900)
def test_whatever_goes_wrong_at_a_site_only_codes_leave(
    federation: RealFederation, study_plan: Callable[..., StudyPlan], bases: dict[str, str]
) -> None:
    plan = study_plan(
        "failing", objective={"kind": "note-category", "weight": 1.0}, federation={"rounds": 500, "min_sites": 2}
    )
    approve(federation, plan)
    site = federation.sites[FIRST]
    approvals = {path: path.read_bytes() for path in site.folder.glob("approvals.*")}
    text, seen = site.file.read_text(), {}
    with federation.running(plan) as (process, study):

        def of_site(kind: str, after: int) -> set[str]:
            return {one["text"] for one in events(study)[after:] if one["site"] == FIRST and one["kind"] == kind}

        wait_for(lambda: of_site("returned", 0), words="the first round")
        for name, (fault, _) in FAULTS.items():
            before = len(events(study))
            fault(site)
            wait_for(lambda after=before: of_site("left-out", after), 120, f"nothing came of {name}")
            mend(site, text, approvals)
            mended = len(events(study))
            wait_for(lambda after=mended: of_site("returned", after), 120, f"the site is not back after {name}")
            seen[name] = {one.rpartition("the site reports ")[2] for one in of_site("left-out", before)}
        federation.command("server", "stop", study.path)
        federation.ended(process, code=4)
    assert not {name: codes for name, codes in seen.items() if not codes <= FAULTS[name][1]}
    assert not search(federation.escaped(), planted(federation, load_tokenizer(bases["bert"])))
    reasons = [one.error.reason for one in spoken(federation.proxy.exchanges()) if one.has_error()]
    assert len(reasons) >= len(FAULTS) and all(re.fullmatch("[a-z]+(-[a-z]+)+", reason) for reason in reasons)
