"""The command as a person uses it: what it prints, what it leaves, and what it says when something is wrong."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console
from safetensors.numpy import load_file
from transformers import AutoModel

from client.notes.source import Columns, NotesSource
from common.plan import StudyPlan
from common.results import NO_DP, ModelName, PrivacySpent, Round, SiteRound, Summary
from fednotes import app
from server.display import Display
from simulations.cli import _say
from simulations.run_folder import Simulation
from simulations.setup import Wish
from simulations.synthetic_notes import write_jsonl
from simulations.table.plan import is_table
from tests.simulations.conftest import Fednotes

PlanFile = Callable[..., Path]
SECRET = "Zygomorphic-4711"


def test_compare_leaves_all_that_it_promises(fednotes: Fednotes, plan_file: PlanFile, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "notes.jsonl.gz", notes=1200, hospitals=3)
    run = tmp_path / "run"
    done = fednotes(
        "compare",
        plan_file(evaluation={"shots": [4]}),
        "--notes",
        "notes.jsonl.gz",
        "--split-by",
        "site",
        "--out",
        run,
        "--embedding-map",
        "pca",
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 15
    assert NO_DP in done.stderr
    assert "Traceback" not in done.stderr
    summary = Summary.model_validate_json((run / "summary.json").read_text())
    assert summary.status == "finished"
    assert [r.number for r in summary.rounds] == [0, 1, 2]
    assert len(summary.sites) == 3
    scored = {(s.site, s.model) for s in summary.scores}
    sites = {s.site for s in summary.scores}
    assert sites | {n.site for n in summary.not_scored} == {s.name for s in summary.sites}
    assert scored == {(s, m) for s in sites for m in get_args(ModelName)}
    assert {c.against for c in summary.comparisons} == {"base", "local-only", "centralised", "tf-idf"}
    report = (run / "report.html").read_text()
    assert NO_DP in report
    assert NO_DP in (run / "model" / "README.md").read_text().lower()
    model = AutoModel.from_pretrained(run / "model")
    newest = load_file(max((run / "checkpoints").glob("round-*")) / "shared.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert (model.state_dict()[name].numpy() == newest[f"bert.{name}"]).all()


def _said_at_the_end(epsilons: list[float], **changes: Any) -> list[str]:
    """The last lines of a run whose sites have spent so much; without any, of one that was not private."""
    spent = {"unit": "patient", "units": 412, "noise_multiplier": 1.1, "sample_rate": 0.04, "steps": 9, "delta": 1e-5}
    sites = [
        SiteRound(site=f"site {i}", state="returned", privacy=PrivacySpent.model_validate(spent | {"epsilon": epsilon}))
        for i, epsilon in enumerate(epsilons)
    ]
    begun = {"started": "2026-05-04T09:12:03Z", "finished": "2026-05-04T09:31:47Z", "seconds": 9.0, "versions": {}}
    model = {"objective": "mlm", "seed": 1, "engine": "inprocess", "base": "b", "parameters": 9, "shared_parameters": 9}
    found = {"sites": [], "left_out_sites": {}, "scores": [], "comparisons": [], "not_scored": []}
    rounds = [Round(number=1, attempts=1, seconds=1.0, sites=sites, held_out={})]
    run = {"study": "a", "status": "finished", "plan_hash": "0", "planned_rounds": 1, "rounds": rounds}
    console = Console(file=io.StringIO(), width=200)
    _say(Summary.model_validate(begun | model | found | run | changes), Path("run"), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_private_run_ends_with_what_it_spent() -> None:
    guarantee = "differential privacy for each patient: epsilon at most 8 at delta 1e-05"
    lines = _said_at_the_end([7.9, 7.96, 7.93], privacy=guarantee, epsilon_cap=8.0)
    assert lines[0].endswith(f"sites, {guarantee}.")
    assert lines[1] == "privacy: each patient, epsilon 7.90 to 7.96 spent of 8 at delta 1e-05 over 3 sites"
    assert "The held-out loss was withheld." in lines[2]
    assert not any(NO_DP in line for line in lines)
    plain = _said_at_the_end([])
    assert plain[0].endswith(f"sites, {NO_DP}.") and not any("epsilon" in line for line in plain)


def test_public_text_is_read_like_the_notes(
    plan_file: PlanFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Wish] = []

    def simulate(plan: StudyPlan, wish: Wish, display: Display) -> Simulation:
        asked.append(wish)
        return Simulation(tmp_path)

    monkeypatch.setattr("simulations.federation.simulate", simulate)
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "wiki.jsonl"):
        (tmp_path / name).write_text("body,who")
    flags = ["--notes", "a.csv", "--text-column", "body", "--patient-column", "who", "--quiet"]
    for public in ([], ["--public", "wiki.jsonl"]):
        app(["simulate", str(plan_file()), *flags, *public], standalone_mode=False)
    assert asked[0].public is None
    # the patients' column is that of the notes alone
    assert asked[1].public == NotesSource(source="wiki.jsonl", columns=Columns(text="body"))
    assert asked[1].notes == NotesSource(source="a.csv", columns=Columns(text="body", patient="who"))


def test_json_is_the_summary_and_nothing_else(apart: Fednotes, plan_file: PlanFile, notes_file: str) -> None:
    done = apart("simulate", plan_file(), "--notes", notes_file, "--sites", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert Summary.model_validate(json.loads(done.stdout)).engine == "inprocess"
    assert done.stderr == ""


def test_quiet_prints_nothing(fednotes: Fednotes, plan_file: PlanFile, notes_file: str) -> None:
    done = fednotes("simulate", plan_file(), "--notes", notes_file, "--sites", "2", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_argument_is_the_synthetic_corpus(fednotes: Fednotes, plan_file: PlanFile, tmp_path: Path) -> None:
    plan = plan_file(evaluation={"shots": []})
    done = fednotes("simulate", plan, "--out", tmp_path / "run", "--sites", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["sites"]) == 2
    assert "simulated" in (tmp_path / "run" / "report.html").read_text()


def _notes(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def _rows(count: int, **more: str) -> bytes:
    notes = [
        {"text": f"{SECRET} note number {i} with some more words of no meaning {i * 7919}"} | more for i in range(count)
    ]
    return "\n".join(json.dumps(note) for note in notes).encode()


BAD_NOTES = {
    "missing file": (lambda tmp: tmp / "none.jsonl", [], "notes-missing"),
    "empty file": (lambda tmp: _notes(tmp, "empty.csv", b""), [], "notes-empty"),
    "wrong column": (lambda tmp: _notes(tmp, "a.jsonl", _rows(50)), ["--text-column", "body"], "notes-column"),
    "wrong encoding": (
        lambda tmp: _notes(tmp, "a.csv", b"text\n" + "r\u00e9sum\u00e9 \u00e9tude\n".encode("latin-1") * 50),
        [],
        "notes-broken-row",
    ),
    "note of 5 MB": (
        lambda tmp: _notes(tmp, "a.jsonl", json.dumps({"text": "word " * 1_000_000}).encode()),
        [],
        "notes-broken-row",
    ),
    "binary junk": (lambda tmp: _notes(tmp, "a.csv", bytes(range(256)) * 400), [], "notes-binary"),
    "no site with enough": (lambda tmp: _notes(tmp, "a.jsonl", _rows(12)), [], "too-few-notes"),
}


@pytest.mark.parametrize("case", BAD_NOTES)
def test_bad_notes_are_refused_and_leave_nothing(
    case: str, fednotes: Fednotes, plan_file: PlanFile, tmp_path: Path
) -> None:
    make, flags, code = BAD_NOTES[case]
    out = tmp_path / "out"
    done = fednotes("simulate", plan_file(), "--notes", make(tmp_path), *flags, "--out", out)
    assert done.returncode == 2, done.stderr
    assert f"error ({code})" in done.stderr
    assert SECRET not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_plan_with_five_mistakes(apart: Fednotes, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[study]\nname = "A b"\n[training]\nbatch_size = 0\nrate = 1\n[federation]\nrounds = 0\nstrategy = "x"\n'
    )
    done = apart("simulate", plan, "--out", tmp_path / "out")
    assert done.returncode == 2
    for path in ("study.name", "training.batch_size", "training.rate", "federation.rounds", "federation.strategy"):
        assert path in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("base", ["packaged:none", "/no/such/folder", "no-such-organisation/no-such-model"])
def test_an_unknown_base(base: str, fednotes: Fednotes, plan_file: PlanFile, notes_file: str, tmp_path: Path) -> None:
    plan = plan_file(encoder={"base": base, "max_length": 32})
    done = fednotes("simulate", plan, "--notes", notes_file, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "base-unknown" in done.stderr
    assert base in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_base_that_reads_less_than_the_plan(fednotes: Fednotes, plan_file: PlanFile, make_plan: Callable) -> None:
    base = make_plan().encoder.base
    done = fednotes("simulate", plan_file(encoder={"base": base, "max_length": 4096}))
    assert done.returncode == 2
    assert "encoder.max_length = 4096" in done.stderr


def test_out_must_be_free_and_writable(
    fednotes: Fednotes, plan_file: PlanFile, notes_file: str, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = fednotes("simulate", plan_file(), "--notes", notes_file, "--out", tmp_path / "full")
    assert (done.returncode, "out-exists" in done.stderr) == (2, True)
    done = fednotes("simulate", plan_file(), "--notes", notes_file, "--out", tmp_path / "full" / "file" / "run")
    assert (done.returncode, "unwritable" in done.stderr) == (3, True)


def test_a_full_disk_is_said_and_the_run_can_go_on(
    fednotes: Fednotes, command: list[str], plan_file: PlanFile, notes_file: str, tmp_path: Path, environment: dict
) -> None:
    """RLIMIT_FSIZE stands for a disk that fills: a write beyond it fails in the same place, with EFBIG."""
    import subprocess

    run = tmp_path / "run"
    assert (
        fednotes("simulate", plan_file(), "--notes", notes_file, "--sites", 2, "--quiet").returncode == 0
    )  # cached now
    line = ["bash", "-c", 'ulimit -f 20; exec "$@"', "limited", *command, "simulate", str(plan_file())]
    line += ["--notes", notes_file, "--sites", "2", "--out", str(run)]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 3, done.stderr
    assert "disk-full" in done.stderr
    assert not list(run.glob("checkpoints/*"))
    end = fednotes("simulate", "--resume", run, "--json")
    assert end.returncode == 0, end.stderr
    assert json.loads(end.stdout)["status"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sites", "2", "--split-by", "site", "--notes", "x.csv"], "two ways"),
        (["--split-by", "site"], "needs --notes"),
        (["--resume", "nowhere"], "not the folder of a run"),
        (["--resume", "nowhere", "--sites", "2"], "Give --resume alone"),
        (["--notes", "sqlite:///x.db"], "query"),
        (["--public", "site.toml"], "a file of public text"),
        (["--resume", "nowhere", "--public", "x.csv"], "Give --resume alone"),
    ],
)
def test_flags_that_do_not_go_together(arguments: list[str], message: str, fednotes: Fednotes, tmp_path: Path) -> None:
    done = fednotes("simulate", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.glob("nowhere*"))


def test_errors_are_json_too(fednotes: Fednotes, tmp_path: Path) -> None:
    done = fednotes("plan", "check", tmp_path / "none.toml", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "plan-unreadable"


def test_a_study_that_cannot_make_a_round_stops_with_its_reasons(
    fednotes: Fednotes, plan_file: PlanFile, notes_file: str, tmp_path: Path
) -> None:
    plan = plan_file(federation={"rounds": 2, "min_sites": 9})
    done = fednotes("simulate", plan, "--notes", notes_file, "--split-by", "site", "--out", tmp_path / "run")
    assert done.returncode == 4
    assert "3 of 3 sites can take part; the plan asks for 9" in done.stderr


@pytest.mark.parametrize("name", ["simulate", "compare", "plan check", "plan show", "notes inspect"])
def test_help_has_examples(name: str, fednotes: Fednotes) -> None:
    done = fednotes(*name.split(), "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout and f"fednotes {name}" in done.stdout


def test_shipped_studies_are_valid(fednotes: Fednotes) -> None:
    studies = Path(__file__).parents[2] / "simulations" / "studies"
    for study in studies.glob("*.toml"):
        if not is_table(study):  # tests/simulations/test_table.py has the others
            assert fednotes("plan", "check", study).returncode == 0
