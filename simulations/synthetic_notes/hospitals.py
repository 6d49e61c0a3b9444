"""The hospitals: how much each writes, of what, and in which house style."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .note_types import NOTE_TYPES
from .problems import PROBLEMS

NAMES = (
    *("northgate", "millbrook", "eastholme", "fairwater", "kingsmoor", "stonebridge", "ashdown", "lakeside"),
    *("highfield", "westbourne", "oakhurst", "riverton", "southmere", "thornfield", "elmwood", "brackenhill"),
)
LARGEST_TO_SMALLEST = 3.5


@dataclass(frozen=True)
class Layout:
    """How a hospital sets out a note: its headings, what parts its sections, and what begins and parts list items."""

    heading: Callable[[int, str], str]
    between: str
    bullet: str
    after_item: str
    short: bool = False


LAYOUTS = (
    Layout(lambda _, heading: f"{heading.upper()}:\n", "\n\n", "- ", "\n"),
    Layout(lambda _, heading: f"{heading}: ", " ", "", "; ", short=True),
    Layout(lambda _, heading: f"{heading.title()}\n", "\n\n", "", "\n"),
    Layout(lambda number, heading: f"{number}. {heading.capitalize()}\n", "\n", "   * ", "\n"),
)
DATES = ("%d/%m/%Y", "%d.%m.%y", "%Y-%m-%d", "%d-%m-%Y", "%d/%m/%y")


@dataclass(frozen=True)
class Hospital:
    """A hospital's size, mix and habits; rates are chances per section, per abbreviable word or per longer word."""

    name: str
    size: float
    specialties: dict[str, float]
    note_types: dict[str, float]
    layout: Layout
    date_format: str
    dialect: int
    detail: float
    titled: float
    abbreviates: float
    misspells: float


def _spread(low: float, high: float, count: int, rng: Random) -> list[float]:
    """As many values between the two as there are hospitals, in any order: so that hospitals are sure to differ."""
    values = [low * (high / low) ** (rank / max(1, count - 1)) for rank in range(count)]
    rng.shuffle(values)
    return values


def hospitals_of(count: int, rng: Random) -> list[Hospital]:
    """The first `count` hospitals."""
    if not 1 <= count <= len(NAMES):
        raise ValueError(f"there are 1 to {len(NAMES)} hospitals, not {count}")
    size = _spread(1, LARGEST_TO_SMALLEST, count, rng)
    detail = _spread(0.8, 1.1, count, rng)
    titled = _spread(0.15, 0.6, count, rng)
    abbreviates = _spread(0.08, 0.85, count, rng)
    misspells = _spread(0.002, 0.03, count, rng)
    return [
        Hospital(
            name=NAMES[i],
            size=size[i],
            specialties={specialty: 0.4 + rng.gammavariate(2, 0.5) for specialty in PROBLEMS},
            note_types={name: kind.share * rng.uniform(0.4, 1.6) for name, kind in NOTE_TYPES.items()},
            layout=LAYOUTS[i % len(LAYOUTS)],
            date_format=DATES[i % len(DATES)],
            dialect=i,
            detail=detail[i],
            titled=titled[i],
            abbreviates=abbreviates[i],
            misspells=misspells[i],
        )
        for i in range(count)
    ]
