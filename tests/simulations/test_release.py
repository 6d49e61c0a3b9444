"""From a plan with a memorisation check to a release, as a user does it; and a site that says no."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForMaskedLM

from common.results import Summary

Fednotes = Callable[..., subprocess.CompletedProcess[str]]
PlanFile = Callable[..., Path]
RELEASE = {"canaries": 8, "repeats": 2}


def simulate(fednotes: Fednotes, plan: Path, notes: str, out: Path, *more: str) -> Summary:
    done = fednotes("simulate", plan, "--notes", notes, "--split-by", "site", "--out", out, "--quiet", *more)
    assert done.returncode == 0, done.stderr
    return Summary.model_validate_json((out / "summary.json").read_text(encoding="utf-8"))


def test_checked_exported_and_refused(
    fednotes: Fednotes, plan_file: PlanFile, notes_file: str, tmp_path: Path, texts: list[str]
) -> None:
    run = tmp_path / "run"
    summary = simulate(fednotes, plan_file(release=RELEASE), notes_file, run)
    assert [one.site for one in summary.memorisation] == [site.name for site in summary.sites]
    for one in summary.memorisation:
        assert one.canaries is not None and (one.canaries.planted, one.canaries.repeats) == (4, 2), one
    assert "Memorisation check after the last round" in (run / "report.html").read_text(encoding="utf-8")

    formats = [f"--format={name}" for name in ("hugging-face", "sentence-transformers", "onnx")]
    done = fednotes("export", run, "--to", "out", *formats, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["difference"] <= 1e-4 and {"onnx/model.onnx", "README.md", "governance.json"} <= set(said["files"])
    assert SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts[:2]).shape == (2, 32)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "out").config.model_type == "bert"
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "3 of 3 sites asked the encoder" in card and "4 x 2 / 4" in card

    # Killed between its last round and the check; meanwhile a site has thought better of it.
    for state in (run / "checkpoints").glob("*/state.json"):
        known = json.loads(state.read_text(encoding="utf-8"))
        state.write_text(json.dumps(known | {"memorisation": []}), encoding="utf-8")
    (run / "report.html").unlink()
    policy = run / "sites" / "northgate" / "site.toml"
    policy.write_text(policy.read_text(encoding="utf-8").replace("[policy]", "[policy]\nmax_exposure = 0.0"), "utf-8")
    resumed = fednotes("simulate", "--resume", run, "--quiet")
    assert resumed.returncode == 0, resumed.stderr
    refused = fednotes("export", run, "--to", "other", "--unfinished", "--json")
    assert refused.returncode == 2 and not (tmp_path / "other").exists()
    error = json.loads(refused.stdout)["error"]
    assert error["code"] == "release-vetoed" and "northgate" in error["message"] and "millbrook" not in error["message"]


def test_without_a_check_everything_says_so(
    fednotes: Fednotes, plan_file: PlanFile, notes_file: str, tmp_path: Path
) -> None:
    summary = simulate(fednotes, plan_file(), notes_file, tmp_path / "run")
    assert summary.memorisation == []
    for page in ("report.html", "model/README.md"):
        assert "No memorisation check was made" in (tmp_path / "run" / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ({"canaries": 7}, "even"),
        ({"canaries": 2}, "from 4 on"),
        ({"canaries": 8, "memorisation": False}, "nobody asks for"),
        ({"repeat": 2}, "did you mean repeats"),
    ],
)
def test_what_a_plan_cannot_ask_for(fednotes: Fednotes, plan_file: PlanFile, release: dict, message: str) -> None:
    path = plan_file()
    text = path.read_text(encoding="utf-8") + "\n[release]\n"
    text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in release.items())
    path.write_text(text, encoding="utf-8")
    done = fednotes("plan", "check", path)
    assert done.returncode == 2 and message in done.stderr
