"""One federation of three hospitals for all tests of a file; what must never leave is planted in it from the start."""

import csv
import gzip
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needles import Needle, needles
from real_federation import Finished, RealFederation, RealSite
from transformers import PreTrainedTokenizerFast

from client.approval import record
from client.notes.source import Columns, NotesSource
from client.notes.split import seeded_key
from client.site import open_site
from common.plan import StudyPlan
from common.results import SiteFacts
from server.display import Silent
from simulations.federation import simulate
from simulations.setup import Wish
from simulations.synthetic_notes import synthetic_notes

REAL_NOTES = Path(__file__).parents[3] / "shared" / "data" / "mtsamples" / "notes.jsonl.gz"
SITES = ("neuro-psychiatry-rehab", "small-dgh", "women-children-urology")
FIRST, SECOND, THIRD = SITES
SEED = 3  # the plan's
NOTES = {FIRST: 200, SECOND: 120, THIRD: 120}  # of the first so many that its scores may leave
# Made-up words: where each is planted. None may ever be found outside its hospital.
SECRETS = {
    "text of a training note": "Brimquazzle",
    "text of many notes": "Vlaskonidur",
    "patient": "Oxtrevigand",
    "category": "Quindelmorf",
    "label": "Jarvontwisp",
    "id of a note": "Kephrastuum",
    "file of notes": "Zunderhokka",
    "folder of notes": "Pyxelgrunth",
    "folder of sites": "Wombrajinsk",
    "column of texts": "Dralquifest",
    "column of patients": "Hespringolt",
    "column of categories": "Nuvvelstrop",
    "column of labels": "Tazmirklung",
    "table of a database": "Gorvandrift",
    "password of a database": "Xyloburnamp",
    "name of a task": "skevintrolp",
    "who approved": "Ulmbrackway",
    "column that is missing": "Farnobelque",
    "source that vanished": "Chothinvard",
    "file that nobody foresaw": "Grumbelwick",
}
STUDY = "zeugmatrope"  # a name that travels, which every search must find


def notes_of_hospitals() -> dict[str, list[dict[str, Any]]]:
    """Real clinical notes where they are, else synthetic ones, with secrets among them; a patient has two."""
    if REAL_NOTES.exists():
        with gzip.open(REAL_NOTES, "rt") as file:
            everything = [json.loads(line) for line in file]
        chosen = {name: [one for one in everything if one["site"] == name][: NOTES[name]] for name in SITES}
    else:
        everything = list(synthetic_notes(notes=3 * sum(NOTES.values()), hospitals=len(SITES)))
        hospitals = sorted({note["site"] for note in everything})
        pairs = zip(SITES, hospitals, strict=True)
        chosen = {name: [one for one in everything if one["site"] == other][: NOTES[name]] for name, other in pairs}
    return {name: [_planted(name, place, note) for place, note in enumerate(notes)] for name, notes in chosen.items()}


def _planted(site: str, place: int, note: dict[str, Any]) -> dict[str, Any]:
    said = SECRETS["text of many notes"] if place % 3 == 0 else ""
    said += f" {SECRETS['text of a training note']}" if place == 7 else ""
    return {
        "id": f"{SECRETS['id of a note']}-{site}-{place}",
        "text": f"{said} {note['text'][:1500]} {said}".strip(),
        "patient": f"{SECRETS['patient']}-{site}-{place // 2}",
        "category": SECRETS["category"] if place % 4 == 0 else note["category"] or "other",
        "label": SECRETS["label"] if place % 4 < 2 else "other",
        "site": site,
    }


@pytest.fixture(scope="session")
def hospital_notes(tmp_path_factory: pytest.TempPathFactory) -> NotesSource:
    """All notes in one file, for simulations."""
    path = tmp_path_factory.mktemp("all") / "notes.jsonl"
    lines = [json.dumps(note) + "\n" for notes in notes_of_hospitals().values() for note in notes]
    path.write_text("".join(lines), encoding="utf-8")
    return NotesSource(source=str(path), columns=Columns(site="site"))


COLUMNS = {field: SECRETS[f"column of {field}s"] for field in ("text", "patient", "label")}
COLUMNS["category"] = SECRETS["column of categories"]
FLAGS = [word for field, column in COLUMNS.items() for word in (f"--{field}", column)]


def write_notes(folder: Path) -> dict[str, list[object]]:
    """The notes of each hospital: JSON Lines, an SQLite database, CSV. What `fednotes site init` is told of them."""
    folder = folder / SECRETS["folder of notes"]
    folder.mkdir()
    stem = SECRETS["file of notes"]
    rows = {
        name: [{COLUMNS.get(field, field): value for field, value in note.items() if field != "site"} for note in notes]
        for name, notes in notes_of_hospitals().items()
    }
    lines, table, database = folder / f"{stem}.jsonl.gz", folder / f"{stem}.csv", folder / f"{stem}.sqlite"
    with gzip.open(lines, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows[FIRST]))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[THIRD][0])
        writer.writeheader()
        writer.writerows(rows[THIRD])
    names = list(rows[SECOND][0])
    called = SECRETS["table of a database"]
    with sqlite3.connect(database) as opened:
        opened.execute(f"CREATE TABLE {called} ({', '.join(names)})")
        places = ", ".join("?" * len(names))
        opened.executemany(f"INSERT INTO {called} VALUES ({places})", [tuple(row.values()) for row in rows[SECOND]])
    url = f"sqlite:///{database}"
    query = f"SELECT * FROM {called} ORDER BY rowid"
    return {
        FIRST: ["--notes", lines, *FLAGS],
        SECOND: ["--notes", url, "--query", query, *FLAGS],
        THIRD: ["--notes", table, *FLAGS],
    }


def settled(site: RealSite) -> None:
    """What the hospital's engineer writes into its site.toml: a task, and for the tests the simulation's split."""
    site.edit(r'^split_key = ".*"$', f'split_key = "{seeded_key(SEED).hex()}"')
    site.edit(r"^# threads =.*$|^max_hours_per_message = .*$", "max_hours_per_message = 1.0\nthreads = 1")
    site.edit(r"^release_embedding_space = false$", "release_embedding_space = true")
    if site.name == FIRST:
        site.edit(r"^release_scores = false$", "release_scores = true")
    task = f'[[tasks]]\nname = "{SECRETS["name of a task"]}"\nlabel = "{COLUMNS["label"]}"\n\n[coordinator]'
    site.edit(r"^\[coordinator\]$", task)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[RealFederation]:
    """Three hospitals that are online."""
    root = tmp_path_factory.mktemp("federation")
    made = RealFederation(root, environment)
    try:
        made.start()
        with_sites(made)
        yield made
    finally:
        made.end()


def with_sites(made: RealFederation) -> None:
    """Three hospitals join it, and are online."""
    sites = made.root / SECRETS["folder of sites"]
    sites.mkdir()
    for name, words in write_notes(made.root).items():
        settled(made.add(name, sites / name, *words))
    made.ready()
    for site in made.sites.values():
        site.start()
    for site in made.sites.values():
        site.online()


@pytest.fixture(scope="session")
def study_plan(bases: dict[str, str]) -> Callable[..., StudyPlan]:
    """A small plan for the three hospitals, with sections changed."""

    def make(name: str, **sections: dict[str, Any]) -> StudyPlan:
        plan: dict[str, dict[str, Any]] = {
            "study": {"name": name, "seed": SEED},
            "encoder": {"base": bases["bert"], "max_length": 32},
            "training": {"steps_per_round": 4, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"},
            "federation": {"rounds": 2, "sites": list(SITES), "min_sites": 3, "site_wait": 60.0},
            "evaluation": {"held_out_notes": 8, "tasks": [], "shots": [16]},
        }
        for section, settings in sections.items():
            plan[section] = plan.get(section, {}) | settings
        return StudyPlan.model_validate(plan)

    return make


def approve(federation: RealFederation, plan: StudyPlan, *names: str) -> None:
    """At these hospitals, or at all."""
    for name in names or SITES:
        record(open_site(federation.sites[name].folder), plan, "approved", SECRETS["who approved"])


def simulated_study(plan: StudyPlan, notes: NotesSource, out: Path, cache: Path) -> Finished:
    """The same study on one machine, in this process."""
    return Finished(simulate(plan, Wish(notes=notes, out=out, cache=cache), Silent()), "")


def _unapproved(facts: SiteFacts) -> SiteFacts:
    assert facts.approved_at and facts.approval and not facts.approved_by
    return facts.model_copy(update={"approved_at": "", "approval": ""})


def same_study(real: Finished, there: Finished) -> None:
    """Bit for bit. Random numbers come from keys of seed, site and step, sites are averaged in the order of their
    names, and all processes compute with one thread: nothing is left to differ."""
    assert list(real.weights) == list(there.weights)
    for name, value in real.weights.items():
        np.testing.assert_array_equal(value, there.weights[name], err_msg=name)
    for one, other in zip(real.state.rounds, there.state.rounds, strict=True):
        assert one.held_out == other.held_out and set(one.held_out) == set(SITES)
        # A real site has kept its weights since the round, and is not sent them again: bytes differ.
        mine, theirs = (
            [site.model_dump(exclude={"seconds", "bytes_down"}) for site in run.sites] for run in (one, other)
        )
        assert mine == theirs
    assert [_unapproved(one) for one in real.state.sites] == there.state.sites  # nobody is asked in a simulation
    first, last = real.state.rounds[0].held_out, real.state.rounds[-1].held_out
    assert all(last[site].loss < first[site].loss for site in SITES)  # it was no study of nothing


def planted(federation: RealFederation, tokenizer: PreTrainedTokenizerFast, but: str = "") -> list[Needle]:
    """Every form of every secret: the planted words, and the sites' keys."""
    found = needles({place: word for place, word in SECRETS.items() if place != but}, tokenizer)
    for name in SITES:
        folder = federation.sites[name].folder
        lines = (folder / "site.key").read_text().splitlines()[2:-1]  # the first is the same in all keys
        keys = {f"key of {name}, line {number}": line for number, line in enumerate(lines)}
        if (folder / "secret.key").exists():
            keys[f"secret of {name}"] = (folder / "secret.key").read_bytes().hex()
        found += needles(keys | {"split key": seeded_key(SEED).hex()})
    return found
