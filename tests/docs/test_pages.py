"""What the pages say can be done, can be done; what they point at is there; the picture is the one of its text."""

import html
import re
import shlex
from pathlib import Path

import click
import pytest
from typer.main import get_command

import fednotes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def commands(page: Path) -> list[list[str]]:
    """Every command of ours on a page: in blocks of shell, and in backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:fednotes|make) [^`]+)`", text)
    words = [shlex.split(line, comments=True) for line in lines]
    return [[part.removeprefix(".venv/bin/") for part in line] for line in words if line]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_exists_with_its_flags(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            assert all(word in targets for word in words[1:] if "=" not in word), words
        elif words[0] == "fednotes":
            command, rest = get_command(fednotes.app), words[1:]
            while isinstance(command, click.Group):
                if command.invoke_without_command and not (rest and rest[0] in command.commands):
                    break
                assert rest and rest[0] in command.commands, words
                command, rest = command.commands[rest[0]], rest[1:]
            known = {flag for option in command.params for flag in option.opts} | {"--help"}
            assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, words


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_in_the_repository_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_the_picture_is_drawn_from_its_text() -> None:
    """Compares the words: `make diagram` needs Graphviz, which the tests do not ask for."""
    source = (ROOT / "docs" / "architecture.dot").read_text(encoding="utf-8")
    labels = [quoted or marked for quoted, marked in re.findall(r'label=(?:"(.*?)"|<(.*?)>[,;\]]?\s*[;,\n\]])', source)]
    written = {part.strip() for label in labels for part in re.split(r"\\n|<.*?>", label) if part.strip()}
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    drawn = {html.unescape(text).strip() for text in re.findall(r"<text[^>]*>(.*?)</text>", picture)}
    assert written and written == drawn
