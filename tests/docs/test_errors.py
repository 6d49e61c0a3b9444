"""docs/errors.md and the code name the same error codes."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
EXIT_CODES = {"InputError": 2, "MachineError": 3, "StudyError": 4}
RAISERS = {*EXIT_CODES, "FednotesError", "error_reply"}


def raised() -> dict[str, set[str]]:
    """Every code in the sources, with the names of what carries it."""
    found: dict[str, set[str]] = {}
    for top in ("fednotes.py", "common", "client", "server", "simulations"):
        path = ROOT / top
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args:
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    if name in RAISERS and isinstance(node.args[0], ast.Constant):
                        found.setdefault(str(node.args[0].value), set()).add(name)
    return found


def documented() -> dict[str, str]:
    """Every code on the page, with the title of the section that it is in."""
    entries: dict[str, str] = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE):
        for code in re.findall(r"^\| `([a-z-]+)` \|", section, flags=re.MULTILINE):
            assert code not in entries, f"{code} has two entries"
            entries[code] = section.splitlines()[0]
    return entries


def test_every_code_has_an_entry_and_no_entry_is_stale() -> None:
    assert sorted(documented()) == sorted(raised())


def test_every_entry_stands_under_its_exit_code() -> None:
    titles = documented()
    for code, raisers in raised().items():
        for exit_code in {EXIT_CODES[name] for name in raisers if name in EXIT_CODES}:
            assert f"exit code {exit_code}" in titles[code], code


def test_every_entry_says_what_happened_and_what_to_do() -> None:
    for line in re.findall(r"^\| `[a-z-]+` \|.*$", PAGE, flags=re.MULTILINE):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert len(cells) == 3 and all(cells), line
