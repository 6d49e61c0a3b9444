"""A plan's sections on privacy: what they accept, what is said of mistakes, and what cannot be private."""

import json
from typing import Any

import pytest
import tomli_w

from common.errors import InputError
from common.plan import StudyPlan, parse_plan, plan_to_toml
from common.plan_sections import HospitalPrivacy, Privacy
from common.results import NO_DP

# Every key of both sections, none of them at its default.
PRIVACY: dict[str, Any] = {
    "unit": "note",
    "epsilon": 2.5,
    "delta": 1e-6,
    "accountant": "rdp",
    "max_grad_norm": 0.5,
    "notes_per_unit": 3,
    "negatives": "groups",
    "public_negatives": 64,
    "group_size": 4,
    "release_loss": False,
    "engine": "loop",
}
HOSPITAL: dict[str, Any] = {"noise_multiplier": 2.0, "clipping_norm": 0.3, "epsilon": 20.0, "delta": 0.05}
LISTED = {"kind": "note-category", "categories": ["a", "b"]}


def plan(privacy: object = None, **sections: Any) -> str:
    given = {"study": {"name": "trial"}} | sections
    return tomli_w.dumps(given if privacy is None else given | {"privacy": privacy})


def refusal(text: str) -> str:
    """The one thing that is wrong."""
    with pytest.raises(InputError) as caught:
        parse_plan(text)
    first, *lines = caught.value.message.splitlines()
    assert caught.value.code == "plan-invalid" and first == "1 thing is wrong in the plan:" and len(lines) == 1
    return lines[0].strip()


# Both sections.


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize(
    "sections",
    [
        {"privacy": PRIVACY},
        {"privacy": {"noise_multiplier": 0.8}},
        {"hospital_privacy": HOSPITAL},
        {"privacy": PRIVACY, "hospital_privacy": HOSPITAL},
    ],
    ids=["epsilon", "noise", "hospital", "both"],
)
def test_privacy_survives_its_toml(sections: dict[str, Any], comments: bool) -> None:
    first = parse_plan(plan(**sections))
    again = parse_plan(plan_to_toml(first, comments))
    assert again == first and again.hash() == first.hash()
    for name, section in sections.items():
        assert section.items() <= getattr(first, name).model_dump().items()


def test_the_hash_tells_every_key_of_both_sections() -> None:
    assert set(PRIVACY) | {"noise_multiplier"} == set(Privacy.model_fields)
    assert set(HOSPITAL) == set(HospitalPrivacy.model_fields)
    hashes = [parse_plan(plan()).hash(), parse_plan(plan({"epsilon": 1.0})).hash()]
    hashes += [parse_plan(plan({"epsilon": 1.0} | {key: value})).hash() for key, value in PRIVACY.items()]
    hashes += [parse_plan(plan({"noise_multiplier": noise})).hash() for noise in (1.0, 1.001)]
    whole = {"noise_multiplier": 1.0, "clipping_norm": 1.0, "epsilon": 1.0}
    hashes += [parse_plan(plan(hospital_privacy=whole)).hash()]
    hashes += [parse_plan(plan(hospital_privacy=whole | {key: value})).hash() for key, value in HOSPITAL.items()]
    assert len(set(hashes)) == len(hashes)


def test_defaults_that_are_written_out_change_nothing() -> None:
    short = parse_plan(plan({"epsilon": 3}))
    assert parse_plan(plan({"epsilon": 3.0, "unit": "patient", "delta": 1e-5})).hash() == short.hash()
    assert short.privacy is not None and short.privacy.engine == "book-keeping" and short.hospital_privacy is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (plan({"epsilon": 1.0, "detla": 1e-5}), "privacy.detla: unknown key; did you mean delta?"),
        (
            plan({"epsilon": 1.0, "notes_per_patient": 1}),
            "privacy.notes_per_patient: unknown key; did you mean notes_per_unit?",
        ),
        (plan({"epsilon": 1.0, "zzzz": 1}), "privacy.zzzz: unknown key; remove it"),
        (
            plan(hospital_privacy=HOSPITAL | {"clip_norm": 1.0}),
            "hospital_privacy.clip_norm: unknown key; did you mean clipping_norm?",
        ),
        (plan(hospital_privacy=HOSPITAL | {"wards": 1.0}), "hospital_privacy.wards: unknown key; remove it"),
        (plan(hospital_privcy=HOSPITAL), "hospital_privcy: unknown key; did you mean hospital_privacy?"),
        (
            plan(hospital_privacy={key: value for key, value in HOSPITAL.items() if key != "clipping_norm"}),
            "hospital_privacy.clipping_norm: missing",
        ),
    ],
)
def test_a_mistake_is_named_by_its_path(text: str, told: str) -> None:
    assert refusal(text) == told


@pytest.mark.parametrize("given", [{}, {"epsilon": 1.0, "noise_multiplier": 1.0}])
def test_either_epsilon_or_the_noise(given: dict[str, float]) -> None:
    assert "give either epsilon or noise_multiplier" in refusal(plan(given))
    assert refusal(plan(given)).startswith("privacy.noise_multiplier")


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("privacy", {"epsilon": 0.0}),
        ("privacy", {"epsilon": 100.1}),
        ("privacy", {"epsilon": "3"}),
        ("privacy", {"noise_multiplier": 0.0999}),
        ("privacy", {"noise_multiplier": 1000.5}),
        ("privacy", {"epsilon": 1.0, "delta": 0.0}),
        ("privacy", {"epsilon": 1.0, "delta": 0.01}),
        ("privacy", {"epsilon": 1.0, "unit": "ward"}),
        ("privacy", {"epsilon": 1.0, "accountant": "gdp"}),
        ("privacy", {"epsilon": 1.0, "max_grad_norm": 9e-7}),
        ("privacy", {"epsilon": 1.0, "max_grad_norm": 1.1e6}),
        ("privacy", {"epsilon": 1.0, "notes_per_unit": 0}),
        ("privacy", {"epsilon": 1.0, "notes_per_unit": 2.0}),
        ("privacy", {"epsilon": 1.0, "negatives": "in-batch"}),
        ("privacy", {"epsilon": 1.0, "public_negatives": 0}),
        ("privacy", {"epsilon": 1.0, "group_size": 1}),
        ("privacy", {"epsilon": 1.0, "release_loss": 1}),
        ("privacy", {"epsilon": 1.0, "engine": "ghost"}),
        ("hospital_privacy", HOSPITAL | {"noise_multiplier": 0.001}),
        ("hospital_privacy", {key: HOSPITAL[key] for key in ("noise_multiplier", "epsilon")} | {"clipping_norm": 0.0}),
        ("hospital_privacy", {key: HOSPITAL[key] for key in ("noise_multiplier", "clipping_norm")} | {"epsilon": 0.0}),
        ("hospital_privacy", {key: HOSPITAL[key] for key in HOSPITAL if key != "delta"} | {"delta": 0.5}),
    ],
)
def test_types_and_bounds_are_strict(section: str, settings: dict[str, Any]) -> None:
    wrong = "noise_multiplier" if settings.get("noise_multiplier") == 0.001 else list(settings)[-1]
    assert refusal(plan(**{section: settings})).startswith(f"{section}.{wrong} = {json.dumps(settings[wrong])}: ")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("key", ["epsilon", "noise_multiplier", "delta", "max_grad_norm"])
def test_no_number_is_nan_or_infinite(key: str, value: str) -> None:
    given = {"delta": "epsilon = 1.0\n", "max_grad_norm": "epsilon = 1.0\n"}.get(key, "")
    assert refusal(f'[study]\nname = "a"\n[privacy]\n{given}{key} = {value}\n').startswith(f"privacy.{key} = ")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("key", HOSPITAL)
def test_no_number_of_a_hospital_is_nan_or_infinite(key: str, value: str) -> None:
    lines = [f"{name} = {value if name == key else known}" for name, known in HOSPITAL.items()]
    text = '[study]\nname = "a"\n[hospital_privacy]\n' + "\n".join(lines)
    assert refusal(text).startswith(f"hospital_privacy.{key} = ")


# What cannot be private.

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"training": {"tokens_per_round": 1000}},
        "training.tokens_per_round makes steps depend on the notes' lengths; give steps_per_round",
    ),
    (
        {"training": {"precision": "bfloat16"}},
        "training.precision = bfloat16 rounds a unit's gradient by what else is in its batch; use float32",
    ),
    (
        {"objective": LISTED | {"loss": "contrastive"}},
        "objective.loss = contrastive compares units with each other; use prototypes or linear",
    ),
    (
        {"objective": {"kind": "note-category"}},
        "objective.categories is not given, and a site's own list tells of its notes; name one",
    ),
    (
        {"objective": {"kind": "declutr", "spans_at_once": 4}},
        "objective.spans_at_once has no use here: private steps go by pieces anyway; remove it",
    ),
    (
        {"objective": {"kind": "declutr"}, "privacy": {"epsilon": 3.0, "engine": "opacus"}},
        "privacy.engine = opacus cannot clip a unit that the encoder reads twice; use book-keeping",
    ),
]


@pytest.mark.parametrize(("sections", "told"), REFUSED, ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_what_cannot_be_private_is_refused(sections: dict[str, Any], told: str) -> None:
    assert refusal(plan(**{"privacy": {"epsilon": 3.0}} | sections)) == f"privacy: {told}"
    parse_plan(
        plan(**{name: section for name, section in sections.items() if name != "privacy"})
    )  # as it is, it may be


def test_all_reasons_are_told_at_once() -> None:
    training = {"tokens_per_round": 1000, "precision": "bfloat16"}
    objective = {"kind": "note-category", "loss": "contrastive"}
    told = refusal(plan({"epsilon": 3.0}, training=training, objective=objective))
    assert told.count("; use ") == 2 and told.count("training.") == 2 and told.count("objective.") == 2


def test_what_is_wrong_elsewhere_hides_nothing_of_privacy() -> None:
    with pytest.raises(InputError) as caught:
        parse_plan(plan({"epsilon": 0.0, "unt": "note"}, training={"batch_size": 0}, study={"name": "A b"}))
    assert caught.value.message.startswith("4 things are wrong")


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"kind": "declutr"}},
        {"objective": LISTED},
        {"objective": LISTED | {"loss": "prototypes"}},
        {"training": {"precision": "float32", "steps_per_round": 10}},
        {"training": {"trainable": "lora"}, "privacy": {"noise_multiplier": 1.0, "engine": "opacus"}},
        {"federation": {"strategy": "fedadam", "max_update_norm": 10.0}},
        {"hospital_privacy": HOSPITAL},
    ],
)
def test_the_rest_can_be_private(sections: dict[str, Any]) -> None:
    assert parse_plan(plan(**{"privacy": {"epsilon": 3.0}} | sections)).privacy is not None


@pytest.mark.parametrize("strategy", ["fedprox", "fedadam", "fedavgm", "trimmed-mean", "median"])
def test_the_noise_of_hospitals_is_for_the_mean(strategy: str) -> None:
    told = refusal(plan(hospital_privacy=HOSPITAL, federation={"strategy": strategy}))
    assert told == "hospital_privacy: its noise is for the mean: use federation.strategy = fedavg"


# The words.


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        (None, NO_DP),
        ({"epsilon": 3}, "differential privacy for each patient: epsilon at most 3 at delta 1e-05"),
        (
            {"noise_multiplier": 0.75, "unit": "note", "delta": 2e-7},
            "differential privacy for each note: noise multiplier 0.75 at delta 2e-07",
        ),
    ],
)
def test_the_words_that_every_screen_shows(privacy: dict[str, Any] | None, words: str) -> None:
    assert parse_plan(plan(privacy)).privacy_words == words


def test_prototypes_are_shared_as_a_head_is() -> None:
    assert parse_plan(plan(objective=LISTED | {"loss": "prototypes"})).shared_categories == 2


def test_a_plan_shows_where_privacy_goes() -> None:
    shown = plan_to_toml(StudyPlan.model_validate({"study": {"name": "a"}}), comments=True)
    assert "# [privacy]  # absent: no differential privacy" in shown and "# [hospital_privacy]  # absent" in shown
    whole = shown.replace("# epsilon = (not set)", "# epsilon = 4.0", 1).splitlines()
    first = whole.index("# [privacy]  # absent: no differential privacy")
    section = [line.removeprefix("# ") for line in whole[first : first + 26] if "(not set)" not in line]
    found = parse_plan("\n".join([*whole[:first], *section, *whole[first + 26 :]])).privacy
    assert found is not None and found.epsilon == 4.0 and found == Privacy(epsilon=4.0)
