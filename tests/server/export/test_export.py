"""What is exported is what was trained, for everyone who loads it; and it is there whole, or not at all."""

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from client.evaluation.embed import embed_notes
from client.notes.store import NoteStore
from common.encoder import Encoder, load_encoder
from common.errors import FednotesError, InputError
from common.results import Memorisation
from server.base import trained_encoder
from server.checkpoint import load_checkpoint
from server.export.release import export
from server.run_folder import RunFolder

MakeRun = Callable[..., RunFolder]
BOTH = ("hugging-face", "sentence-transformers")


def of_run(run: RunFolder) -> Encoder:
    kept = load_checkpoint(run.checkpoints, run.plan.hash())
    assert kept
    encoder = trained_encoder(run.plan, kept[1])
    encoder.model.eval()
    return encoder


def ours(encoder: Encoder, texts: list[str], most: int) -> np.ndarray:
    given = encoder.tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
    with torch.no_grad():
        return encoder.embed(given["input_ids"], given["attention_mask"]).numpy()


def code(error: pytest.ExceptionInfo[FednotesError]) -> str:
    return error.value.code


@pytest.mark.parametrize("trainable", ["all", "lora"])
def test_three_ways_of_loading_give_the_trained_model(
    make_run: MakeRun, bases: dict[str, str], family: str, trainable: str, texts: list[str], tmp_path: Path
) -> None:
    run = make_run({"encoder": {"base": bases[family]}, "training": {"trainable": trainable}})
    to = tmp_path / "out" / "model"
    released = export(run.path, to, BOTH, unfinished=False)
    encoder = of_run(run)
    expected = ours(encoder, texts[:12], 32)
    assert not np.allclose(expected, ours(load_encoder(bases[family]), texts[:12], 32), atol=1e-3)

    body, tokenizer = AutoModel.from_pretrained(to), AutoTokenizer.from_pretrained(to)
    given = tokenizer(texts[:12], padding=True, truncation=True, max_length=32, return_tensors="pt")
    given.pop("token_type_ids", None)
    with torch.no_grad():
        states = body.eval()(**given).last_hidden_state
    mask = given["attention_mask"].unsqueeze(-1)
    assert np.allclose((states * mask).sum(1) / mask.sum(1), expected, atol=1e-5)

    sentences = SentenceTransformer(str(to), device="cpu")
    assert sentences.max_seq_length == 32
    assert np.allclose(sentences.encode(texts[:12]), expected, atol=1e-5)

    whole = AutoModelForMaskedLM.from_pretrained(to).eval()
    own = dict(encoder.model.named_parameters())
    for name, value in whole.named_parameters():
        assert torch.equal(value, own[name]), name
    assert released.files["model.safetensors"] == (to / "model.safetensors").stat().st_size
    assert not any("lora" in name for name in safe_open(to / "model.safetensors", "pt").keys())  # noqa: SIM118


def test_a_head_that_stays_at_the_sites_is_not_in_it(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run({"federation": {"share": "encoder"}})
    export(run.path, tmp_path / "out", BOTH, unfinished=False)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as opened:
        assert not any("cls." in name or "predictions" in name for name in opened.keys())  # noqa: SIM118


def test_hugging_face_alone_has_no_pooling(make_run: MakeRun, tmp_path: Path) -> None:
    export(make_run().path, tmp_path / "out", ["hugging-face"], unfinished=False)
    assert not (tmp_path / "out" / "modules.json").exists() and (tmp_path / "out" / "config.json").exists()


def test_the_annex_names_each_file_by_its_digest(make_run: MakeRun, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export(make_run().path, to, BOTH, unfinished=False)
    known = json.loads((to / "governance.json").read_text(encoding="utf-8"))
    there = {file.relative_to(to).as_posix() for file in to.rglob("*") if file.is_file()}
    assert set(known["files"]) == there - {"governance.json", "governance.md"}
    for name, digest in known["files"].items():
        assert hashlib.sha256((to / name).read_bytes()).hexdigest() == digest
    assert {"approvals", "ledger", "incidents", "versions", "plan_hash"} <= set(known)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "stopped", "message": "a round failed"}, "run-unfinished"),
        ({"memorisation": [Memorisation(site="North", veto="plan-not-approved")]}, "release-vetoed"),
    ],
)
def test_what_must_not_be_released_is_not(
    make_run: MakeRun, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    run = make_run(**changes)
    with pytest.raises(InputError) as error:
        export(run.path, tmp_path / "out", BOTH, unfinished=False)
    assert code(error) == expected and not (tmp_path / "out").exists()


def test_no_flag_overrides_a_veto(make_run: MakeRun, tmp_path: Path) -> None:
    vetoes = [Memorisation(site="North", veto="exposure-beyond-policy"), Memorisation(site="South")]
    run = make_run(status="stopped", memorisation=vetoes)
    with pytest.raises(InputError, match="North") as error:
        export(run.path, tmp_path / "out", BOTH, unfinished=True)
    assert code(error) == "release-vetoed" and "South" not in str(error.value)


def test_a_run_that_stopped_says_so_on_its_card(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(status="stopped", message="Round 9 had too few replies.", planned_rounds=20)
    export(run.path, tmp_path / "out", BOTH, unfinished=True)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**This model is unfinished.** Its study stopped after 8 of 20 rounds" in card
    assert "Round 9 had too few replies." in card


def test_a_folder_that_is_no_run_or_has_no_results(make_run: MakeRun, tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InputError) as error:
            export(folder, tmp_path / "out", BOTH, unfinished=False)
        assert code(error) == "no-run"
    run = make_run()
    (run.path / "summary.json").unlink()
    with pytest.raises(InputError) as error:
        export(run.path, tmp_path / "out", BOTH, unfinished=True)
    assert code(error) == "no-results" and not (tmp_path / "out").exists()


def test_a_run_under_way_is_not_exported(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    with run.locked(), pytest.raises(InputError) as error:
        export(run.path, tmp_path / "out", BOTH, unfinished=False)
    assert code(error) == "run-busy"


def test_a_target_that_holds_anything_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run, full, link = make_run(), tmp_path / "full", tmp_path / "link"
    full.mkdir()
    (full / "mine").write_text("keep me", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    link.symlink_to(tmp_path / "empty")
    for target in (full, full / "mine", link, run.path):
        with pytest.raises(InputError) as error:
            export(run.path, target, BOTH, unfinished=False)
        assert code(error) == "out-exists"
    assert (full / "mine").read_text(encoding="utf-8") == "keep me"
    export(run.path, tmp_path / "empty", BOTH, unfinished=False)
    assert (tmp_path / "empty" / "README.md").exists()


def start(command: list[str], environment: dict[str, str], run: Path, to: Path) -> subprocess.Popen[str]:
    line = [*command, "export", str(run), "--to", str(to), "--format", "onnx", "--json"]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_two_exports_at_once_one_is_whole_and_the_other_refused(
    make_run: MakeRun, tmp_path: Path, command: list[str], environment: dict[str, str]
) -> None:
    run, to = make_run(), tmp_path / "out"
    both = [start(command, environment, run.path, to) for _ in range(2)]
    said = [(process.communicate(timeout=200)[0], process.returncode) for process in both]
    assert sorted(number for _, number in said) == [0, 2]
    won, lost = sorted(said, key=lambda one: one[1])
    assert json.loads(lost[0])["error"]["code"] == "out-exists"
    files = json.loads(won[0])["files"]
    assert {name: (to / name).stat().st_size for name in files} == files
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_killed_half_way_it_leaves_no_folder_and_can_be_done_again(
    make_run: MakeRun, tmp_path: Path, command: list[str], environment: dict[str, str]
) -> None:
    run, to = make_run(), tmp_path / "out"
    process, scratch = start(command, environment, run.path, to), tmp_path / ".out.tmp"
    end = time.monotonic() + 150
    while not (scratch / "model.safetensors").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and scratch.exists() and not to.exists()
    export(run.path, to, BOTH, unfinished=False)
    assert (to / "governance.json").exists() and not scratch.exists()


def test_the_command_says_what_it_wrote(
    make_run: MakeRun, tmp_path: Path, fednotes: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = fednotes("export", make_run().path, "--to", tmp_path / "out")
    assert done.returncode == 0 and "model.safetensors" in done.stdout
    assert "No differential privacy." in done.stdout and "No memorisation check was made" in done.stdout
    again = fednotes("export", tmp_path / "run", "--to", tmp_path / "out")
    assert again.returncode == 2 and "out-exists" in again.stderr


def test_embeddings_of_notes_are_those_of_the_evaluation(make_run: MakeRun, tmp_path: Path, notes: NoteStore) -> None:
    """The way that scores are computed, from the folder that was exported."""
    export(make_run().path, tmp_path / "out", BOTH, unfinished=False)
    rows = np.arange(5)
    sentences = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    found = embed_notes(load_encoder(str(tmp_path / "out")), notes, rows, max_length=32, precision="float32")
    assert np.allclose(found, sentences.encode(notes.texts(rows)), atol=1e-5)
