"""The rule that shapes the house, and other things that hold for the tree as a whole."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What touches notes and what runs at the coordinator never meet but through the contract, common.
MAY_IMPORT = {
    "common": {"common"},
    "client": {"client", "common"},
    "server": {"server", "common"},
    "simulations": {"simulations", "client", "server", "common"},
    "fednotes": {"simulations", "client", "server", "common"},
}
OUTSIDE = {"tests", "benchmarks"}  # nothing that is installed may need these
MOST_LINES = 400
TABLES = {"simulations/synthetic_notes/problems.py"}  # data, not code
# In pieces, so that this file passes its own check.
REGISTRIES = ["py" + "pi.org", "python" + "hosted.org", "download." + "pytorch.org", "conda." + "anaconda.org"]
OF_ONE_MACHINE = re.compile(r"(?<![\w.])/(" + "work" + "|root" + r")/")


def sources(package: str) -> list[Path]:
    return [ROOT / "fednotes.py"] if package == "fednotes" else sorted((ROOT / package).rglob("*.py"))


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import, wherever it stands: in a function and for type checkers alone, too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = file.relative_to(ROOT).parts[: -node.level] if node.level else ()
            assert not node.level or folder, f"{file}:{node.lineno} imports from above the tree"
            yield node.lineno, folder[0] if folder else str(node.module).partition(".")[0]


def tree() -> list[Path]:
    """The files that belong to the project: tracked by git, or about to be."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_each_part_imports_only_what_it_may(package: str) -> None:
    ours = set(MAY_IMPORT) | OUTSIDE
    broken = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sources(package)
        for line, name in imported(file)
        if name in ours - MAY_IMPORT[package]
    ]
    assert broken == []


def test_nothing_is_imported_by_a_name_made_at_run_time() -> None:
    """The rule above reads import statements; nothing may go round them."""
    broken = [
        f"{file.relative_to(ROOT)}:{number}"
        for package in MAY_IMPORT
        for file in sources(package)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if "import_module(" in line or "__import__(" in line
    ]
    assert broken == []


def test_the_import_rule_sees_hidden_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "client" / "deep").mkdir(parents=True)
    file = tmp_path / "client" / "deep" / "one.py"
    file.write_text(
        "import typing\nif typing.TYPE_CHECKING:\n    import server.rounds as r\n"
        "def f():\n    from server import app\n    from . import two\n    from ..notes import three\n"
    )
    assert [name for _, name in sorted(imported(file))] == ["typing", "server", "server", "client", "client"]


def test_the_readme_names_every_folder_of_code() -> None:
    table = re.findall(r"^\| `([a-z]+)/` \|", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    folders = {path.relative_to(ROOT).parts[0] for path in tree() if path.suffix == ".py" and path.parent != ROOT}
    assert set(table) == folders | {"docs"}


def test_the_tests_mirror_the_tree() -> None:
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("*/test_*.py")}
    of_the_whole = {"audits", "chaos", "deployment"}  # real servers together, and attacks on them
    assert all((ROOT / name).is_dir() for name in folders - of_the_whole)


def test_no_file_is_too_long_to_read() -> None:
    files = [file for package in MAY_IMPORT for file in sources(package)]
    lines = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name for name, count in lines.items() if count > MOST_LINES} <= TABLES


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in tree():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {name}" for name in REGISTRIES if name in text]
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in OF_ONE_MACHINE.finditer(text)]
    assert found == []


def test_constraints_pin_exact_versions_of_no_one_build() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert "torch==2.13.0" in pins and any(pin.startswith("flwr==1.41.") for pin in pins)
