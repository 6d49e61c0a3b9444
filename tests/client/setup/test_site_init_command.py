"""`fednotes site init`: a site from a kit, by flags or by answers; whole or not at all."""

import os
import pty
import select
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from client.node.keys import load_key
from client.notes.preview import preview
from client.notes.source import NotesSource
from client.site import Policy, open_site
from common.encoder import load_tokenizer
from common.errors import FednotesError
from common.kit import check_answer, read_answer

Run = Callable[..., str]
MakeKit = Callable[..., Path]
SECRET = "Mrs Zebrafinch"
CSV = f"""subject,kind,body,ward
p1,nursing,"{SECRET} slept well through all of the night",north
p2,surgery,"The wound is dry and clean and heals as it should",south
"""


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    file = tmp_path / "export.csv"
    file.write_text(CSV)
    return file


def refused(run: Callable[[], object]) -> str:
    with pytest.raises(FednotesError) as caught:
        run()
    assert SECRET not in str(caught.value)
    return caught.value.code


def test_flags_make_a_site_for_its_user_alone(site_command: Run, make_kit: MakeKit, csv: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hospital"
    printed = site_command(
        "init", make_kit(), "--to", folder, "--notes", csv, "--text", "body", "--patient", "subject",
        "--category", "kind", "--label-column", "ward", "--max-epsilon", 4, "--max-rounds", 50, "--release-scores",
    )  # fmt: skip
    assert f"{folder}/north.key.json" in printed and "site check" in printed and "site approve" in printed
    assert SECRET not in printed
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("site.key", "site.toml"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["ca.crt", "north.key.json", "site.key", "site.toml"]
    site = open_site(folder)
    assert site.name == "north" and site.config.notes.columns.patient == "subject"
    assert site.config.policy == Policy(
        require_approval=True, require_privacy=True, unit="patient", max_epsilon=4.0, max_rounds=50, release_scores=True
    )
    assert len(site.config.split_key) == 64 and site.coordinator.address == "localhost:8443"
    load_key(site.coordinator.key)
    check_answer(read_answer(folder / "north.key.json"), "north", "ab" * 32)
    assert b"PRIVATE" not in (folder / "north.key.json").read_bytes()


def test_the_notes_can_be_opened_at_once(
    site_command: Run, make_kit: MakeKit, source: NotesSource, tmp_path: Path, bases: dict[str, str]
) -> None:
    folder = tmp_path / "deep" / "hospital"
    site_command("init", make_kit(), "--to", folder, "--notes", source.source, "--allow-no-privacy", "--unit", "note")
    site = open_site(folder)
    assert len(site.notes(load_tokenizer(bases["bert"]))) == 300 and site.cache.is_relative_to(folder)
    assert not site.config.policy.require_privacy and site.config.policy.unit == "note"
    assert not site.config.policy.release_scores  # unless somebody says so


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--notes", "{csv}"], "notes-column"),
        (["--notes", "{csv}", "--text", "body", "--label", "nothing"], "notes-column"),
        (["--notes", "{csv}.gone", "--text", "body"], "notes-missing"),
        (["--notes", "{csv}", "--text", "body", "--query", "SELECT 1"], "notes-source"),
        (["--notes", "sqlite:///{csv}", "--text", "body"], "notes-source"),
        (["--notes", "{csv}", "--text", "body", "--public", "{csv}"], "notes-column"),
        (["--notes", "{csv}", "--text", "body", "--max-epsilon", "-1"], "usage"),
        (["--notes", "{csv}", "--text", "body", "--max-epsilon", "nan"], "usage"),
        (["--notes", "{csv}", "--text", "body", "--unit", "hospital"], "usage"),
        ([], "usage"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_made(
    site_command: Run, make_kit: MakeKit, csv: Path, tmp_path: Path, flags: list[str], code: str
) -> None:
    before = [*sorted(tmp_path.iterdir()), make_kit()]
    line = [flag.format(csv=csv) for flag in flags]
    assert refused(lambda: site_command("init", make_kit(), "--to", tmp_path / "hospital", *line)) == code
    assert sorted(tmp_path.iterdir()) == sorted(before)


def test_nothing_is_written_over(site_command: Run, make_kit: MakeKit, csv: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hospital"
    line = ["init", make_kit(), "--to", folder, "--notes", csv, "--text", "body"]
    site_command(*line)
    key = (folder / "site.key").read_bytes()
    assert refused(lambda: site_command(*line)) == "out-exists"
    assert (folder / "site.key").read_bytes() == key
    assert refused(lambda: site_command(*line[:3], csv, *line[4:])) == "out-exists"


@pytest.mark.parametrize("spoil", ["missing", "text", "member"])
def test_a_kit_is_a_kit(site_command: Run, make_kit: MakeKit, csv: Path, tmp_path: Path, spoil: str) -> None:
    kit = make_kit()
    if spoil == "missing":
        kit.unlink()
    elif spoil == "text":
        kit.write_text("no zip")
    else:
        with zipfile.ZipFile(kit, "a") as archive:
            archive.writestr("../evil.py", "print()")
    wrong = refused(lambda: site_command("init", kit, "--to", tmp_path / "hospital", "--notes", csv, "--text", "body"))
    assert wrong == ("kit-unreadable" if spoil == "missing" else "kit-invalid")
    assert not (tmp_path / "hospital").exists()


def at_terminal(line: list[str], answers: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command at a terminal of its own, and answer each of its questions as it comes."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    seen, pending, deadline = "", list(answers), time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.3)
        if ready:
            try:
                chunk = os.read(ours, 4096)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk.decode()
        elif pending and seen.rstrip(" ").endswith(":"):
            os.write(ours, (pending.pop(0) + "\n").encode())
        elif process.poll() is not None:
            break
    os.close(ours)
    return process.wait(10), seen


def test_the_wizard_asks_for_what_is_missing_and_shows_no_note(
    make_kit: MakeKit, csv: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = tmp_path / "hospital"
    line = [sys.executable, "-m", "fednotes", "site", "init", str(make_kit()), "--to", str(folder)]
    # notes; text (a wrong name, then the guess); patient, category, label, date; public; private, epsilon, scores; make
    answers = [str(csv), "wrong", "", "subject", "kind", "ward", "", "", "n", "6", "y", "y"]
    done, seen = at_terminal(line, answers, environment)
    assert done == 0, seen
    assert "There is no column 'wrong'" in seen and SECRET not in seen and "slept" not in seen
    assert "2 rows" in seen and "subject" in seen
    config = open_site(folder).config
    assert config.notes.columns.model_dump(exclude_none=True) == {
        "text": "body", "patient": "subject", "category": "kind", "label": "ward",
    }  # fmt: skip
    assert config.policy.max_epsilon == 6.0 and not config.policy.require_privacy and config.policy.require_approval
    assert config.policy.release_scores


def test_who_says_no_has_made_nothing(
    make_kit: MakeKit, csv: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = tmp_path / "hospital"
    line = [sys.executable, "-m", "fednotes", "site", "init", str(make_kit()), "--to", str(folder)]
    line += ["--notes", str(csv), "--text", "body", "--max-epsilon", "5"]
    done, seen = at_terminal(line, ["", "n"], environment)
    assert done == 130 and not folder.exists(), seen


def test_a_preview_counts(csv: Path, source: NotesSource, tmp_path: Path) -> None:
    looked = preview(NotesSource(source=str(csv)))
    assert (looked.rows, looked.more, looked.broken) == (2, False, 0)
    assert [(column.name, column.filled, column.distinct) for column in looked.columns] == [
        (name, 2, 2) for name in ("subject", "kind", "body", "ward")
    ]
    assert looked.guess("text") == "body" and looked.guess("patient") is None
    assert preview(source).guess("text") == "text" and preview(source).guess("patient") == "patient"
    broken = tmp_path / "broken.csv"
    broken.write_text(CSV + "one,field\n")
    assert preview(NotesSource(source=str(broken))).broken == 1
