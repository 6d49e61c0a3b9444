"""The objectives in a plan: three kinds, each with keys of its own, and what is said of mistakes in them."""

import json
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

from common.cli import app
from common.errors import InputError
from common.plan import parse_plan, plan_to_toml
from common.plan_sections import OBJECTIVES, Declutr, NoteCategory

MINIMAL = '[study]\nname = "trial"\n'
# Every key of the other two objectives, none of them at its default.
DECLUTR: dict[str, Any] = {
    "kind": "declutr",
    "anchors": 3,
    "positives": 1,
    "min_span": 4,
    "max_span": 30,
    "sampling": "adjacent",
    "temperature": 0.1,
    "contrastive_weight": 0.5,
    "mlm_weight": 0.0,
    "mask_probability": 0.3,
    "masked": False,
    "related_negatives": True,
    "spans_at_once": 8,
}
NOTE_CATEGORY: dict[str, Any] = {
    "kind": "note-category",
    "loss": "contrastive",
    "weight": 1.0,
    "temperature": 0.2,
    "categories": ["Nursing", 'a "quoted" one'],
    "mask_probability": 0.3,
    "masked": False,
    "strip_headings": True,
}


def of_kind(kind: object, **settings: Any) -> str:
    return tomli_w.dumps({"study": {"name": "trial"}, "objective": {"kind": kind} | settings})


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_plan(text)
    assert caught.value.code == "plan-invalid" and caught.value.message.startswith("1 thing is wrong")
    return caught.value.message


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("settings", [DECLUTR, NOTE_CATEGORY], ids=lambda settings: settings["kind"])
def test_an_objective_survives_its_toml(settings: dict[str, Any], comments: bool) -> None:
    plan = parse_plan(of_kind(**settings))
    assert plan.objective.model_dump() == settings
    assert parse_plan(plan_to_toml(plan, comments)) == plan


def test_every_kind_of_objective_is_the_one_that_it_is_called() -> None:
    assert parse_plan(MINIMAL).objective == parse_plan(of_kind("mlm")).objective
    for kind, model in OBJECTIVES.items():
        objective = parse_plan(of_kind(kind)).objective
        assert type(objective) is model and objective.kind == kind
        assert f"{kind}: " in str(model.model_fields["kind"].description)


@pytest.mark.parametrize("settings", [DECLUTR, NOTE_CATEGORY], ids=lambda settings: settings["kind"])
def test_the_hash_tells_every_key_of_an_objective(settings: dict[str, Any]) -> None:
    kind = settings["kind"]
    assert set(settings) == set(OBJECTIVES[kind].model_fields)
    hashes = {parse_plan(of_kind(kind)).hash()}
    for key, value in settings.items():
        if key != "kind":
            hashes.add(parse_plan(of_kind(kind, **{key: value})).hash())
    assert len(hashes) == len(settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (of_kind("declutr", anchor=2), "objective.anchor: unknown key; did you mean anchors?"),
        (of_kind("declutr", whole_word=True), "objective.whole_word: unknown key; remove it"),
        (of_kind("mlm", anchors=2), "objective.anchors: unknown key; remove it"),
        (of_kind("note-category", categorys=["a", "b"]), "objective.categorys: unknown key; did you mean categories?"),
        (of_kind("declutr", anchors=0), "objective.anchors = 0: "),
        (of_kind("note-category", categories=["a", ""]), 'objective.categories.1 = "": '),
        *(
            (of_kind(kind), f"objective.kind = {json.dumps(kind)}: it should be one of mlm, declutr, ")
            for kind in ("declutrr", "", 3, True, ["mlm"], {"mlm": 1})
        ),
        ("objective = 3\n" + MINIMAL, "objective = 3: it should be a section, [objective]"),
        ('objective = "declutr"\n' + MINIMAL, 'objective = "declutr": it should be a section, [objective]'),
        (
            MINIMAL + '[[objective]]\nkind = "mlm"\n',
            'objective = [{"kind": "mlm"}]: it should be a section, [objective]',
        ),
    ],
)
def test_a_mistake_is_named_by_its_path(text: str, told: str) -> None:
    assert f"  {told}" in refusal(text)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "declutr", "mask_probability": 0.0},
        {"kind": "declutr", "anchors": 17},
        {"kind": "declutr", "positives": 0},
        {"kind": "declutr", "min_span": 1},
        {"kind": "declutr", "temperature": 0.0},
        {"kind": "declutr", "contrastive_weight": -1.0},
        {"kind": "declutr", "spans_at_once": 0},
        {"kind": "declutr", "sampling": "disjoint"},
        {"kind": "note-category", "loss": "triplet"},
        {"kind": "note-category", "categories": "Nursing"},
        {"kind": "note-category", "strip_headings": 1},
    ],
)
def test_types_and_bounds_are_strict(settings: dict[str, Any]) -> None:
    key, value = list(settings.items())[-1]
    assert f"  objective.{key} = {json.dumps(value)}: " in refusal(of_kind(**settings))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("declutr", "temperature"),
        ("declutr", "contrastive_weight"),
        ("declutr", "mlm_weight"),
        ("declutr", "mask_probability"),
        ("note-category", "weight"),
        ("note-category", "temperature"),
        ("note-category", "mask_probability"),
    ],
)
def test_no_number_is_nan_or_infinite(kind: str, key: str, value: str) -> None:
    assert f"  objective.{key} = " in refusal(f'{MINIMAL}[objective]\nkind = "{kind}"\n{key} = {value}\n')


# Across the keys of an objective.


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"min_span": 65}, "objective.max_span = 64: it is less than min_span; raise it"),
        ({"min_span": 9, "max_span": 8}, "objective.max_span = 8: it is less than min_span; raise it"),
        (
            {"contrastive_weight": 0.0, "mlm_weight": 0.0},
            "objective.mlm_weight = 0.0: contrastive_weight is 0, too: nothing is left to learn from",
        ),
        (
            {"max_span": 255},
            "objective: max_span = 255 is more than encoder.max_length leaves room for; lower it to 254 or less",
        ),
    ],
)
def test_spans_and_weights_that_do_not_go_together(settings: dict[str, Any], told: str) -> None:
    assert f"  {told}" in refusal(of_kind("declutr", **settings))


def test_spans_and_weights_at_the_edge() -> None:
    objective = parse_plan(of_kind("declutr", min_span=254, max_span=254, contrastive_weight=0)).objective
    assert isinstance(objective, Declutr) and objective.max_span == 254 and objective.mlm_weight == 1.0


def test_categories_are_two_or_more_and_none_twice() -> None:
    told = "  objective.categories = "
    assert told in refusal(of_kind("note-category", categories=["a"]))
    assert told in refusal(of_kind("note-category", categories=["a", "b", "a"]))
    plan = parse_plan(of_kind("note-category", categories=["b", "a"]))
    assert isinstance(plan.objective, NoteCategory) and plan.objective.categories == ["b", "a"]


@pytest.mark.parametrize(
    ("objective", "outputs"),
    [
        (of_kind("mlm"), 0),
        (of_kind("declutr"), 0),
        (of_kind("note-category"), 0),
        (of_kind("note-category", categories=["a", "b", "c"]), 3),
        (of_kind("note-category", categories=["a", "b", "c"], loss="contrastive"), 0),
    ],
)
def test_a_head_is_shared_where_all_sites_have_one_list(objective: str, outputs: int) -> None:
    assert parse_plan(objective).shared_categories == outputs


def test_a_table_is_no_plan() -> None:
    with pytest.raises(InputError) as caught:
        parse_plan('[study]\nname = "a"\n[[arms]]\nname = "x"\n', "table.toml")
    assert "table of several studies" in str(caught.value)
    assert "fednotes compare" in caught.value.next_step


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_defaults_of_every_objective_can_be_shown(kind: str) -> None:
    done = CliRunner().invoke(app, ["show", "--objective", kind])
    assert done.exit_code == 0
    plan = parse_plan(done.output)
    assert plan.objective.kind == kind
    assert all(f"{key} = " in done.output for key in OBJECTIVES[kind].model_fields)
