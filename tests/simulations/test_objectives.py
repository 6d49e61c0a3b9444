"""A whole federation for each objective, in this process: what is recorded, what travels, and who is left out."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from safetensors.numpy import load_file

import client.app
from client.notes.source import Columns, NotesSource
from client.notes.store import NoteStore
from common import messages
from common.encoder import load_encoder
from common.messages import PARTS, Tensors
from common.plan import StudyPlan, plan_to_toml
from server.app import app as server_app
from server.checkpoint import State, load_checkpoint
from server.display import Silent
from server.run_folder import CHECKPOINTS, PLAN_FILE
from simulations.baselines import alone
from simulations.engines import run_inprocess
from simulations.federation import simulate
from simulations.setup import Wish

DECLUTR: dict[str, Any] = {"kind": "declutr", "max_span": 20}
LONG: dict[str, Any] = {"kind": "declutr", "anchors": 5, "min_span": 27, "max_span": 27}  # asks for notes of 270 tokens
ALL = ["discharge summary", "emergency", "incident report", "letter", "nursing", "operation", "progress", "radiology"]
OBJECTIVES: dict[str, dict[str, Any]] = {
    "mlm": {"kind": "mlm"},
    "declutr": DECLUTR,
    "declutr-cached": DECLUTR | {"spans_at_once": 7, "masked": False},
    "declutr-contrastive": DECLUTR | {"mlm_weight": 0.0},
    "category-own": {"kind": "note-category"},
    "category-shared": {"kind": "note-category", "categories": ALL},
    "category-contrastive": {"kind": "note-category", "loss": "contrastive"},
}


@dataclass
class Federation:
    """A study over sites of this process; `kill` names the (site, kind, round) at which it is killed."""

    plan: StudyPlan
    folder: Path
    sites: dict[str, Path]
    kill: tuple[str, str, int] | None = None
    updates: dict[tuple[str, int], Tensors] = field(default_factory=dict)
    sent: dict[tuple[str, int], Tensors] = field(default_factory=dict)

    def client(self, message: Message, context: Context) -> Message:
        name = Path(str(context.node_config[client.app.SITE_FOLDER])).name
        kind = message.metadata.message_type
        number = int(message.content.config_records["config"].get("server-round", 0))  # type: ignore[arg-type]
        reply = client.app.app(message, context)
        if (name, kind, number) == self.kill:
            raise KeyboardInterrupt  # passes the grid, as a signal would
        if kind == "train":
            self.sent[name, number] = messages.unpacked(message.content.array_records["arrays"])
            self.updates[name, number] = messages.unpacked(reply.content.array_records["arrays"])
        return reply

    def run(self) -> State:
        (self.folder / PLAN_FILE).write_text(plan_to_toml(self.plan), encoding="utf-8")
        run_inprocess(server_app, self.client, self.folder, list(self.sites.values()))  # type: ignore[arg-type]
        return self.kept[0]

    @property
    def kept(self) -> tuple[State, Tensors]:
        kept = load_checkpoint(self.folder / CHECKPOINTS, self.plan.hash())
        assert kept is not None
        return kept[0], kept[1]

    def heads(self, site: str) -> Tensors:
        """The newest tensors that stay at a site."""
        files = (
            sorted((self.sites[site] / "heads").rglob("*.safetensors")) if (self.sites[site] / "heads").exists() else []
        )
        return load_file(files[-1]) if files else {}


@pytest.fixture(autouse=True)
def _own_worker() -> Iterator[None]:
    """What another test left in the worker is not what a site starts from."""
    client.app._worker.cache_clear()
    yield
    client.app._worker.cache_clear()


@pytest.fixture
def federation(
    tmp_path: Path,
    make_site: Callable[..., Path],
    make_plan: Callable[..., StudyPlan],
    hospitals: dict[str, np.ndarray],
) -> Callable[..., Federation]:
    def make(
        objective: dict[str, Any], where: str = "a", rows: dict[str, np.ndarray] | None = None, **sections: Any
    ) -> Federation:
        sites = {name: make_site(name, r, folder=f"{where}/{name}") for name, r in (rows or hospitals).items()}
        return Federation(make_plan(objective=objective, **sections), tmp_path / "sites" / where, sites)

    return make


@pytest.mark.parametrize("case", OBJECTIVES)
def test_losses_and_their_parts_are_recorded(federation: Callable[..., Federation], case: str) -> None:
    objective = OBJECTIVES[case]
    state = federation(objective, training={"batch_size": 8}).run()
    expected = set(PARTS[objective["kind"]]) - ({"mlm"} if case == "declutr-contrastive" else set())
    assert state.round == 2 and state.left_out_sites == {}
    for one in state.rounds:
        assert len(one.held_out) == 3 and len(one.sites) == (3 if one.number else 0)
        for found in one.held_out.values():
            assert np.isfinite(found.loss) and found.tokens > 0
            # Of the two dev notes of one site, none has another of its category.
            assert set(found.parts) == expected or (case == "category-contrastive" and found.notes == 2)
            assert all(np.isfinite(value) for value in found.parts.values())
        for site in one.sites:
            assert site.state == "returned" and site.loss is not None and site.tokens > 0 and site.notes > 0
            assert set(site.parts) == expected and all(np.isfinite(value) for value in site.parts.values())
            if objective["kind"] == "declutr":  # both weights are 1, and both losses are over the same steps
                assert site.loss == pytest.approx(sum(site.parts.values()), rel=0.05)
    if case.startswith("category-") and "contrastive" not in case:
        untrained = state.rounds[0].held_out["northgate"].parts["category"]
        assert untrained == pytest.approx(np.log(8), rel=1e-5)  # a head of zeros favours no category


@pytest.mark.parametrize("share", ["encoder", "encoder+mlm-head"])
def test_a_shared_head_travels_is_averaged_and_comes_back(federation: Callable[..., Federation], share: str) -> None:
    study = federation(OBJECTIVES["category-shared"], federation={"share": share, "rounds": 2})
    state = study.run()
    weights = {site.site: site.notes for site in state.rounds[1].sites}
    for name in ("category_head.weight", "category_head.bias"):
        assert not study.sent["northgate", 1][name].any()
        returned = {site: study.updates[site, 1][name].astype(np.float64) for site in weights}
        assert all(value.any() for value in returned.values())
        mean = sum(weights[site] * value for site, value in returned.items()) / sum(weights.values())
        for site in weights:
            np.testing.assert_allclose(study.sent[site, 2][name], mean, atol=1e-7)
    assert study.kept[1]["category_head.weight"].shape == (8, 32)
    assert all(not any(n.startswith("category_head") for n in study.heads(site)) for site in weights)


def test_an_own_head_stays_and_is_as_large_as_the_site_has_categories(
    federation: Callable[..., Federation], hospitals: dict[str, np.ndarray], notes: NoteStore
) -> None:
    categories = notes.column("category")
    few = np.array([row for row in hospitals["northgate"] if categories[row] in ("nursing", "radiology", "progress")])
    study = federation(OBJECTIVES["category-own"], rows=hospitals | {"northgate": few})
    study.run()
    assert not any("category" in name for update in study.updates.values() for name in update)
    assert not any("category" in name for name in study.kept[1])
    assert study.heads("northgate")["category_head.weight"].shape == (3, 32)
    assert study.heads("millbrook")["category_head.weight"].shape == (8, 32)
    assert study.heads("millbrook")["category_head.weight"].any()


@pytest.mark.parametrize("loss", ["linear", "contrastive"])
def test_a_site_with_too_few_categories_is_left_out_and_the_study_goes_on(
    federation: Callable[..., Federation], hospitals: dict[str, np.ndarray], notes: NoteStore, loss: str
) -> None:
    one_kind = np.array([row for row in hospitals["northgate"] if notes.column("category")[row] == "nursing"])
    study = federation({"kind": "note-category", "loss": loss}, rows=hospitals | {"northgate": one_kind})
    state = study.run()
    assert list(state.left_out_sites.values()) == ["the site reports too-few-categories"]
    assert [f.name for f in state.sites] == ["eastholme", "millbrook"] and state.round == 2


def test_a_site_of_notes_too_short_is_left_out_with_a_reason(
    federation: Callable[..., Federation], hospitals: dict[str, np.ndarray], notes: NoteStore
) -> None:
    short = np.flatnonzero(notes.lengths < 270)
    assert len(set(short) & set(notes.split_indices("train"))) > 20  # enough notes, were they longer
    study = federation(LONG, rows=hospitals | {"short": short}, training={"batch_size": 2})
    state = study.run()
    assert list(state.left_out_sites.values()) == ["the site reports too-few-notes"]
    for facts in state.sites:
        own = notes.lengths[hospitals[facts.name]]
        assert facts.shortened == 0 < facts.whole and facts.whole + facts.too_short == facts.train
        assert (facts.too_short > 0) == (own.min() < 270)
        # A site weighs as much as it has notes that are used.
        assert {s.notes for r in state.rounds[1:] for s in r.sites if s.site == facts.name} == {facts.whole}


def test_baselines_are_of_the_sites_that_took_part(
    make_plan: Callable[..., StudyPlan], source: NotesSource, notes: NoteStore, tmp_path: Path
) -> None:
    """A site that is left out has no model of its own, and the others have their report."""
    rows = [json.loads(line) for line in Path(source.source).read_text("utf-8").splitlines()]
    for row, length in zip(rows, notes.lengths, strict=True):
        row["site"] = "Short" if length < 270 else row["site"]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = NotesSource(source=str(tmp_path / "notes.jsonl"), columns=Columns(site="site"))
    plan = make_plan(objective=LONG, training={"batch_size": 2}, federation={"rounds": 1}, evaluation={"tasks": []})
    wish = Wish(notes=given, baselines=["local-only", "centralised"], out=tmp_path / "run", cache=tmp_path / "cache")
    run = simulate(plan, wish, Silent())
    summary = run.summary()
    assert summary.status == "finished"
    assert list(summary.left_out_sites.values()) == ["the site reports too-few-notes"]
    trained = {folder.name for folder in (run.path / "baselines").iterdir()}
    assert trained == {"centralised", "local-only-eastholme", "local-only-millbrook", "local-only-northgate"}
    # As many steps as the three others make together.
    kept = load_checkpoint(run.path / "baselines" / "centralised" / CHECKPOINTS, alone(plan, 3 * 2).hash())
    assert kept is not None and [site.steps for site in kept[0].rounds[1].sites] == [6]


def test_a_sites_own_head_is_not_counted_as_the_models(
    make_plan: Callable[..., StudyPlan], source: NotesSource, bases: dict[str, str], tmp_path: Path
) -> None:
    """Baselines are trained by the same worker, and leave a site's head on it."""
    plan = make_plan(objective=OBJECTIVES["category-own"], federation={"rounds": 1}, evaluation={"tasks": []})
    given = NotesSource(source=source.source, columns=Columns(site="site"))
    wish = Wish(notes=given, baselines=["local-only"], out=tmp_path / "run", cache=tmp_path / "cache")
    summary = simulate(plan, wish, Silent()).summary()
    assert summary.parameters == sum(p.numel() for p in load_encoder(bases["bert"]).tensors().values())


def test_a_site_without_dev_notes_that_are_long_enough_has_no_held_out_loss(
    federation: Callable[..., Federation], hospitals: dict[str, np.ndarray], notes: NoteStore
) -> None:
    split = notes.column("split")
    rows = {
        name: np.array(
            [row for row in own if split[row] == "train" or (split[row] == "dev" and notes.lengths[row] < 270)]
        )
        for name, own in hospitals.items()
    }
    state = federation(LONG, rows=rows, training={"batch_size": 2}, federation={"rounds": 1}).run()
    assert [one.held_out for one in state.rounds] == [{}, {}] and len(state.rounds[1].sites) == 3


@pytest.mark.parametrize(
    "case", ["declutr", "declutr-cached", "category-own", "category-shared", "category-contrastive"]
)
def test_a_study_that_was_killed_ends_as_if_it_had_not_been(federation: Callable[..., Federation], case: str) -> None:
    """Killed while a site's new heads stand on its disk and the round's checkpoint does not."""
    sections = {"federation": {"share": "encoder", "rounds": 3, "strategy": "fedadam"}}
    whole = federation(OBJECTIVES[case], "whole", **sections)
    expected = whole.run()
    client.app._worker.cache_clear()
    broken = federation(OBJECTIVES[case], "broken", **sections)
    broken.kill = ("millbrook", "train", 3)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    client.app._worker.cache_clear()  # as in another process
    broken.kill = None
    state = broken.run()
    assert all(np.array_equal(value, broken.kept[1][name]) for name, value in whole.kept[1].items())
    assert [r.held_out for r in state.rounds] == [r.held_out for r in expected.rounds]
    assert [[(s.site, s.loss, s.parts, s.tokens) for s in r.sites] for r in state.rounds] == [
        [(s.site, s.loss, s.parts, s.tokens) for s in r.sites] for r in expected.rounds
    ]
    for site in whole.sites:
        heads = whole.heads(site)
        assert heads and heads.keys() == broken.heads(site).keys()
        assert any(name.startswith("category_head") for name in heads) == (case == "category-own")
        assert all(np.array_equal(value, broken.heads(site)[name]) for name, value in heads.items())
