"""The study plan: one TOML file that says what every site will do. Its hash is what a site approves.

Every violation is reported at once with its path, value and fix.
"""

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError, PydanticUndefined

from common.errors import InputError
from common.plan_sections import (
    OBJECTIVES,
    Declutr,
    EncoderPlan,
    Evaluation,
    Federation,
    HospitalPrivacy,
    Mlm,
    NoteCategory,
    Objective,
    Privacy,
    Release,
    Section,
    Study,
    Training,
)
from common.results import NO_DP

CANARY_LENGTH = 32  # tokens: six digits, what may stand between them, and a context
_PLAN_BYTES = 1_000_000  # a plan is a page; anything near this is a wrong file


class StudyPlan(Section):
    """The whole plan. Raises `pydantic.ValidationError`; `load_plan` and `parse_plan` explain what is wrong."""

    study: Study
    encoder: EncoderPlan = EncoderPlan()
    objective: Objective = Field(Mlm(), validate_default=True)
    training: Training = Training()
    federation: Federation = Federation()
    privacy: Privacy | None = Field(None, description="absent: no differential privacy")
    hospital_privacy: HospitalPrivacy | None = Field(None, description="absent: none that protects a whole hospital")
    evaluation: Evaluation = Evaluation()
    release: Release | None = Field(None, description="absent: no memorisation check before a release")

    @field_validator("objective")
    @classmethod
    def _spans_fit(cls, value: Section, info: ValidationInfo) -> Section:
        encoder = info.data.get("encoder")
        if isinstance(value, Declutr) and encoder is not None and value.max_span > (room := encoder.max_length - 2):
            raise PydanticCustomError(
                "span_room",
                "max_span = {span} is more than encoder.max_length leaves room for; lower it to {room} or less",
                {"span": value.max_span, "room": room},
            )
        return value

    @field_validator("privacy")
    @classmethod
    def _can_be_private(cls, value: Privacy | None, info: ValidationInfo) -> Privacy | None:
        """Refuses what would couple units, or make the noise rest on notes: nothing of it is silently accepted."""
        objective, training = info.data.get("objective"), info.data.get("training")
        if value is None or objective is None or training is None:
            return value
        reasons = []
        if training.tokens_per_round is not None:
            reasons.append("training.tokens_per_round makes steps depend on the notes' lengths; give steps_per_round")
        if training.seconds_per_round is not None:
            reasons.append("training.seconds_per_round makes steps depend on time, and so on notes; remove it")
        if training.precision == "bfloat16":
            reasons.append(
                "training.precision = bfloat16 rounds a unit's gradient by what else is in its batch; use float32"
            )
        if isinstance(objective, NoteCategory):
            if objective.loss == "contrastive":
                reasons.append("objective.loss = contrastive compares units with each other; use prototypes or linear")
            if objective.categories is None:
                reasons.append("objective.categories is not given, and a site's own list tells of its notes; name one")
        if isinstance(objective, Declutr) and objective.spans_at_once is not None:
            reasons.append("objective.spans_at_once has no use here: private steps go by pieces anyway; remove it")
        if value.engine == "opacus" and isinstance(objective, Declutr):
            reasons.append("privacy.engine = opacus cannot clip a unit that the encoder reads twice; use book-keeping")
        if reasons:
            raise PydanticCustomError("not_private", "{reasons}", {"reasons": "; ".join(reasons)})
        return value

    @field_validator("hospital_privacy")
    @classmethod
    def _central(cls, value: HospitalPrivacy | None, info: ValidationInfo) -> HospitalPrivacy | None:
        federation = info.data.get("federation")
        if value is not None and federation is not None and federation.strategy != "fedavg":
            raise PydanticCustomError("central_strategy", "its noise is for the mean: use federation.strategy = fedavg")
        return value

    @field_validator("evaluation")
    @classmethod
    def _something_to_score(cls, value: Evaluation) -> Evaluation:
        if value.release_scores and not value.tasks:
            raise PydanticCustomError("no_tasks", "release_scores is true, and tasks names none; name one")
        return value

    @field_validator("release")
    @classmethod
    def _canaries_fit(cls, value: Release | None, info: ValidationInfo) -> Release | None:
        encoder = info.data.get("encoder")
        if value is not None and value.canaries and encoder is not None and encoder.max_length < CANARY_LENGTH:
            raise PydanticCustomError(
                "canary_room", "a canary needs encoder.max_length = {most} or more", {"most": CANARY_LENGTH}
            )
        return value

    @property
    def canaries(self) -> int:
        """Synthetic notes with a secret at each site, held back or not."""
        return self.release.canaries if self.release else 0

    @property
    def privacy_words(self) -> str:
        """The guarantee that every screen shows, before a run and after."""
        if self.privacy is None:
            return NO_DP
        privacy = self.privacy
        level = (
            f"epsilon at most {privacy.epsilon:g}"
            if privacy.epsilon is not None
            else f"noise multiplier {privacy.noise_multiplier:g}"
        )
        return f"differential privacy for each {privacy.unit}: {level} at delta {privacy.delta:g}"

    @property
    def shared_categories(self) -> int:
        """Outputs of the category head that all sites share; 0 where there is none."""
        objective = self.objective
        if isinstance(objective, NoteCategory) and objective.loss != "contrastive" and objective.categories:
            return len(objective.categories)
        return 0

    @property
    def category_bias(self) -> bool:
        """Whether the category head has biases: prototypes have none."""
        return isinstance(self.objective, NoteCategory) and self.objective.loss == "linear"

    def hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON of every key, defaults included: equal plans have equal hashes."""
        known = self.model_dump(mode="json")
        if self.release is None:
            del known["release"]  # plans that are older than the section keep their hashes
        if not self.evaluation.release_scores:
            del known["evaluation"]["release_scores"]  # or than the key
        canonical = json.dumps(known, sort_keys=True, separators=(",", ":"))
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
    if "arms" in raw:
        raise InputError("plan-invalid", f"{name} is a table of several studies.", "Give it to `fednotes compare`.")
    return check_plan(raw, name)


def check_plan(raw: dict[str, Any], name: str) -> StudyPlan:
    """The plan in a dictionary of sections. Raises InputError that lists every violation."""
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
    path = ".".join(_keys(detail["loc"]))
    if detail["type"] == "union_tag_invalid":
        kind = detail["input"].get("kind")
        return f"{path}.kind = {json.dumps(kind, default=str)[:80]}: it should be one of {', '.join(OBJECTIVES)}"
    if detail["type"] == "union_tag_not_found":
        return f"{path} = {json.dumps(detail['input'], default=str)[:80]}: it should be a section, [{path}]"
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(detail["loc"][-1]), _keys_beside(detail["loc"]), n=1)
        return f"{path}: unknown key" + (f"; did you mean {close[0]}?" if close else "; remove it")
    if detail["type"] == "missing":
        return f"{path}: missing"
    value = detail["input"]
    shown = "" if isinstance(value, dict) else f" = {json.dumps(value, default=str)[:80]}"
    return f"{path}{shown}: {detail['msg']}"


def _keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of a place in the plan: pydantic names the kind of objective there, too."""
    return [str(part) for number, part in enumerate(loc) if not (number == 1 and loc[0] == "objective")]


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    if len(loc) == 1:
        return list(StudyPlan.model_fields)
    if loc[0] == "objective":
        return list(OBJECTIVES[str(loc[1])].model_fields)
    return list(_section(StudyPlan.model_fields[str(loc[0])].annotation).model_fields)


def plan_to_toml(plan: StudyPlan, comments: bool = False) -> str:
    """The plan as TOML, every default written out; with `comments`, one above each key."""
    out: list[str] = []
    for section, field in StudyPlan.model_fields.items():
        value = getattr(plan, section)
        if value is None:
            if comments:
                out += _absent(section, field)
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


def _absent(section: str, field: FieldInfo) -> list[str]:
    """A section that is not there, with its keys, for whoever takes the marks away."""
    out = [f"# [{section}]  # {field.description}"]
    for key, key_field in _section(field.annotation).model_fields.items():
        given = key_field.get_default()
        setting = "(not set)" if given is None or given is PydanticUndefined else _toml(given)
        out += [f"## {key_field.description}", f"# {key} = {setting}"]
    return [*out, ""]


def _section(annotation: Any) -> type[Section]:
    """The section of a field that may be absent."""
    return next((one for one in get_args(annotation) if one is not type(None)), annotation)


def _toml(value: object) -> str:
    """JSON is TOML for all that a plan holds but one control character, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
