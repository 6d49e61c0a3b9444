"""Counts of notes and patients as a release prints them: none below the floor."""

import re

from common.results import FLOOR

_OF_NOTES = re.compile(r"\b(\d+)(?= (?:[\w-]+ ){0,3}(?:notes?|patients?)\b)")


def number(count: int) -> str:
    return f"{count:,}" if count >= FLOOR else f"fewer than {FLOOR}"


def floored(sentence: str) -> str:
    """A reason that the run gives, such as "It has 7 training notes", without such a count."""
    return _OF_NOTES.sub(lambda match: match[0] if int(match[1]) >= FLOOR else number(0), sentence)
