"""The plan: what it accepts, what it says of mistakes, and that its hash names its meaning."""

import itertools
import json
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import tomli_w

from common.errors import InputError
from common.plan import StudyPlan, load_plan, parse_plan, plan_to_toml
from common.plan_sections import OBJECTIVES, STRATEGY_SETTINGS, HospitalPrivacy, Privacy, Release

MINIMAL = '[study]\nname = "trial"\n'
FULL: dict[str, dict[str, Any]] = {
    "study": {"name": "full-study", "seed": 4_294_967_295},
    "encoder": {"base": 'folder "with" \\ and é\t', "pooling": "mean", "max_length": 128},
    "objective": {"kind": "mlm", "mask_probability": 0.3, "whole_word": True},
    "training": {
        "epochs_per_round": 0.5,
        "batch_size": 8,
        "learning_rate": 1e-05,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "warmup_fraction": 0.0,
        "max_grad_norm": 2.5,
        "precision": "bfloat16",
        "trainable": "lora",
        "lora_rank": 4,
    },
    "federation": {
        "rounds": 3,
        "strategy": "fedavgm",
        "server_learning_rate": 0.5,
        "server_momentum": 0.0,
        "min_sites": 2,
        "round_timeout": 1e20,
        "max_update_norm": 3.5,
        "share": "encoder",
        "wire": "float32",
    },
    "evaluation": {"held_out_notes": 9, "tasks": ["ward"], "modes": ["frozen", "lora"], "shots": [4, 8], "seeds": 6},
}


def with_(section: str, **settings: Any) -> str:
    plan: dict[str, dict[str, Any]] = {"study": {"name": "trial"}}
    plan[section] = plan.get(section, {}) | settings
    return tomli_w.dumps(plan)


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_plan(text)
    assert caught.value.code == "plan-invalid"
    return caught.value.message


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("plan", [{"study": {"name": "trial"}}, FULL], ids=["minimal", "full"])
def test_a_plan_survives_its_toml(plan: dict[str, Any], comments: bool) -> None:
    first = StudyPlan.model_validate(plan)
    again = parse_plan(plan_to_toml(first, comments))
    assert again == first and again.hash() == first.hash()


@pytest.mark.parametrize("strategy", STRATEGY_SETTINGS)
def test_every_strategy_survives_its_toml(strategy: str) -> None:
    plan = parse_plan(with_("federation", strategy=strategy))
    assert parse_plan(plan_to_toml(plan, comments=True)) == plan


@pytest.mark.parametrize("base", ['"', "\\", "a\nb\r\tc", "\x00\x1f", "\x7f", "é—\U0001f3e5", "\u2028\x85"])
def test_any_text_survives_its_toml(base: str) -> None:
    plan = StudyPlan.model_validate({"study": {"name": "trial"}, "encoder": {"base": base}})
    assert parse_plan(plan_to_toml(plan)).encoder.base == base


def test_toml_writes_every_default_out() -> None:
    written = tomllib.loads(plan_to_toml(parse_plan(MINIMAL)))
    assert written["training"]["epochs_per_round"] == 1.0 and "steps_per_round" not in written["training"]
    assert written["federation"]["share"] == "encoder+mlm-head" and "privacy" not in written
    assert written["evaluation"]["shots"] == [16, 32, 64, 128]


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_key_has_a_comment_above_it(kind: str) -> None:
    plan = parse_plan(with_("objective", kind=kind))
    lines = plan_to_toml(plan, comments=True).splitlines()
    keys = [(n, line.split(" = ")[0]) for n, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert len(keys) > 25
    for n, key in keys:
        assert lines[n - 1].startswith("# ") and len(lines[n - 1]) > 8, key
    sections = [type(one) for name in StudyPlan.model_fields if (one := getattr(plan, name)) is not None]
    marked = {line.split()[1] for line in lines if line.startswith("# ") and " = " in line and line.split()[2] == "="}
    assert {name for one in [*sections, Privacy, HospitalPrivacy, Release] for name in one.model_fields} == marked | {
        key for _, key in keys
    }
    assert any(line.startswith("# [privacy]") for line in lines)


def test_every_field_is_described() -> None:
    fields = [field for name, field in StudyPlan.model_fields.items() if name != "objective"]
    annotations = [next(iter(get_args(field.annotation)), field.annotation) for field in fields]
    models: list[Any] = [*annotations, *OBJECTIVES.values()]
    assert Privacy in models
    for model in models:
        assert all((f.description or "").strip() for f in model.model_fields.values()), model


def test_the_hash_is_blind_to_order_and_to_defaults_written_out() -> None:
    plan = parse_plan(MINIMAL + "[training]\nbatch_size = 8\nlearning_rate = 0.001\n")
    turned = parse_plan(
        "[training]\nlearning_rate = 1e-3\nbatch_size = 8\n# a comment\n[study]\nseed = 0\nname = 'trial'\n"
    )
    assert plan.hash() == turned.hash() == parse_plan(plan_to_toml(plan)).hash()
    assert len(plan.hash()) == 64 and int(plan.hash(), 16) >= 0
    whole = parse_plan(with_("training", learning_rate=1, max_grad_norm=2))
    assert whole.hash() == parse_plan(with_("training", learning_rate=1.0, max_grad_norm=2.0)).hash()
    written = parse_plan(with_("federation", strategy="fedadam", server_learning_rate=0.001))
    assert written.hash() == parse_plan(with_("federation", strategy="fedadam")).hash()


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("study", {"name": "other"}),
        ("study", {"seed": 1}),
        ("encoder", {"base": "other"}),
        ("encoder", {"max_length": 255}),
        ("encoder", {"long_notes": "windows"}),
        ("objective", {"mask_probability": 0.16}),
        ("objective", {"whole_word": True}),
        ("training", {"steps_per_round": 1}),
        ("training", {"tokens_per_round": 1}),
        ("training", {"epochs_per_round": 2.0}),
        ("training", {"batch_size": 17}),
        ("training", {"learning_rate": 1.0000001e-4}),
        ("training", {"weight_decay": 0.02}),
        ("training", {"schedule": "cosine"}),
        ("training", {"warmup_fraction": 0.11}),
        ("training", {"max_grad_norm": 1.1}),
        ("training", {"precision": "float32"}),
        ("training", {"trainable": "biases"}),
        ("training", {"lora_rank": 9}),
        ("federation", {"max_update_norm": 9.0}),
        ("federation", {"rounds": 11}),
        ("federation", {"strategy": "median"}),
        ("federation", {"min_sites": 2}),
        ("federation", {"round_timeout": 1.0}),
        ("federation", {"share": "encoder"}),
        ("evaluation", {"held_out_notes": 255}),
        ("evaluation", {"tasks": []}),
        ("evaluation", {"shots": [16]}),
        ("evaluation", {"seeds": 6}),
        ("evaluation", {"embedding_space": True}),
        ("evaluation", {"modes": ["lora"]}),
        ("evaluation", {"tuned_shots": [16]}),
        ("evaluation", {"tuning_epochs": 11}),
        ("evaluation", {"tuning_learning_rate": 6e-5}),
        ("evaluation", {"lora_learning_rate": 6e-4}),
        ("evaluation", {"lora_rank": 17}),
        ("evaluation", {"head_learning_rate": 2e-3}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, dict) else value,
)
def test_the_hash_tells_every_key(section: str, settings: dict[str, Any]) -> None:
    assert parse_plan(with_(section, **settings)).hash() != parse_plan(MINIMAL).hash()


def test_five_mistakes_are_told_at_once() -> None:
    message = refusal(
        """
        [study]
        name = "Not A Name"
        [encoder]
        max_length = 8
        [training]
        steps_per_round = 5
        epochs_per_round = 2.0
        batch_sise = 3
        [federation]
        strategy = "fedavg"
        proximal_mu = 0.1
        """
    )
    lines = message.splitlines()
    assert lines[0] == "5 things are wrong in the plan:" and len(lines) == 6
    assert any(line.startswith('  study.name = "Not A Name": ') for line in lines)
    assert any(line.startswith("  encoder.max_length = 8: ") and "16" in line for line in lines)
    assert "  training.epochs_per_round = 2.0: give steps_per_round or epochs_per_round, not both" in lines
    assert "  training.batch_sise: unknown key; did you mean batch_size?" in lines
    assert "  federation.proximal_mu = 0.1: only fedprox uses it; remove it" in lines


def test_one_mistake_is_told_as_one() -> None:
    assert refusal(with_("study", seed=-1)).startswith("1 thing is wrong in the plan:\n  study.seed = -1: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[study]\nname='a'\n[traning]\nx=1\n", "traning: unknown key; did you mean training?"),
        (with_("federation", round=3), "federation.round: unknown key; did you mean rounds?"),
        (with_("evaluation", zzzz=3), "evaluation.zzzz: unknown key; remove it"),
        ("", "study: missing"),
        ("[study]\nseed = 1\n", "study.name: missing"),
        (with_("evaluation", shots=[16, 0]), "evaluation.shots.1 = 0: "),
        (with_("objective", whole_words=True), "objective.whole_words: unknown key; did you mean whole_word?"),
    ],
)
def test_a_mistake_is_named_by_its_path(text: str, told: str) -> None:
    assert f"  {told}" in refusal(text)


def test_bfloat16_is_no_wire_format() -> None:
    assert 'federation.wire = "bfloat16": ' in refusal(with_("federation", wire="bfloat16"))


def test_a_site_is_named_once() -> None:
    assert "a site stands there twice" in refusal(with_("federation", sites=["north", "north"]))


def test_adapters_are_shared_by_training_them() -> None:
    message = refusal(with_("federation", share="lora"))
    assert 'share = "lora": to train and share adapters only, set training.trainable = "lora"' in message


MEASURES: dict[str, float] = {"steps_per_round": 7, "tokens_per_round": 5000, "epochs_per_round": 0.25}


@pytest.mark.parametrize("given", [None, *MEASURES])
def test_steps_or_tokens_or_epochs(given: str | None) -> None:
    training = parse_plan(with_("training", **({given: MEASURES[given]} if given else {}))).training
    expected = {name: value if name == given else None for name, value in MEASURES.items()}
    if given is None:
        expected["epochs_per_round"] = 1.0
    assert {name: getattr(training, name) for name in MEASURES} == expected


@pytest.mark.parametrize(("one", "other"), itertools.combinations(MEASURES, 2))
def test_not_two_measures_of_a_round(one: str, other: str) -> None:
    message = refusal(with_("training", **{one: MEASURES[one], other: MEASURES[other]}))
    assert f"training.{other} = {MEASURES[other]}: give {one} or {other}, not both" in message


@pytest.mark.parametrize(
    ("strategy", "filled"),
    [
        ("fedavg", {}),
        ("fedprox", {"proximal_mu": 0.01}),
        ("fedadam", {"server_learning_rate": 0.001}),
        ("fedavgm", {"server_learning_rate": 1.0, "server_momentum": 0.9}),
        ("trimmed-mean", {"trim_fraction": 0.2}),
        ("median", {}),
    ],
)
def test_a_strategy_gets_its_own_settings_and_no_others(strategy: str, filled: dict[str, float]) -> None:
    settings = {name for names in STRATEGY_SETTINGS.values() for name in names}
    federation = parse_plan(with_("federation", strategy=strategy)).federation
    assert {name: getattr(federation, name) for name in settings if getattr(federation, name) is not None} == filled
    assert set(filled) == set(STRATEGY_SETTINGS[strategy])
    for name in settings - set(filled):
        message = refusal(with_("federation", strategy=strategy, **{name: 0.3}))
        assert f"federation.{name} = 0.3: only " in message and "uses it; remove it" in message
    for name in filled:
        assert getattr(parse_plan(with_("federation", strategy=strategy, **{name: 0.3})).federation, name) == 0.3


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("study", {"seed": "3"}),
        ("study", {"seed": 3.0}),
        ("study", {"seed": True}),
        ("study", {"seed": 2**32}),
        ("study", {"name": 3}),
        ("study", {"name": "-a"}),
        ("study", {"name": "a" * 64}),
        ("study", {"name": "../a"}),
        ("study", {"name": "a\n"}),
        ("encoder", {"base": ""}),
        ("encoder", {"pooling": "cls"}),
        ("training", {"learning_rate": "0.1"}),
        ("training", {"learning_rate": 0.0}),
        ("training", {"steps_per_round": 0}),
        ("training", {"batch_size": 16.0}),
        ("training", {"warmup_fraction": 1.0}),
        ("training", {"weight_decay": -0.1}),
        ("objective", {"whole_word": 1}),
        ("objective", {"whole_word": "true"}),
        ("objective", {"mask_probability": 0.51}),
        ("training", {"tokens_per_round": 0}),
        ("training", {"tokens_per_round": 1e6}),
        ("training", {"trainable": "none"}),
        ("training", {"trainable": ["lora"]}),
        ("training", {"lora_rank": 0}),
        ("training", {"lora_rank": 1025}),
        ("federation", {"max_update_norm": 0.0}),
        ("federation", {"rounds": 0}),
        ("federation", {"strategy": "krum"}),
        ("federation", {"strategy": "trimmed-mean", "trim_fraction": 0.5}),
        ("federation", {"strategy": "fedavgm", "server_momentum": 1.0}),
        ("federation", {"min_sites": 0}),
        ("evaluation", {"modes": []}),
        ("evaluation", {"modes": "frozen"}),
        ("evaluation", {"shots": 16}),
        ("evaluation", {"seeds": 4}),
        ("evaluation", {"held_out_notes": 0}),
    ],
)
def test_types_and_bounds_are_strict(section: str, settings: dict[str, Any]) -> None:
    (key, value) = list(settings.items())[-1]
    message = refusal(with_(section, **settings))
    assert f"  {section}.{key} = {json.dumps(value)}: " in message and message.startswith("1 thing is wrong")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "key",
    [
        "objective.mask_probability",
        "training.epochs_per_round",
        "training.learning_rate",
        "training.weight_decay",
        "training.warmup_fraction",
        "training.max_grad_norm",
        "federation.round_timeout",
        "federation.max_update_norm",
    ],
)
def test_no_number_is_nan_or_infinite(key: str, value: str) -> None:
    section, name = key.split(".")
    assert f"  {key} = " in refusal(f"{MINIMAL}[{section}]\n{name} = {value}\n")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("strategy", "name"), [(strategy, name) for strategy, names in STRATEGY_SETTINGS.items() for name in names]
)
def test_no_strategy_setting_is_nan_or_infinite(strategy: str, name: str, value: str) -> None:
    assert f"federation.{name} = " in refusal(f'{MINIMAL}[federation]\nstrategy = "{strategy}"\n{name} = {value}\n')


def test_a_plan_cannot_be_changed() -> None:
    plan = parse_plan(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        plan.training.batch_size = 3


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text("[study]\nname = \n")
    with pytest.raises(InputError, match=r"plan\.toml is not TOML: .*line 2") as caught:
        load_plan(file)
    assert caught.value.code == "plan-invalid" and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (b"\xff\xfe[study]", "plan-invalid", "is not UTF-8 text"),
        (b"#" * 1_000_001, "plan-invalid", "1,000,001 bytes"),
        (None, "plan-unreadable", "No such file"),
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, content: bytes | None, code: str, told: str) -> None:
    file = tmp_path / "plan.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_plan(file)
    assert caught.value.code == code and told in caught.value.message and str(file) in caught.value.message


def test_a_folder_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_plan(tmp_path)
    assert caught.value.code == "plan-unreadable"


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(plan_to_toml(StudyPlan.model_validate(FULL)), encoding="utf-8")
    assert load_plan(file) == StudyPlan.model_validate(FULL)


def test_a_plan_without_a_release_has_the_hash_that_it_had_before_there_was_one() -> None:
    """Runs and approvals go by it."""
    assert parse_plan(MINIMAL).hash() == "8b6efb0f2b0c45ed4801610885ae84e3abec327f970d2f0b440d99cb8a268239"
    hashes = {parse_plan(MINIMAL + f"[release]\ncanaries = {count}\n").hash() for count in (0, 4, 6)}
    assert len(hashes | {parse_plan(MINIMAL).hash()}) == 4


def test_a_canary_needs_room() -> None:
    with pytest.raises(InputError, match=r"encoder\.max_length = 32 or more"):
        parse_plan(MINIMAL + "[encoder]\nmax_length = 31\n[release]\ncanaries = 4\n")
    assert parse_plan(MINIMAL + "[encoder]\nmax_length = 31\n[release]\n").canaries == 0
