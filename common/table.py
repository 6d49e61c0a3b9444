"""The results of a table: objectives x settings x seeds, each cell a study of its own. The contents of `table.json`."""

from typing import Literal

from common.results import NO_DP, Estimate, Mode, NotScored, Result, SiteFacts, Space, TaskScore, Verdict

Setting = Literal["as it is", "local-only", "federated", "centralised"]


class Arm(Result):
    """A row of the table: an objective, and what it starts from. `start` is another arm, or "" for the public base."""

    name: str
    objective: str
    start: str = ""


class SiteSpace(Result):
    """The embedding space of one model at one site (or over all, `POOLED`)."""

    site: str
    space: Space


class Consumed(Result):
    """What training a cell took, over all sites: steps, tokens that the encoder read, training notes used in whole, in
    part and not at all, and seconds."""

    steps: int = 0
    tokens: int = 0
    whole: int = 0
    shortened: int = 0
    too_short: int = 0
    seconds: float = 0.0


class Cell(Result):
    """One model: an arm in a setting, trained from one seed. Under "local-only" each site has a model of its own.

    What is not trained ("tf-idf", "majority", and the public base) has the setting "as it is" and one seed.
    """

    arm: str
    setting: Setting
    seed: int
    consumed: Consumed = Consumed()
    scores: list[TaskScore]
    space: list[SiteSpace]


class Difference(Result):
    """Macro-F1 of one row of the table minus that of another, on the same test notes and draws of labelled notes.

    The interval is a paired bootstrap over test notes of the mean over seeds (and draws, where `shots` is not None).
    """

    site: str
    task: str
    mode: Mode
    shots: int | None
    arm: str
    setting: Setting
    against_arm: str
    against_setting: Setting
    difference: Estimate
    n_test: int
    seeds: int
    verdict: Verdict


class Table(Result):
    """A finished or growing table; `planned` counts the cells that it will have."""

    schema_version: Literal[1] = 1
    study: str
    status: Literal["finished", "running"]
    privacy: str = NO_DP
    plan_hash: str
    started: str
    finished: str
    seconds: float
    versions: dict[str, str]
    base: str
    parameters: int
    rounds: int
    token_budget: int | None
    sites: list[SiteFacts]
    left_out_sites: dict[str, str]
    arms: list[Arm]
    seeds: list[int]
    planned: int
    cells: list[Cell]
    differences: list[Difference]
    not_scored: list[NotScored]
