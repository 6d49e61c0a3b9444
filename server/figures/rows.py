"""The rows of a table of results, and what stands in them: means over seeds and over sites, with their intervals."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from scipy import special

from common.results import POOLED, TOGETHER, Estimate, Mode, ModelName, TaskScore
from common.table import Cell, Setting, Table
from server.figures.style import BLUE, GREEN, GREY, MODEL_LABELS, MODEL_MARKS, ORANGE, SKY, VERMILION, Mark, marks

AS_IT_IS: Setting = "as it is"
UNTRAINED: tuple[ModelName, ...] = ("tf-idf", "majority", "base")
MODES: tuple[Mode, ...] = get_args(Mode)
# Without the purple of TF-IDF and the grey of the base, which are drawn beside the objectives.
ARM_PALETTE = (BLUE, VERMILION, GREEN, SKY, ORANGE)
MEAN_OF_SITES = None  # in place of a site's name

Place = str | None
Over = Literal["seeds", "test notes", "draws", ""]


@dataclass(frozen=True)
class Row:
    """An arm in a setting, over all seeds."""

    arm: str
    setting: Setting

    @property
    def trained(self) -> bool:
        return self.setting != AS_IT_IS

    @property
    def name(self) -> str:
        return f"{self.arm}, {self.setting}" if self.trained else model_label(self.arm)


@dataclass(frozen=True)
class Column:
    """What is scored: a task, how the encoder is used, and labelled notes a class (None: all labels)."""

    task: str
    mode: Mode = "frozen"
    shots: int | None = None


@dataclass(frozen=True)
class Value:
    """Macro-F1 of a row in a column. `over` says what the interval is over: "" where there is none."""

    estimate: Estimate
    over: Over
    seeds: int
    sites: int
    n_test: int


class Rows:
    """The scores of a table, by row and seed. A score that is not a number counts as missing."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.cells: dict[Row, dict[int, Cell]] = {}
        for cell in table.cells:
            self.cells.setdefault(Row(cell.arm, cell.setting), {})[cell.seed] = cell
        self._scores = {
            (row, seed): {(s.site, s.task, s.mode): s for s in cell.scores if math.isfinite(s.macro_f1.value)}
            for row, cells in self.cells.items()
            for seed, cell in cells.items()
        }
        self.arms = list(
            dict.fromkeys([*(a.name for a in table.arms), *(row.arm for row in self.cells if row.trained)])
        )
        there = [row for row in self.cells if not row.trained]
        order: dict[str, int] = {name: i for i, name in enumerate(UNTRAINED)}
        self.untrained = sorted(there, key=lambda row: order.get(row.arm, len(order)))
        # every arm has every setting of the table, though some cells may be yet to come
        self.settings = [s for s in get_args(Setting) if s != AS_IT_IS and any(row.setting == s for row in self.cells)]
        self.trained = [Row(arm, setting) for arm in self.arms for setting in self.settings]
        self.all = [*self.untrained, *self.trained]
        known = {row.arm: Mark(GREY, "diamond") for row in self.untrained} | dict(MODEL_MARKS.items())
        self.marks = {row.arm: known[row.arm] for row in self.untrained} | marks(self.arms, ARM_PALETTE)

    @property
    def tasks(self) -> list[str]:
        scored = (task for scores in self._scores.values() for _, task, _ in scores)
        return list(dict.fromkeys([*scored, *(d.task for d in self.table.differences)]))

    @property
    def sites(self) -> list[str]:
        """Every site, in the study's order; one that only a score names comes after."""
        scored = (site for scores in self._scores.values() for site, _, _ in scores)
        names = dict.fromkeys([*(facts.name for facts in self.table.sites), *scored])
        return [name for name in names if name not in (POOLED, TOGETHER)]

    @property
    def place(self) -> Place:
        """Where rows are compared: on the pooled test notes, or over the sites where nothing was scored on those."""
        pooled = any(site == POOLED for scores in self._scores.values() for site, _, _ in scores)
        return POOLED if pooled else MEAN_OF_SITES

    def modes(self, task: str) -> list[Mode]:
        return [mode for mode in MODES if any(self.at(row, Column(task, mode), place) for row, place in self._places())]

    def shots(self, task: str, mode: Mode) -> list[int]:
        """The few-shot numbers of a task, wherever one was scored."""
        of_task = (s for scores in self._scores.values() for s in scores.values() if (s.task, s.mode) == (task, mode))
        return sorted({few.shots for score in of_task for few in score.few_shot})

    def scores(self, row: Row, task: str, mode: Mode, site: str) -> dict[int, TaskScore]:
        """By seed."""
        found = {seed: self._scores[row, seed].get((site, task, mode)) for seed in sorted(self.cells.get(row, {}))}
        return {seed: score for seed, score in found.items() if score}

    def at(self, row: Row, column: Column, place: Place) -> Value | None:
        """What stands in the row: at one site (or `POOLED`, or `TOGETHER`), or the mean of the sites' scores."""
        return self._of_sites(row, column) if place is MEAN_OF_SITES else self._of_site(row, column, place)

    def _of_site(self, row: Row, column: Column, site: str) -> Value | None:
        scores = self.scores(row, column.task, column.mode, site)
        found = [(estimate, score) for score in scores.values() if (estimate := _estimate(score, column.shots))]
        if not found:
            return None
        estimate = over_seeds([estimate for estimate, _ in found])
        over: Over = "seeds" if len(found) > 1 else "test notes" if column.shots is None else "draws"
        return Value(estimate, over if estimate.low is not None else "", len(found), 1, found[0][1].n_test)

    def _of_sites(self, row: Row, column: Column) -> Value | None:
        """The mean over the sites that every seed of the row was scored at, and then over seeds."""
        by_seed: dict[int, dict[str, tuple[float, int]]] = {}
        for site in self.sites:
            for seed, score in self.scores(row, column.task, column.mode, site).items():
                if estimate := _estimate(score, column.shots):
                    by_seed.setdefault(seed, {})[site] = (estimate.value, score.n_test)
        common = [site for site in self.sites if by_seed and all(site in found for found in by_seed.values())]
        if not common:
            return None
        means = [Estimate(value=sum(found[site][0] for site in common) / len(common)) for found in by_seed.values()]
        n_test = sum(next(iter(by_seed.values()))[site][1] for site in common)
        return Value(over_seeds(means), "seeds" if len(means) > 1 else "", len(means), len(common), n_test)

    def _places(self) -> Iterable[tuple[Row, str]]:
        return ((row, site) for row in self.all for site in (POOLED, TOGETHER, *self.sites))


def model_label(name: str) -> str:
    """What a person reads for a setting, or for what is not trained."""
    return next((label for model, label in MODEL_LABELS.items() if model == name), name)


def over_seeds(estimates: list[Estimate]) -> Estimate:
    """The mean with Student's 95 % interval, held within [0, 1], where macro-F1 lives; of one, its own interval."""
    if len(estimates) == 1:
        return estimates[0]
    values = [estimate.value for estimate in estimates]
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = student(len(values)) * spread / math.sqrt(len(values))
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))


def student(seeds: int) -> float:
    """How many standard errors a 95 % interval over so many seeds reaches to either side."""
    return float(special.stdtrit(seeds - 1, 0.975))


def finite(estimate: Estimate) -> Estimate | None:
    """The estimate, without bounds that are not numbers; None where its value is not one."""
    if not math.isfinite(estimate.value):
        return None
    known = all(bound is not None and math.isfinite(bound) for bound in (estimate.low, estimate.high))
    return estimate if known else Estimate(value=estimate.value)


def _estimate(score: TaskScore, shots: int | None) -> Estimate | None:
    if shots is None:
        return finite(score.macro_f1)
    return next((finite(few.macro_f1) for few in score.few_shot if few.shots == shots), None)
