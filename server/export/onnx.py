"""ONNX: the encoder as a graph for other runtimes, written only where ONNX Runtime gives what torch gives.

Inputs `input_ids` and `attention_mask` [batch, length], of any batch and length; outputs `last_hidden_state` [batch,
length, H] and `sentence_embedding` [batch, H], the plan's pooling, not normalised.
"""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.encoder import Encoder, mean_pool
from common.errors import MachineError

if TYPE_CHECKING:
    import torch

ONNX_FILE = "onnx/model.onnx"
TOLERANCE = 1e-4
_INPUTS, _OUTPUTS = ("input_ids", "attention_mask"), ("last_hidden_state", "sentence_embedding")
_OPSET = 17
_SHORTEST, _GROWTH = 3, 1.4  # lengths of the texts that are compared, in tokens: each so much longer than the last
_PADDED = 512  # texts up to this length are compared in one padded batch, too


@dataclass(frozen=True)
class Checked:
    """How far ONNX Runtime was from torch at most, in any coordinate, and on what."""

    difference: float
    texts: int
    longest: int


def check_extra() -> None:
    """Raises MachineError `onnx-missing`."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MachineError(
            "onnx-missing", "ONNX needs packages that are not installed.", 'Install them: pip install "fednotes[onnx]".'
        ) from None


def write_onnx(encoder: Encoder, folder: Path, max_length: int, text: str) -> Checked:
    """Write `onnx/model.onnx` into a folder, and compare it with the encoder.

    Args:
        text: real words; parts of many lengths, from a few tokens to `max_length`, are compared.

    Raises:
        MachineError: `onnx-missing`; `onnx-differs`: the two are further apart than `TOLERANCE`.
    """
    check_extra()
    batches = list(_batches(encoder, max_length, text))
    encoder.model.eval()
    expected = [_torch_outputs(encoder, *batch) for batch in batches]
    file = folder / ONNX_FILE
    file.parent.mkdir()
    _export(encoder, file, batches[-1])
    difference = max(_differences(file, batches, expected))
    if not difference <= TOLERANCE:
        raise MachineError(
            "onnx-differs",
            f"The ONNX file differs from the model by {difference:.3g}, more than {TOLERANCE:g}. It was not written.",
            "Export without --format onnx, and report it with the name of the base.",
        )
    return Checked(difference, sum(len(ids) for ids, _ in batches), max(ids.shape[1] for ids, _ in batches))


def _batches(encoder: Encoder, max_length: int, text: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and masks: texts one by one, then the shorter ones together, padded."""
    tokenizer = encoder.tokenizer
    ids = np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)
    ids = np.tile(ids, 1 + max_length // len(ids))
    lengths = [_SHORTEST]
    while lengths[-1] < max_length:
        lengths.append(min(max_length, max(lengths[-1] + 1, round(lengths[-1] * _GROWTH))))
    rows = [
        np.array([tokenizer.cls_token_id, *np.roll(ids, -7 * n)[: length - 2], tokenizer.sep_token_id])
        for n, length in enumerate(lengths)
    ]
    for row in rows:
        yield row[None], np.ones((1, len(row)), dtype=np.int64)
    short = [row for row in rows if len(row) <= _PADDED]
    width = max(map(len, short))
    padded = np.full((len(short), width), tokenizer.pad_token_id, dtype=np.int64)
    mask = np.zeros((len(short), width), dtype=np.int64)
    for place, row in enumerate(short):
        padded[place, : len(row)], mask[place, : len(row)] = row, 1
    yield padded, mask


def _torch_outputs(encoder: Encoder, ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    with torch.inference_mode():
        given = torch.from_numpy(ids), torch.from_numpy(mask)
        return encoder.hidden(*given).numpy(), encoder.embed(*given).numpy()


def _export(encoder: Encoder, file: Path, example: tuple[np.ndarray, np.ndarray]) -> None:
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = encoder.body

        def forward(self, input_ids: "torch.Tensor", attention_mask: "torch.Tensor") -> Any:
            states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return states, mean_pool(states, attention_mask)

    body: Any = encoder.body
    attention = body.config._attn_implementation
    log = logging.getLogger("torch.onnx")
    level, both = log.level, {0: "batch", 1: "length"}
    body.set_attn_implementation("eager")  # the fused kernels of torch have no name in ONNX
    log.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Graph().eval(),
                tuple(map(torch.from_numpy, example)),
                str(file),
                input_names=_INPUTS,
                output_names=_OUTPUTS,
                dynamic_axes={**dict.fromkeys((*_INPUTS, _OUTPUTS[0]), both), _OUTPUTS[1]: {0: "batch"}},
                opset_version=_OPSET,
                dynamo=False,  # ten times as fast as the newer way, and the same to the last bits
            )
    finally:
        log.setLevel(level)
        body.set_attn_implementation(attention)


def _differences(
    file: Path, batches: list[tuple[np.ndarray, np.ndarray]], expected: list[tuple[np.ndarray, np.ndarray]]
) -> Iterator[float]:
    """The largest of each batch; states of padding, which nobody reads, are left aside."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for (ids, mask), (states, embeddings) in zip(batches, expected, strict=True):
        found = session.run(list(_OUTPUTS), dict(zip(_INPUTS, (ids, mask), strict=True)))
        yield float(np.abs(found[0] - states)[mask.astype(bool)].max())
        yield float(np.abs(found[1] - embeddings).max())
