"""The study plan: one TOML file that says what every site will do. Its hash is what a site approves.

Every violation is reported at once with its path, value and fix. Checks across fields are field validators on the later
field, because pydantic skips whole-model validators as soon as one field is wrong, and would then report only a part.
"""

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from common.errors import InputError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

_PLAN_BYTES = 1_000_000  # a plan is a page; anything near this is a wrong file


def _not_built(value: object, planned: tuple[str, ...], instead: str) -> None:
    """Refuse what the design names and later work will bring, in words that say so."""
    if value in planned:
        raise PydanticCustomError(
            "not_built", "{value} is not built yet; {instead}", {"value": value, "instead": instead}
        )


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Study(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="lower-case letters, digits and hyphens")
    seed: int = Field(0, ge=0, lt=2**32, description="the same seed gives the same weights on the same machine")


class EncoderPlan(Section):
    base: str = Field(
        "packaged:minilm", min_length=1, description="a model hub name, a folder, or the packaged base packaged:minilm"
    )
    pooling: Literal["mean"] = Field("mean", description="masked mean of the last layer, special tokens included")
    max_length: int = Field(256, ge=16, le=8192, description="tokens a sequence, the two special ones included")


class Mlm(Section):
    kind: Literal["mlm"] = Field("mlm", description="masked language modelling")
    mask_probability: float = Field(
        0.15, gt=0.0, le=0.5, description="share of tokens to predict; of these 80 % masked, 10 % random, 10 % kept"
    )
    whole_word: bool = Field(False, description="mask all pieces of a word together")

    @field_validator("kind", mode="before")
    @classmethod
    def _planned_kinds(cls, value: object) -> object:
        _not_built(value, ("declutr", "note-category"), 'use kind = "mlm"')
        return value


class Training(Section):
    steps_per_round: int | None = Field(None, ge=1, le=1_000_000, description="optimiser steps a site makes each round")
    epochs_per_round: float | None = Field(
        None, gt=0.0, le=1000, validate_default=True, description="or passes over its notes; 1.0 where neither is given"
    )
    batch_size: int = Field(16, ge=1, le=65536, description="notes a step")
    learning_rate: Positive = Field(1e-4, description="peak rate of AdamW")
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="decoupled; none on biases and norms")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="decay over the whole study's steps"
    )
    warmup_fraction: Fraction = Field(0.1, description="share of the whole study's steps that warms up")
    max_grad_norm: Positive = Field(1.0, description="gradients are clipped to this norm")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast where the processor computes in it, else float32"
    )

    @field_validator("epochs_per_round")
    @classmethod
    def _one_measure(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("steps_per_round") is not None:
            raise PydanticCustomError("two_measures", "give steps_per_round or epochs_per_round, not both")
        if value is None and "steps_per_round" in info.data and info.data["steps_per_round"] is None:
            return 1.0
        return value


STRATEGY_SETTINGS = {
    "fedavg": (),
    "fedprox": ("proximal_mu",),
    "fedadam": ("server_learning_rate",),
    "fedavgm": ("server_learning_rate", "server_momentum"),
    "trimmed-mean": ("trim_fraction",),
    "median": (),
}


class Federation(Section):
    rounds: int = Field(10, ge=1, le=100_000, description="rounds of the study")
    strategy: Literal["fedavg", "fedprox", "fedadam", "fedavgm", "trimmed-mean", "median"] = Field(
        "fedavg", description="how updates become the next shared weights"
    )
    proximal_mu: Positive | None = Field(
        None, validate_default=True, description="fedprox: pull towards the round's start; 0.01 where not given"
    )
    server_learning_rate: Positive | None = Field(
        None,
        validate_default=True,
        description="fedadam (0.001 where not given), fedavgm (1.0): the coordinator's step",
    )
    server_momentum: Fraction | None = Field(
        None, validate_default=True, description="fedavgm: momentum of the coordinator's step; 0.9 where not given"
    )
    trim_fraction: Annotated[float, Field(ge=0.0, lt=0.5)] | None = Field(
        None,
        validate_default=True,
        description="trimmed-mean: share cut at either end, rounded down: with 0.2 (where not given), one site of five",
    )
    min_sites: int = Field(1, ge=1, le=10_000, description="fewest good replies that make a round")
    round_timeout: Positive = Field(86_400.0, description="seconds to wait for the replies of one round")
    share: Literal["encoder", "encoder+mlm-head"] = Field(
        "encoder+mlm-head", description="what travels; the rest stays at the site between rounds"
    )
    wire: Literal["float32"] = Field("float32", description="number format of weights in transit")

    @field_validator("share", mode="before")
    @classmethod
    def _planned_shares(cls, value: object) -> object:
        _not_built(value, ("lora",), 'use share = "encoder" or "encoder+mlm-head"')
        return value

    @field_validator("wire", mode="before")
    @classmethod
    def _planned_wires(cls, value: object) -> object:
        _not_built(value, ("float16", "delta", "delta-float16"), 'use wire = "float32"')
        return value

    @field_validator("proximal_mu", "server_learning_rate", "server_momentum", "trim_fraction")
    @classmethod
    def _setting_of_strategy(cls, value: float | None, info: ValidationInfo) -> float | None:
        strategy, name = info.data.get("strategy"), str(info.field_name)
        if strategy is None:
            return value
        if name not in STRATEGY_SETTINGS[strategy]:
            if value is None:
                return None
            users = " and ".join(s for s, names in STRATEGY_SETTINGS.items() if name in names)
            raise PydanticCustomError("wrong_strategy", "only {users} uses it; remove it", {"users": users})
        if value is not None:
            return value
        if name == "server_learning_rate":
            return 0.001 if strategy == "fedadam" else 1.0
        return {"proximal_mu": 0.01, "server_momentum": 0.9, "trim_fraction": 0.2}[name]


class Evaluation(Section):
    held_out_notes: int = Field(256, ge=1, description="most dev notes a site uses for its held-out loss each round")
    tasks: list[Literal["label"]] = Field(["label"], description="downstream tasks; label is the notes' label column")
    modes: list[Literal["frozen"]] = Field(["frozen"], min_length=1, description="frozen: a probe on fixed embeddings")
    shots: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(
        [16, 32, 64, 128], description="labelled notes a class in the few-shot curve"
    )
    seeds: int = Field(5, ge=5, le=100, description="draws at each point of the curve")

    @field_validator("modes", mode="before")
    @classmethod
    def _planned_modes(cls, value: object) -> object:
        for mode in value if isinstance(value, list) else []:
            _not_built(mode, ("fine-tuned", "lora"), 'use modes = ["frozen"]')
        return value


class StudyPlan(Section):
    """The whole plan. Raises `pydantic.ValidationError`; `load_plan` and `parse_plan` explain what is wrong."""

    study: Study
    encoder: EncoderPlan = EncoderPlan()
    objective: Mlm = Mlm()
    training: Training = Training()
    federation: Federation = Federation()
    privacy: None = Field(None, description="absent: no differential privacy")
    evaluation: Evaluation = Evaluation()

    @field_validator("privacy", mode="before")
    @classmethod
    def _planned_privacy(cls, value: object) -> object:
        if value is not None:
            raise PydanticCustomError(
                "not_built",
                "private training is not built yet; leave [privacy] out, and the study has no differential privacy",
            )
        return value

    def hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON of every key, defaults included: equal plans have equal hashes."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def load_plan(path: Path) -> StudyPlan:
    """Read a plan from a TOML file; raises InputError that lists every violation."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            "plan-unreadable", f"The plan {path} cannot be read: {error.strerror}.", "Give the path of a TOML file."
        ) from None
    if len(data) > _PLAN_BYTES:
        raise InputError(
            "plan-invalid", f"{path} has {len(data):,} bytes, too many for a plan.", "Is it the right file?"
        )
    try:
        return parse_plan(data.decode("utf-8"), str(path))
    except UnicodeDecodeError:
        raise InputError("plan-invalid", f"{path} is not UTF-8 text.", "Is it the right file?") from None


def parse_plan(text: str, name: str = "the plan") -> StudyPlan:
    """Read a plan from TOML text; `name` is how errors call it. Raises InputError that lists every violation."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            "plan-invalid", f"{name} is not TOML: {error}.", "See `fednotes plan show` for the form."
        ) from None
    try:
        return StudyPlan.model_validate(raw)
    except ValidationError as error:
        lines = [_violation(detail) for detail in error.errors(include_url=False)]
        count = "1 thing is" if len(lines) == 1 else f"{len(lines)} things are"
        raise InputError(
            "plan-invalid",
            f"{count} wrong in {name}:\n" + "\n".join(f"  {line}" for line in lines),
            "`fednotes plan show` explains every key.",
        ) from None


def _violation(detail: ErrorDetails) -> str:
    """`section.key = value: what is wrong` for one pydantic error."""
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(detail["loc"][-1]), _keys_beside(detail["loc"]), n=1)
        return f"{path}: unknown key" + (f"; did you mean {close[0]}?" if close else "; remove it")
    if detail["type"] == "missing":
        return f"{path}: missing"
    value = detail["input"]
    shown = "" if isinstance(value, dict) else f" = {json.dumps(value, default=str)[:80]}"
    return f"{path}{shown}: {detail['msg']}"


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = StudyPlan
    for part in loc[:-1]:
        model = model.model_fields[str(part)].annotation
    return list(model.model_fields)


def plan_to_toml(plan: StudyPlan, comments: bool = False) -> str:
    """The plan as TOML, every default written out; with `comments`, one above each key."""
    out: list[str] = []
    for section, field in StudyPlan.model_fields.items():
        value = getattr(plan, section)
        if value is None:
            if comments:
                out.append(f"# [{section}] {field.description}\n")
            continue
        out.append(f"[{section}]")
        for key, key_field in type(value).model_fields.items():
            if comments:
                out.append(f"# {key_field.description}")
            setting = getattr(value, key)
            if setting is not None:
                out.append(f"{key} = {_toml(setting)}")
            elif comments:
                out.append(f"# {key} = (not set)")
        out.append("")
    return "\n".join(out)


def _toml(value: object) -> str:
    """JSON is TOML for all that a plan holds but one control character, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
