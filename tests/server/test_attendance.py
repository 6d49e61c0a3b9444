"""A site that keeps failing is asked less and less often, and is back in the round after it answers."""

import pytest

from common.results import Round, SiteRound
from server.attendance import RESTS, rest

STATES = {"+": ("returned", ""), "-": ("left-out", "no reply in time"), "z": ("left-out", RESTS)}


def rounds(history: str) -> list[Round]:
    """Round 0, and one for each sign: + returned, - failed, z rested, . not part of the study yet."""
    found = [Round(number=0, attempts=1, seconds=1.0, sites=[], held_out={})]
    for number, sign in enumerate(history, 1):
        sites = [SiteRound(site="other", state="returned")]
        if sign != ".":
            state, reason = STATES[sign]
            sites.append(SiteRound(site="north", state=state, reason=reason))  # type: ignore[arg-type]
        found.append(Round(number=number, attempts=1, seconds=1.0, sites=sites, held_out={}))
    return found


@pytest.mark.parametrize(
    ("history", "left"),
    [
        ("", 0),
        ("+", 0),
        ("-", 0),
        ("--", 1),
        ("+-+-", 0),
        ("--z", 0),
        ("--z-", 2),
        ("--z-z", 1),
        ("--z-zz-", 4),
        ("--z-zz+", 0),
        ("--z-zz+-", 0),
        ("..--", 1),
        ("-" * 9, 8),
        ("-" * 20, 8),
    ],
)
def test_rest(history: str, left: int) -> None:
    assert rest(rounds(history), "north") == left and rest(rounds(history), "other") == 0


def test_a_site_that_never_answers_costs_few_rounds() -> None:
    history = ""
    for _ in range(60):
        history += "z" if rest(rounds(history), "north") else "-"
    assert history.count("-") == 10 and "z" * 9 not in history
