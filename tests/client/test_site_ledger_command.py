"""`fednotes site`: what was spent and what left, with nothing in it that must stay secret."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import fednotes as command_line
from client.ledger import SECRET_FILE, Ledger
from client.receipt import write_receipt
from common.errors import InputError, MachineError
from common.privacy import epsilon_of
from tests.client.test_ledger import OTHER, charged, lines_of, put
from tests.client.test_receipt import left, receipt

Fednotes = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "site.toml").write_text("")
    return tmp_path / "site"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The command in this process: what it prints; a foreseen failure comes through."""
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: object) -> str:
        done = CliRunner().invoke(command_line.app, ["site", *map(str, arguments)], catch_exceptions=False)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return invoke


Run = Callable[..., str]


def test_nothing_was_spent(site: Path, run: Run) -> None:
    assert "Nothing was spent" in run("ledger", site)
    assert json.loads(run("ledger", site, "--json")) == {"entries": [], "spent": []}
    assert "Nothing has left" in run("receipts", site)
    assert json.loads(run("receipts", site, "--json")) == []
    assert [file.name for file in site.iterdir()] == ["site.toml"]


def test_another_folder_is_not_said_to_have_spent_nothing(tmp_path: Path, run: Run) -> None:
    for command in ("ledger", "receipts"):
        with pytest.raises(InputError) as caught:
            run(command, tmp_path / "nowhere")
        assert caught.value.code == "site-missing"


def test_the_table_has_what_was_charged(site: Path, run: Run) -> None:
    left(site, 1, 2)
    (last,) = charged(site, 1, run=OTHER, study="second", units=1234)
    printed = run("ledger", site)
    for words in ("first aa11", "second bb22", "1,234 patients", "1.1", "0.05", f"{last.epsilon_total:.3f}"):
        assert words in printed
    assert f"Spent for each patient: epsilon {last.epsilon_total:.3f} in all at delta 1e-05, over 2 studies." in printed
    assert "The chain is whole: 3 entries." in printed and "note" not in printed


def test_patients_are_not_protected_by_what_protects_notes(site: Path, run: Run) -> None:
    charged(site, 1, 2)
    charged(site, 1, run=OTHER, study="second", unit="note")
    spent = {one["unit"]: one for one in json.loads(run("ledger", site, "--json"))["spent"]}
    patients, both = [(1.1, 0.05, 40)], [(1.1, 0.05, 60)]
    assert spent["patient"]["epsilon"] == pytest.approx(epsilon_of(patients, 1e-5, "rdp"))
    assert spent["note"]["epsilon"] == pytest.approx(epsilon_of(both, 1e-5, "rdp")) == Ledger(site).total()
    assert (spent["patient"]["studies"], spent["note"]["studies"]) == (1, 2)
    printed = run("ledger", site)
    assert "Not counted: 1 study that protected notes only" in printed and "for each note: epsilon" in printed


def test_neither_nonce_nor_secret_is_printed(site: Path, run: Run) -> None:
    left(site, 1, 2)
    secret, nonces = (site / SECRET_FILE).read_bytes().hex(), [entry.nonce for entry in Ledger(site).entries()]
    for arguments in (["ledger"], ["ledger", "--json"], ["receipts"], ["receipts", "--json"]):
        printed = run(arguments[0], site, *arguments[1:])
        assert not [hidden for hidden in [secret, *nonces] if hidden[:8] in printed] and "nonce" not in printed
    entries = json.loads(run("ledger", site, "--json"))["entries"]
    assert [entry["hash"] for entry in entries] == [entry.hash for entry in Ledger(site).entries()]


def test_what_left_is_printed_with_its_noise(site: Path, run: Run) -> None:
    write_receipt(site, receipt(kind="describe", round=0, noise=None, tensors=[], bytes=0, update_norm=None))
    write_receipt(site, receipt(round=3, bytes=123456, values={"loss": {"value": 2.5, "noised": True}}))
    write_receipt(site, receipt(round=4, kind="error", values={"[red]code": {"value": "diverged", "noised": False}}))
    printed = run("receipts", site)
    for words in ("describe", "123,456", "1.1 x 20 steps", "loss: 2.5, with noise", "units: 100, exact", "[red]code"):
        assert words in printed
    assert [one["round"] for one in json.loads(run("receipts", site, "--json"))] == [0, 3, 4]
    assert [one["round"] for one in json.loads(run("receipts", site, "--json", "--round", 3))] == [3]
    assert "in round 9" in run("receipts", site, "--round", 9)


@pytest.mark.parametrize("spoil", [lambda lines: [*lines[:1], "{}"], lambda lines: lines[:1]])
def test_damage_is_said_before_anything_is_printed(site: Path, run: Run, spoil: Callable[[list[str]], Any]) -> None:
    left(site, 1, 2)
    put(site, spoil(lines_of(site)))
    with pytest.raises(MachineError) as caught:
        run("ledger", site)
    assert caught.value.code == "ledger-damaged"


def test_the_exit_codes(fednotes: Fednotes, site: Path) -> None:
    charged(site, 1)
    assert fednotes("site", "ledger", site).returncode == 0
    put(site, ["x"])
    done = fednotes("site", "ledger", site, "--json")
    assert done.returncode == 3 and json.loads(done.stdout)["error"]["code"] == "ledger-damaged"


def test_help_does_not_wait() -> None:
    heavy = "import sys, client.cli; sys.exit(bool({'torch', 'numpy', 'opacus', 'client.ledger'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0
