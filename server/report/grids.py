"""The table itself: rows of objectives and settings, columns of labels, macro-F1 in every cell."""

from dataclasses import dataclass

from common.results import POOLED, TOGETHER, Mode
from common.table import Arm
from server.figures.rows import MEAN_OF_SITES, Column, Place, Row, Rows, Value, student
from server.figures.style import MODE_LABELS, Mark
from server.report.words import count, listed

MOST_COLUMNS = 9  # more would not fit beside the names of the rows


@dataclass(frozen=True)
class GridCell:
    """`interval` is empty where there is none; `other` marks one that is not over seeds, where most are."""

    value: str
    interval: str
    other: bool
    best: bool
    note: str


@dataclass(frozen=True)
class GridRow:
    name: str
    mark: Mark | None
    note: str
    cells: list[GridCell | None]


@dataclass(frozen=True)
class GridGroup:
    """Rows of one arm, which share its mark; what is not trained has a mark a row."""

    name: str
    mark: Mark | None
    note: str
    rows: list[GridRow]


@dataclass(frozen=True)
class Grid:
    """`modes` head the columns: a name, how many columns it spans, and the n below it."""

    caption: str
    notes: list[str]
    modes: list[tuple[str, int, str]]
    columns: list[str]
    groups: list[GridGroup]


def grids(rows: Rows, task: str, place: Place) -> list[Grid]:
    """The scores of a task at a place: as many modes side by side in a grid as can be read."""
    columns = {
        mode: found
        for mode in rows.modes(task)
        if (found := [c for c in _columns(rows, task, mode) if any(rows.at(row, c, place) for row in rows.all)])
    }
    packs: list[list[Mode]] = []
    for mode, of_mode in columns.items():
        room = MOST_COLUMNS - sum(len(columns[m]) for m in packs[-1]) if packs else 0
        if len(of_mode) <= room:
            packs[-1].append(mode)
        else:
            packs.append([mode])
    return [_grid(rows, [column for mode in pack for column in columns[mode]], place) for pack in packs]


def _columns(rows: Rows, task: str, mode: Mode) -> list[Column]:
    return [Column(task, mode), *(Column(task, mode, n) for n in rows.shots(task, mode))]


def _grid(rows: Rows, columns: list[Column], place: Place) -> Grid:
    values = {(row, c): value for row in rows.all for c in columns if (value := rows.at(row, c, place))}
    seeds = max(value.seeds for value in values.values())
    # a mean over fewer sites is of other notes than the rest of its column
    sites = {column: max(v.sites for (_, c), v in values.items() if c == column) for column in columns}
    best = _best(values, sites)
    cells = {at: _cell(value, sites[at[1]], at in best, seeds > 1) for at, value in values.items()}
    groups = [("No pre-training on the sites' notes", "", rows.untrained)]
    arms = {arm.name: arm for arm in rows.table.arms}
    groups += [(arm, _about(arms.get(arm), rows), [r for r in rows.trained if r.arm == arm]) for arm in rows.arms]
    modes = list(dict.fromkeys(column.mode for column in columns))
    return Grid(
        caption=f"Macro-F1, {_where(place)}",
        notes=_notes(rows, columns, place, seeds),
        modes=[_heading(mode, columns, values) for mode in modes],
        columns=["all labels" if column.shots is None else f"{column.shots} a class" for column in columns],
        groups=[
            GridGroup(
                name,
                rows.marks[name] if of_group[0].trained else None,
                note,
                [_row(rows, row, [cells.get((row, c)) for c in columns]) for row in of_group],
            )
            for name, note, of_group in groups
            if of_group
        ],
    )


def _row(rows: Rows, row: Row, cells: list[GridCell | None]) -> GridRow:
    done, planned = len(rows.cells.get(row, {})), len(rows.table.seeds)
    note = ""
    if row.trained and done < planned:
        missing = "not there yet" if rows.table.status == "running" else "missing"
        note = f"{done} of {count(planned, 'seed')}" if done else missing
    if row.trained:
        return GridRow(row.setting, None, note, cells)
    return GridRow(row.name, rows.marks[row.arm], note, cells)


def _cell(value: Value, sites: int, best: bool, over_seeds: bool) -> GridCell:
    estimate = value.estimate
    known = estimate.low is not None and estimate.high is not None
    interval = f"{estimate.low:.3f} to {estimate.high:.3f}" if known else ""
    note = f"{value.sites} of {count(sites, 'site')}" if value.sites < sites else ""
    return GridCell(f"{estimate.value:.3f}", interval, known and over_seeds and value.over != "seeds", best, note)


def _best(values: dict[tuple[Row, Column], Value], sites: dict[Column, int]) -> set[tuple[Row, Column]]:
    """The greatest of each column as it is printed; a row that lacks a site is not compared."""
    best: set[tuple[Row, Column]] = set()
    for column, most in sites.items():
        of_column = {row: value for (row, other), value in values.items() if other == column}
        printed = {row: round(value.estimate.value, 3) for row, value in of_column.items() if value.sites == most}
        if len(printed) > 1:
            best |= {(row, column) for row, value in printed.items() if value == max(printed.values())}
    return best


def _heading(mode: Mode, columns: list[Column], values: dict[tuple[Row, Column], Value]) -> tuple[str, int, str]:
    of_mode = [value for (_, column), value in values.items() if column.mode == mode]
    sites = max(value.sites for value in of_mode)
    at = f" at {count(sites, 'site')}" if sites > 1 else ""
    n = max(value.n_test for value in of_mode)
    return MODE_LABELS[mode], sum(column.mode == mode for column in columns), f"n = {n:,} test notes{at}"


def _where(place: Place) -> str:
    if place is MEAN_OF_SITES:
        return "mean over the sites"
    names = {
        POOLED: "pooled test notes of all sites, one probe",
        TOGETHER: "all sites' test notes, each site's own probe",
    }
    return names.get(place, place)


def _notes(rows: Rows, columns: list[Column], place: Place, seeds: int) -> list[str]:
    """What the intervals are, and which classes gave fewer labels than the column says."""
    own = "over test notes with all labels, and over draws of labelled notes with few"
    if seeds > 1:
        notes = [
            f"Mean over {seeds} seeds, with Student's 95 % interval over seeds "
            f"({student(seeds):.1f} standard errors to either side)."
        ]
        one_seed = "A row of one seed has none here" if place is MEAN_OF_SITES else f"† One seed: the interval is {own}"
        notes.append(f"{one_seed}.")
    elif place is MEAN_OF_SITES:
        notes = ["One seed: a mean over sites then has no interval."]
    else:
        notes = [f"One seed: 95 % intervals are {own}."]
    if short := _short_classes(rows, columns, place):
        notes.append(short)
    return notes


def _short_classes(rows: Rows, columns: list[Column], place: Place) -> str:
    sites = rows.sites if place is MEAN_OF_SITES else [place]
    most = {
        few.shots: few.short_classes
        for column in columns
        for row in rows.all
        for site in sites
        for score in rows.scores(row, column.task, column.mode, site).values()
        for few in sorted(score.few_shot, key=lambda few: few.short_classes or 0)
        if few.short_classes and few.shots == column.shots
    }
    if not most:
        return ""
    clauses = [f"{count(number, 'class', 'classes')} at {shots}" for shots, number in sorted(most.items())]
    return f"Not every class has so many training notes, and such a class gives all it has: {listed(clauses)} a class."


def _about(arm: Arm | None, rows: Rows) -> str:
    if arm is None:
        return ""
    start = f"from the encoder of {arm.start}" if arm.start else "from the public base"
    return start if arm.objective == arm.name else f"{arm.objective}, {start}"
