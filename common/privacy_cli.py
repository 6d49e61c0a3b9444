"""`fednotes plan privacy`: what a plan's differential privacy means for sites of given sizes, before anything runs."""

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.errors import InputError
from common.plan import StudyPlan, load_plan
from common.plan_sections import Privacy
from common.privacy import epsilon_of, noise_multiplier, sampling_rate, steps_per_round

_NOTES = (2, 5, 10)  # of the patients that are told what they would have if the unit were the note
_SITES = 3  # beside each other in a table that 80 columns can hold
PRIVACY_EXAMPLES = """Examples:

    fednotes plan privacy study.toml --notes-per-site 2000,12000

    fednotes plan privacy study.toml --notes-per-site 800 --json
"""
_HINT = "Write whole numbers above 0 with commas between them, as in 2000,12000."


@dataclass(frozen=True)
class SitePrivacy:
    """`epsilon` is after a round. `epsilon_by_note` is of a patient with so many notes, if the unit were the note."""

    units: int
    noise_multiplier: float
    sampling_rate: float
    steps_per_round: int
    steps: int
    epsilon: dict[int, float]
    epsilon_by_note: dict[int, float]
    delta_too_large: bool


def privacy_command(
    file: Annotated[Path, typer.Argument(help="The plan, a TOML file.")],
    notes_per_site: Annotated[
        str,
        typer.Option(
            metavar="N,N,...",
            help="How many units each site trains on: its patients, or its notes where privacy.unit = note.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what differential privacy a plan gives: noise, sampling and epsilon for sites of given sizes."""
    sizes, plan = _sizes(notes_per_site), load_plan(file)
    if plan.privacy is None:
        print(json.dumps({"privacy": plan.privacy_words}) if as_json else plan.privacy_words)
        return
    sites = [_site(plan, plan.privacy, units) for units in sizes]
    if as_json:
        known = {"study": plan.study.name, "hash": plan.hash(), "privacy": plan.privacy_words}
        setting = plan.privacy.model_dump(include={"unit", "delta", "accountant"}) | {"rounds": plan.federation.rounds}
        print(json.dumps(known | setting | {"sites": [asdict(site) for site in sites]}, indent=2))
    else:
        _show(plan, plan.privacy, sites, Console())


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not re.fullmatch("[1-9][0-9]{0,11}", part):
            raise InputError("usage", f"--notes-per-site has {part!r}, which is no number of notes.", _HINT)
    return [int(part) for part in dict.fromkeys(parts)]


def _site(plan: StudyPlan, privacy: Privacy, units: int) -> SitePrivacy:
    from common.several_notes import several_notes

    rounds = plan.federation.rounds
    each, rate = steps_per_round(plan.training, units), sampling_rate(plan.training.batch_size, units)
    noise = noise_multiplier(privacy, rate, rounds * each)
    told = sorted({1, *(math.ceil(rounds * quarter / 4) for quarter in (1, 2, 3, 4))})
    return SitePrivacy(
        units,
        noise,
        rate,
        each,
        rounds * each,
        {number: epsilon_of([(noise, rate, number * each)], privacy.delta, privacy.accountant) for number in told},
        {notes: several_notes(noise, rate, rounds * each, privacy.delta, notes) for notes in _NOTES},
        privacy.delta * units > 1,
    )


def _show(plan: StudyPlan, privacy: Privacy, sites: list[SitePrivacy], console: Console) -> None:
    say = lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
    say(f"{plan.study.name}: {plan.privacy_words}. Epsilon is an upper bound ({privacy.accountant}), rounded up.")
    for start in range(0, len(sites), _SITES):
        console.print(_table(plan, privacy, sites[start : start + _SITES]))
    for site in sites:
        if site.delta_too_large:
            say(
                f"Delta {privacy.delta:g} is above 1 / units where {site.units:,} train: a study leaves such a site "
                f"out (delta-too-large). Lower privacy.delta, best to {0.1 / site.units:.0e} or less."
            )


def _table(plan: StudyPlan, privacy: Privacy, sites: list[SitePrivacy]) -> Table:
    table = Table()
    table.add_column("a site with")
    for site in sites:
        table.add_column(f"{site.units:,} {privacy.unit}s", justify="right")
    table.add_row("noise multiplier", *(f"{site.noise_multiplier:g}" for site in sites))
    table.add_row("sampling rate", *(f"{site.sampling_rate:.4g}" for site in sites))
    table.add_row("steps a round", *(f"{site.steps_per_round:,}" for site in sites))
    table.add_row(f"steps in all {plan.federation.rounds:,} rounds", *(f"{site.steps:,}" for site in sites))
    for number in sites[0].epsilon:
        last = number == plan.federation.rounds
        name = "epsilon in all" if last else f"epsilon after round {number:,}"
        table.add_row(name, *(_rounded_up(site.epsilon[number]) for site in sites), end_section=last)
    table.add_row("epsilon if unit = note" if privacy.unit == "patient" else "epsilon of a patient")
    for notes in _NOTES:
        table.add_row(f"  patient of {notes} notes", *(_rounded_up(site.epsilon_by_note[notes]) for site in sites))
    return table


def _rounded_up(epsilon: float) -> str:
    """So that no smaller epsilon is read than was found."""
    return f"{math.ceil(epsilon * 100) / 100:,.2f}" if epsilon < 100 else f"{math.ceil(epsilon):,}"
