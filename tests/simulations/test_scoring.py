"""Scores of a run: every task that the sites have, in every mode of the plan, kept as they are made."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from client.evaluation.scorer import Scorer
from client.notes.source import NotesSource
from client.notes.store import NoteStore
from client.site import open_site
from common.encoder import Encoder, load_encoder, tensors_digest
from common.plan import StudyPlan
from tests.simulations.conftest import Fednotes

KIND = {"name": "kind", "label": "category", "metric": "accuracy"}
MODES = ["frozen", "lora"]


@pytest.fixture
def scorer(
    make_plan: Callable[..., StudyPlan],
    make_site: Callable[..., Path],
    notes: NoteStore,
    source: NotesSource,
    tmp_path: Path,
) -> Callable[..., tuple[Scorer, Encoder]]:
    """A scorer of one site that has all of the notes, and the label beside a task of its own."""

    def make() -> tuple[Scorer, Encoder]:
        evaluation = {"tasks": ["label", "kind", "mortality"], "modes": MODES, "shots": [4], "tuning_epochs": 1}
        plan = make_plan(evaluation=evaluation)
        site = open_site(make_site("all", range(len(notes)), tasks=[KIND]))
        encoder = load_encoder(plan.encoder.base)
        return Scorer(plan, {"all": site}, {"all": notes}, encoder, tmp_path / "scores"), encoder

    return make


def test_every_task_and_mode_is_scored_and_compared(scorer: Callable[..., tuple[Scorer, Encoder]]) -> None:
    scores, encoder = scorer()
    tensors = {name: p.detach().numpy().copy() for name, p in encoder.tensors().items()}
    for model in ("majority", "tf-idf"):
        scores.score(model, "all", None)
    for model in ("base", "federated"):
        scores.score(model, "all", tensors)
    found = {(s.task, s.model, s.mode) for s in scores.scores}
    words = {(task, model, "frozen") for task in ("label", "kind") for model in ("majority", "tf-idf")}
    assert found == words | {(t, m, mode) for t in ("label", "kind") for m in ("base", "federated") for mode in MODES}
    assert [(missing.task, missing.site) for missing in scores.not_scored] == [("mortality", "all")]
    assert {s.metric for s in scores.scores if s.task == "kind"} == {"accuracy"}
    compared = scores.comparisons(["base", "tf-idf"])
    assert {(c.task, c.against, c.mode) for c in compared} == {
        (task, model, mode) for task in ("label", "kind") for model in ("base", "tf-idf") for mode in MODES
    }
    # The same weights under two names: nothing can be different, tuned or not.
    assert all(c.difference.value == 0 for c in compared if c.against == "base")
    assert tensors_digest(encoder.tensors().items()) == tensors_digest(tensors.items())


def test_scores_are_kept_by_weights(scorer: Callable[..., tuple[Scorer, Encoder]], tmp_path: Path) -> None:
    first, encoder = scorer()
    tensors = {name: p.detach().numpy().copy() for name, p in encoder.tensors().items()}
    first.score("base", "all", tensors)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "scores").rglob("*.json")}
    assert len(files) == 4
    again, _ = scorer()
    again.score("base", "all", tensors)
    assert again.scores == first.scores
    assert {file: file.stat().st_mtime_ns for file in files} == files
    name = next(iter(tensors))
    again.score("base", "all", tensors | {name: tensors[name] + 0.1})
    assert all(file.stat().st_mtime_ns != when for file, when in files.items())


def test_tasks_of_a_site_file_are_the_run_s(
    fednotes: Fednotes, plan_file: Callable[..., Path], notes_file: str, tmp_path: Path
) -> None:
    site = {"name": "A", "split_key": "ab" * 16, "cache": "cache", "notes": {"source": notes_file}, "tasks": [KIND]}
    (tmp_path / "site.toml").write_text(tomli_w.dumps(site), encoding="utf-8")
    plan = plan_file(evaluation={"tasks": ["kind"], "shots": []})
    done = fednotes("simulate", plan, "--notes", "site.toml", "--sites", "1", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert '"task": "kind"' in done.stdout and '"task": "label"' not in done.stdout
