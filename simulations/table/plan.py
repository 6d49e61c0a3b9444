"""A table as a file: a study plan whose objective is replaced, arm by arm.

[study], [encoder], [training], [federation], [evaluation]    as in any plan: what all arms have in common
[table]                                                       seeds and settings
[[arms]]                                                      name, objective, and what differs from the common part
"""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError

from common.errors import InputError
from common.plan import StudyPlan, check_plan
from common.plan_sections import Section
from common.table import Arm

TABLE_FILE, RESULTS_FILE = "table.toml", "table.json"  # of a run

Trained = Literal["local-only", "federated", "centralised"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class TableSection(Section):
    seeds: list[Seed] = Field([1, 2, 3], min_length=1, description="a training of every cell from each")
    settings: list[Trained] = Field(["local-only", "federated", "centralised"], min_length=1)
    tuned: list[Literal["as it is", "local-only", "federated", "centralised"]] = Field(
        [], description="settings in which the encoder is tuned, too, in the modes of the evaluation"
    )
    pooled_class_notes: int = Field(
        30, ge=2, description="training notes that make a class of the task over all sites; a site's own needs 8"
    )


class ArmSection(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    start: str | None = Field(None, description="an arm above, whose model of the same setting and seed is the base")
    objective: dict[str, Any]
    training: dict[str, Any] = Field({})
    federation: dict[str, Any] = Field({})
    privacy: dict[str, Any] = Field({}, description="what it has differential privacy by, where it has any")


class _File(Section):
    table: TableSection = TableSection()
    arms: list[ArmSection] = Field(min_length=1)


@dataclass(frozen=True)
class TablePlan:
    """A checked table; `common` is what all arms have in common, with the objective of the first."""

    raw: dict[str, Any]
    common: StudyPlan
    table: TableSection
    arms: list[ArmSection]

    def plan(self, arm: ArmSection, seed: int, base: str | None = None) -> StudyPlan:
        """The study of one cell; `base` is where it starts, unless from the common base."""
        return _arm_plan(self.raw, arm, seed, base, "the table")

    def toml(self) -> str:
        return tomli_w.dumps(self.raw)

    def hash(self) -> str:
        """SHA-256 (hex) over all that the file says."""
        return hashlib.sha256(json.dumps(self.raw, sort_keys=True).encode()).hexdigest()

    @property
    def private(self) -> bool:
        """Whether any arm is."""
        return any(self.plan(arm, 0).privacy for arm in self.arms)

    @property
    def privacy_words(self) -> str:
        """The guarantee of all arms, or of each where they differ."""
        words = {arm.name: self.plan(arm, 0).privacy_words for arm in self.arms}
        if len(set(words.values())) == 1:
            return next(iter(words.values()))
        return "differs by arm: " + "; ".join(f"{arm}, {said}" for arm, said in words.items())

    def rows(self) -> list[Arm]:
        return [Arm(name=a.name, objective=str(a.objective.get("kind", "mlm")), start=a.start or "") for a in self.arms]


def is_table(path: Path) -> bool:
    """Whether a file is a table rather than a plan; what cannot be read is left to the plan's reader to explain."""
    try:
        return bool({"arms", "table"} & set(tomllib.loads(path.read_text("utf-8"))))
    except (OSError, ValueError):
        return False


def load_table(path: Path) -> TablePlan:
    """Read a table. Raises InputError that lists what is wrong."""
    raw = tomllib.loads(path.read_text("utf-8"))
    own = {key: raw[key] for key in ("table", "arms") if key in raw}
    try:
        file = _File.model_validate(own)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors(include_url=False)]
        raise InputError("table-invalid", f"{path} is not valid:\n" + "\n".join(lines), "Mend the file.") from None
    seen: set[str] = set()
    for arm in file.arms:
        if arm.name in seen:
            _refuse(path, f"two arms are called {arm.name}")
        if arm.start is not None and arm.start not in seen:
            _refuse(path, f"arm {arm.name} starts from {arm.start}, which is no arm above it")
        seen.add(arm.name)
    plans = [_arm_plan(raw, arm, None, None, f"{path}, arm {arm.name}") for arm in file.arms]
    return TablePlan(raw, plans[0], file.table, file.arms)


def _refuse(path: Path, what: str) -> None:
    raise InputError("table-invalid", f"{path}: {what}.", "Mend the file.")


def _arm_plan(raw: dict[str, Any], arm: ArmSection, seed: int | None, base: str | None, name: str) -> StudyPlan:
    sections = {key: value for key, value in raw.items() if key not in ("table", "arms")}
    if "objective" in sections:
        raise InputError("table-invalid", f"{name}: [objective] stands beside the arms.", "Give each arm its own.")
    study = {**sections.get("study", {}), **({} if seed is None else {"seed": seed})}
    encoder = {**sections.get("encoder", {}), **({"base": base} if base else {})}
    changed = {key: {**sections.get(key, {}), **getattr(arm, key)} for key in ("training", "federation", "privacy")}
    changed = {key: settings for key, settings in changed.items() if settings}
    plan = {**sections, "study": study, "encoder": encoder, **changed, "objective": arm.objective}
    return check_plan(plan, name)
