"""Markdown in which a name can do nothing: whatever a template puts in is plain words."""

import re
import unicodedata
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
_MARKS = re.compile(r"[\\`*\[\]<>|~$&@]|(?<!\w)_|_(?!\w)|://|(?<=www)\.|(?<=WWW)\.")


def plain(value: object) -> str:
    """A value as one line of Markdown that has no meaning but its letters: entities are never read as marks."""
    text = "".join(" " if unicodedata.category(letter).startswith(("C", "Z")) else letter for letter in str(value))
    return _MARKS.sub(lambda match: "".join(f"&#{ord(letter)};" for letter in match[0]), " ".join(text.split()))


def _finalized(value: object) -> str:
    return value if isinstance(value, Markup) else plain(value)


def render(template: str, **values: object) -> str:
    """A template of this folder; each value in it goes through `plain`, but what a macro has made of such values, which
    it marks with `safe`."""
    return re.sub(r"\n{3,}", "\n\n", _environment().get_template(template).render(values)).strip() + "\n"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=False,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
