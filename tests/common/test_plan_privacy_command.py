"""`fednotes plan privacy`: the noise, the sampling and epsilon at sites of given sizes, before anything runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from common.cli import app
from common.errors import InputError
from common.plan import load_plan
from common.privacy import epsilon_of
from common.several_notes import several_notes

PLAN = '[study]\nname = "trial"\n[training]\nbatch_size = 64\n[federation]\nrounds = 10\n'
PRIVATE = PLAN + "[privacy]\nepsilon = 3.0\n"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return tmp_path / "study.toml"


def ask(study: Path, plan: str, sizes: str, *more: str) -> Result:
    study.write_text(plan)
    done = CliRunner().invoke(app, ["privacy", str(study), "--notes-per-site", sizes, *more])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def answer(study: Path, plan: str, sizes: str) -> dict[str, Any]:
    return json.loads(ask(study, plan, sizes, "--json").stdout)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split("[│┃|]", line)[1:-1]]


def test_the_json_says_what_a_plan_gives(study: Path) -> None:
    found = answer(study, PRIVATE, "2500, 12000")
    assert found["hash"] == load_plan(study).hash() and found["study"] == "trial"
    assert found["privacy"] == "differential privacy for each patient: epsilon at most 3 at delta 1e-05"
    assert {key: found[key] for key in ("unit", "delta", "accountant", "rounds")} == {
        "unit": "patient",
        "delta": 1e-5,
        "accountant": "prv",
        "rounds": 10,
    }
    first, second = found["sites"]
    assert first["units"] == 2500 and first["sampling_rate"] == 0.0256
    assert (first["steps_per_round"], first["steps"]) == (40, 400)
    assert (second["steps_per_round"], second["steps"]) == (188, 1880)
    assert second["noise_multiplier"] < first["noise_multiplier"]


def test_the_budget_of_the_plan_is_never_exceeded(study: Path) -> None:
    for accountant in ("prv", "rdp"):
        for site in answer(study, f'{PRIVATE}accountant = "{accountant}"\n', "64,800,2500,12000")["sites"]:
            spent = [site["epsilon"][number] for number in ("1", "3", "5", "8", "10")]
            assert spent == sorted(spent) and 2.9 < spent[-1] <= 3.0
            step = (site["noise_multiplier"], site["sampling_rate"], site["steps"])
            assert spent[-1] == epsilon_of([step], 1e-5, accountant)


def test_patients_with_several_notes_are_told_of(study: Path) -> None:
    (site,) = answer(study, PRIVATE, "2500")["sites"]
    step = (site["noise_multiplier"], site["sampling_rate"], site["steps"])
    assert site["epsilon_by_note"] == {str(notes): several_notes(*step, 1e-5, notes) for notes in (2, 5, 10)}
    assert site["epsilon_by_note"]["2"] > 6


def test_a_plan_by_noise(study: Path) -> None:
    plan = (
        PLAN.replace("batch_size", "steps_per_round = 5\nbatch_size")
        + '[privacy]\nnoise_multiplier = 0.9\nunit = "note"\n'
    )
    (site,) = answer(study, plan, "1000")["sites"]
    assert site["noise_multiplier"] == 0.9 and site["steps_per_round"] == 5 and site["steps"] == 50
    assert site["epsilon"]["10"] == epsilon_of([(0.9, 0.064, 50)], 1e-5)
    shown = ask(study, plan, "1000").stdout
    assert "for each note: noise multiplier 0.9" in shown and "1,000 notes" in shown and "epsilon of a patient" in shown


@pytest.mark.parametrize(
    ("rounds", "told"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, 3, 4, 5]), (100, [1, 25, 50, 75, 100])]
)
def test_epsilon_is_told_after_quarters_of_the_rounds(study: Path, rounds: int, told: list[int]) -> None:
    plan = PRIVATE.replace("rounds = 10", f"rounds = {rounds}").replace("epsilon = 3.0", "noise_multiplier = 2.0")
    (site,) = answer(study, plan, "2500")["sites"]
    assert [int(number) for number in site["epsilon"]] == told


def test_the_table_reads_in_a_pipe(study: Path) -> None:
    shown = ask(study, PRIVATE, "2500,12000").stdout
    lines = shown.splitlines()
    assert lines[0].startswith("trial: differential privacy for each patient: epsilon at most 3 at delta 1e-05.")
    assert max(len(line) for line in lines[1:]) <= 80 and "\x1b" not in shown
    rows = {row[0]: row[1:] for row in map(cells, lines[1:]) if row}
    first, second = answer(study, PRIVATE, "2500,12000")["sites"]
    assert rows["a site with"] == ["2,500 patients", "12,000 patients"]
    assert rows["noise multiplier"] == [str(first["noise_multiplier"]), str(second["noise_multiplier"])]
    assert rows["sampling rate"] == ["0.0256", "0.005333"]
    assert rows["steps a round"] == ["40", "188"] and rows["steps in all 10 rounds"] == ["400", "1,880"]
    assert [name for name in rows if "epsilon" in name] == [
        "epsilon after round 1",
        "epsilon after round 3",
        "epsilon after round 5",
        "epsilon after round 8",
        "epsilon in all",
        "epsilon if unit = note",
    ]
    for name, number in (("epsilon after round 3", "3"), ("epsilon in all", "10")):
        for text, site in zip(rows[name], (first, second), strict=True):
            assert site["epsilon"][number] <= float(text) < site["epsilon"][number] + 0.0101
    assert float(rows["patient of 10 notes"][0]) >= first["epsilon_by_note"]["10"]


def test_many_sites_stand_in_several_tables(study: Path) -> None:
    plan = PRIVATE.replace("epsilon = 3.0", "noise_multiplier = 2.0")
    shown = ask(study, plan, "100,2000,30000,400000000,2000").stdout
    assert shown.count("a site with") == 2
    for size in ("100", "2,000", "30,000", "400,000,000"):
        assert shown.count(f" {size} patients ") == 1
    assert max(len(line) for line in shown.splitlines() if line.startswith("│")) <= 80


def test_a_delta_that_is_too_large_is_told(study: Path) -> None:
    plan = PRIVATE.replace("batch_size", "steps_per_round = 5\nbatch_size")
    found = answer(study, plan, "100000,100001")
    assert [site["delta_too_large"] for site in found["sites"]] == [False, True]
    shown = ask(study, plan, "100000,130000").stdout.splitlines()
    assert [line for line in shown if "delta-too-large" in line] == [
        "Delta 1e-05 is above 1 / units where 130,000 train: a study leaves such a site out (delta-too-large). "
        "Lower privacy.delta, best to 8e-07 or less."
    ]


def test_a_plan_without_privacy_says_so(study: Path) -> None:
    assert ask(study, PLAN, "2000").stdout == "no differential privacy\n"
    assert answer(study, PLAN, "2000") == {"privacy": "no differential privacy"}


@pytest.mark.parametrize("sizes", ["0,x", "0", "-5", "", ",", "2000,", "1.5", "2e3", "2000;3000", "٣", "9" * 13])
@pytest.mark.parametrize("plan", [PLAN, PRIVATE])
def test_a_bad_list_is_refused(study: Path, sizes: str, plan: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(study, plan, sizes)
    assert caught.value.code == "usage" and "--notes-per-site" in caught.value.message
    assert "2000,12000" in caught.value.next_step


def test_a_budget_that_no_noise_keeps_is_refused(study: Path) -> None:
    with pytest.raises(InputError) as caught:
        ask(study, PRIVATE.replace("3.0", "0.001"), "2000")
    assert caught.value.code == "epsilon-too-small"


def test_the_sizes_must_be_given(study: Path) -> None:
    study.write_text(PRIVATE)
    done = CliRunner().invoke(app, ["privacy", str(study)])
    assert done.exit_code == 2 and "--notes-per-site" in done.output


def test_help_says_what_is_counted_and_has_examples() -> None:
    shown = " ".join(CliRunner().invoke(app, ["privacy", "--help"]).output.replace("│", " ").split())
    assert "notes where privacy.unit = note" in shown and "fednotes plan privacy study.toml --notes-per-site" in shown


def test_the_other_commands_say_the_guarantee(study: Path) -> None:
    study.write_text(PRIVATE)
    words = load_plan(study).privacy_words
    assert words in CliRunner().invoke(app, ["check", str(study)]).output
    assert json.loads(CliRunner().invoke(app, ["check", str(study), "--json"]).output)["privacy"] == words
    study.write_text(PLAN)
    assert "trial, no differential privacy." in CliRunner().invoke(app, ["check", str(study)]).output
