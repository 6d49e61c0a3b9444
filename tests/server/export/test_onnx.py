"""ONNX Runtime gives what torch gives, for each family, on notes of many lengths; else nothing is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from common.encoder import load_encoder
from common.errors import MachineError
from server.export import onnx
from server.export.onnx import ONNX_FILE, TOLERANCE, write_onnx
from server.export.release import export
from server.run_folder import RunFolder


def test_it_equals_torch_on_notes_of_many_lengths_and_in_any_batch(
    bases: dict[str, str], family: str, texts: list[str], tmp_path: Path
) -> None:
    encoder = load_encoder(bases[family])
    attention = encoder.model.config._attn_implementation
    checked = write_onnx(encoder, tmp_path, 64, " ".join(texts[:3]))
    assert checked.difference <= TOLERANCE and checked.longest == 64 and checked.texts >= 20
    assert encoder.model.config._attn_implementation == attention
    session = onnxruntime.InferenceSession(str(tmp_path / ONNX_FILE), providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape) for one in session.get_inputs()] == [
        ("input_ids", ["batch", "length"]),
        ("attention_mask", ["batch", "length"]),
    ]
    for count, most in ((1, 4), (1, 64), (2, 33), (7, 64), (40, 16)):
        some = [text[: 20 + 13 * i] for i, text in enumerate(texts[:count])]  # of different lengths
        given = encoder.tokenizer(some, padding=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():
            expected = encoder.embed(given["input_ids"], given["attention_mask"]).numpy()
            states = encoder.hidden(given["input_ids"], given["attention_mask"]).numpy()
        feed = {name: given[name].numpy() for name in ("input_ids", "attention_mask")}
        found, embedded = session.run(["last_hidden_state", "sentence_embedding"], feed)
        mask = feed["attention_mask"].astype(bool)
        assert np.abs(embedded - expected).max() <= TOLERANCE
        assert np.abs(found - states)[mask].max() <= TOLERANCE


def test_where_it_differs_nothing_is_written_and_the_difference_is_named(
    make_run: Callable[..., RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of another model than the one that is compared."""
    run, honest = make_run(), onnx._export
    other = load_encoder(run.plan.encoder.base)
    monkeypatch.setattr(onnx, "_export", lambda encoder, file, example: honest(other, file, example))
    with pytest.raises(MachineError, match=r"differs from the model by [0-9.]+") as error:
        export(run.path, tmp_path / "out", ["onnx"], unfinished=False)
    assert error.value.code == "onnx-differs"
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.tmp").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_its_packages_it_says_what_to_install(
    make_run: Callable[..., RunFolder], tmp_path: Path, blocked: Callable[[str], None], package: str
) -> None:
    run = make_run()
    blocked(package)
    with pytest.raises(MachineError, match=r"fednotes\[onnx\]") as error:
        export(run.path, tmp_path / "out", ["hugging-face", "onnx"], unfinished=False)
    assert error.value.code == "onnx-missing" and not (tmp_path / "out").exists()
    export(run.path, tmp_path / "out", ["hugging-face"], unfinished=False)  # nothing else needs them
