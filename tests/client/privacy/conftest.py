"""Notes that are as bad for privacy as notes can be."""

from collections.abc import Mapping

import pytest
from private_helpers import CATEGORIES, store_of

from client.notes.store import NoteStore
from common.encoder import load_encoder


def adversarial_notes(texts: list[str]) -> list[Mapping[str, str | None]]:
    """Units of one word, all alike; units of one text, all alike; one very long, one of rare tokens and an unknown
    one, one of many notes; and a few like any others, with no patient. The constants below say which is which."""
    units: list[list[str]] = [
        *[["pain"]] * 24,
        *[[" ".join(["pain"] * 30)]] * 8,
        [" ".join(texts[:6])],
        [
            " ☃ ".join(
                [
                    "zyzzyva",
                    "qoph",
                    "xylyl",
                    "jynx",
                    "ovolo",
                    "phlox",
                    "crwth",
                    "vug",
                    "adze",
                    "ytterbium",
                    "kvetch",
                    "oxyphenbutazone",
                ]
            )
        ],
        [" ".join(text.split()[:30]) for text in texts[20:29]],
        *[[" ".join(text.split()[:30])] for text in texts[40:44]],
    ]
    return [
        {
            "text": text,
            "patient": f"p{number}" if number < FIRST_ORDINARY else None,
            "category": CATEGORIES[number % 3] if number % 4 else None,
        }
        for number, unit in enumerate(units)
        for text in unit
    ]


SHORT, IDENTICAL, LONG, RARE, MANY, FIRST_ORDINARY = 0, 24, 32, 33, 34, 35


@pytest.fixture(scope="session")
def adversarial(tmp_path_factory: pytest.TempPathFactory, bases: dict[str, str], texts: list[str]) -> NoteStore:
    return store_of(tmp_path_factory.mktemp("adversarial"), load_encoder(bases["bert"]), adversarial_notes(texts))
