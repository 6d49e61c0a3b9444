"""The rounds of a run as tables: losses, what each site did, and the embedding space of its held-out notes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from common.results import HeldOut, Round, SiteRound, Summary
from server.figures.privacy import spent
from server.figures.round_space import GAP, measure, released
from server.figures.space import MEASURES
from server.figures.style import site_names
from server.figures.training import loss_unit, part_name, part_unit
from server.report.tables import NOTHING, WITHHELD, Table
from server.report.words import duration, listed, size


def held_out_table(summary: Summary) -> Table:
    caption = f"Held-out loss, {loss_unit(summary)}"
    return _held_out_by_round(summary, caption, lambda held_out: _loss(held_out.loss))


def part_table(summary: Summary, part: str) -> Table:
    """One of the losses that the objective adds up."""
    caption = f"{part_name(part)}, held-out loss in {part_unit(part)}"
    return _held_out_by_round(summary, caption, lambda held_out: _loss(held_out.parts.get(part)))


def space_table(summary: Summary, name: str, title: str) -> Table:
    """A field of `Space`, or `GAP` with what it is made of."""

    def cell(held_out: HeldOut) -> str:
        value = measure(held_out.space, name) if held_out.space else None
        if value is None or held_out.space is None:
            return NOTHING
        if name == GAP:
            return f"{_number(value)} ({_number(held_out.space.within)} − {_number(held_out.space.between)})"
        return _number(value)

    return _held_out_by_round(summary, title, cell)


def all_space_table(summary: Summary) -> Table:
    """Every measure that is there, by round and site."""
    found = released(summary)
    names = [name for name in MEASURES if any(measure(space, name) is not None for _, _, space in found)]
    rows = [
        [str(number), site, f"{space.notes:,}", *(_number(measure(space, name)) for name in names)]
        for number, site, space in found
    ]
    columns = ["round", "site", "held-out notes", *(MEASURES[name] for name in names)]
    return Table("All measures of the embedding space", columns, rows, frozenset({0, 1}))


def training_table(summary: Summary) -> Table:
    missing = _missing_loss(summary)

    def losses(round_: Round) -> dict[str, str]:
        return {site.site: _training_loss(site, missing) for site in round_.sites if site.state == "returned"}

    noise = ", with noise" if spent(summary) else ""
    return by_round(summary, f"Training loss{noise}, {loss_unit(summary)}", losses)


def rounds_table(summary: Summary) -> Table:
    sites = [site for round_ in summary.rounds for site in round_.sites]
    parts = list(dict.fromkeys(part for site in sites for part in site.parts))
    columns = ["round", "site", "outcome", "notes", "steps", "tokens", "loss", *(f"loss: {part}" for part in parts)]
    columns += ["time", "down", "up", "change (L2 norm)"]
    missing = _missing_loss(summary)
    rows = [
        [
            str(round_.number),
            site.site,
            "returned" if site.state == "returned" else f"left out: {site.reason or 'no reason given'}",
            _withheld(site, f"{site.notes:,}"),
            f"{site.steps:,}",
            _withheld(site, f"{site.tokens:,}"),
            _training_loss(site, missing),
            *(_loss(site.parts.get(part)) for part in parts),
            _withheld(site, duration(site.seconds)),
            size(site.bytes_down),
            size(site.bytes_up),
            NOTHING if site.update_norm is None else f"{site.update_norm:.4g}",
        ]
        for round_ in summary.rounds
        for site in round_.sites
    ]
    return Table("Every site in every round", columns, rows, frozenset({0, 1, 2}))


@dataclass(frozen=True)
class LadderRow:
    site: str
    cells: list[SiteRound | None]
    totals: list[str]


def ladder(summary: Summary) -> list[LadderRow]:
    """A row a site, a cell a round, and what the site did over all rounds."""
    rounds = [r for r in summary.rounds if r.number > 0]
    rows = []
    for site in dict.fromkeys(s.site for r in rounds for s in r.sites):
        cells = [next((s for s in r.sites if s.site == site), None) for r in rounds]
        there = [cell for cell in cells if cell is not None]
        is_private = any(cell.privacy is not None for cell in there)
        totals = [
            f"{sum(cell.state == 'returned' for cell in there)} of {len(rounds)}",
            WITHHELD if is_private else duration(sum(cell.seconds for cell in there)),
            f"{sum(cell.steps for cell in there):,}",
            WITHHELD if is_private else f"{sum(cell.tokens for cell in there):,}",
            size(sum(cell.bytes_down for cell in there)),
            size(sum(cell.bytes_up for cell in there)),
        ]
        rows.append(LadderRow(site, cells, totals))
    return rows


def left_out_of_rounds(summary: Summary) -> list[tuple[str, str, str]]:
    """Site, rounds and reason; the rounds that a site missed for one reason stand together."""
    missed: dict[tuple[str, str], list[str]] = {}
    for round_ in summary.rounds:
        for site in round_.sites:
            if site.state == "left-out":
                missed.setdefault((site.site, site.reason or "no reason given"), []).append(str(round_.number))
    return [
        (site, f"{'round' if len(rounds) == 1 else 'rounds'} {listed(rounds)}", reason)
        for (site, reason), rounds in missed.items()
    ]


def _held_out_by_round(summary: Summary, caption: str, cell: Callable[[HeldOut], str]) -> Table:
    return by_round(
        summary, caption, lambda round_: {site: cell(held_out) for site, held_out in round_.held_out.items()}
    )


def by_round(summary: Summary, caption: str, cells: Callable[[Round], dict[str, str]]) -> Table:
    """Rounds by sites, without the rounds in which no site has a value."""
    sites = site_names(summary)
    found = [(round_.number, cells(round_)) for round_ in summary.rounds]
    rows = [[str(number), *(of.get(site, NOTHING) for site in sites)] for number, of in found]
    return Table(caption, ["round", *sites], [row for row in rows if any(cell != NOTHING for cell in row[1:])])


def _withheld(site: SiteRound, text: str) -> str:
    """With private training a site does not say how many notes and tokens it read, nor how long that took."""
    return text if site.privacy is None else WITHHELD


def _training_loss(site: SiteRound, missing: str) -> str:
    return missing if site.privacy is not None and site.loss is None else _loss(site.loss)


def _missing_loss(summary: Summary) -> str:
    """What it means that a private round has no loss: where others have one, noise left nothing of it."""
    private = [site for round_ in summary.rounds for site in round_.sites if site.privacy is not None]
    return WITHHELD if all(site.loss is None for site in private) else "lost in noise"


def _loss(loss: float | None) -> str:
    return NOTHING if loss is None or not math.isfinite(loss) else f"{loss:.4f}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}".replace("-", "−")
