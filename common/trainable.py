"""Which tensors of an encoder learn, and so travel: all, few, or adapters beside it. Coordinator and sites agree here.

Under differential privacy noise is added to every tensor that learns, so few of them learn more.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from common.encoder import Encoder, load_encoder
from common.plan_sections import Trainable

if TYPE_CHECKING:
    import torch

    from common.plan import StudyPlan

RANK_TO_ALPHA = 2  # LoRA's alpha is this many times its rank, so its output is scaled by 2 whatever the rank

# The projections that get adapters. ModernBERT has query, key and value in one matrix, so its key is adapted, too; with
# rank r that makes 4 r H weights a layer in every family.
_PROJECTIONS = {
    "bert": ("query", "value"),
    "roberta": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "modernbert": ("Wqkv",),
}
_UP, _DOWN = ".lora_B.default.weight", ".lora_A.default.weight"


def train_only(encoder: Encoder, which: Trainable, lora_rank: int, seed: int) -> None:
    """Freeze what the plan's `trainable` leaves as it is, and add adapters where it asks for them, drawn from `seed`.

    An MLM head that starts fresh learns in any case, but for its decoder, which is the table of the word embeddings.
    """
    import torch

    body = encoder.body
    if which == "all":
        return
    in_tables = {
        id(p) for module in body.modules() if isinstance(module, torch.nn.Embedding) for p in module.parameters()
    }
    for parameter in encoder.model.parameters():
        parameter.requires_grad = {
            "no-embeddings": id(parameter) not in in_tables,
            "biases": parameter.ndim == 1,
            "lora": False,
        }[which]
    if which == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the same at every site
            add_adapters(encoder, lora_rank, dropout=0.0)
    if encoder.fresh_head:
        inside = {id(p) for p in body.parameters()}
        for parameter in encoder.model.parameters():
            parameter.requires_grad |= id(parameter) not in inside


def add_adapters(encoder: Encoder, rank: int, dropout: float) -> "dict[str, torch.nn.Module]":
    """Put fresh LoRA adapters (Hu et al. 2021) around projections of the body, and freeze the rest of it.

    Returns the plain modules that stood there, by their names in the body.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = _PROJECTIONS[encoder.model.config.model_type]
    plain = {name: module for name, module in encoder.body.named_modules() if name.rpartition(".")[2] in names}
    config = LoraConfig(
        r=rank, lora_alpha=RANK_TO_ALPHA * rank, lora_dropout=dropout, target_modules=list(plain), bias="none"
    )
    try:
        inject_adapter_in_model(config, encoder.body)
    except BaseException:
        remove_adapters(encoder, plain)
        raise
    return plain


def remove_adapters(encoder: Encoder, plain: "Mapping[str, torch.nn.Module]") -> None:
    """Put back the modules that `add_adapters` returned; what was frozen stays so.

    By hand, because peft's own way back draws a progress bar and leaves its configuration behind.
    """
    body = encoder.body
    for name, module in plain.items():
        parent, _, child = name.rpartition(".")
        setattr(body.get_submodule(parent), child, module)
    vars(body).pop("peft_config", None)


def plain_tensors(plan: "StudyPlan", tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Shared tensors as an encoder has them of which all learns: with those that stayed as they were, and adapters
    merged into the weights beside them."""
    if plan.training.trainable == "all":
        return dict(tensors)
    whole = load_encoder(plan.encoder.base, plan.study.seed).shared_arrays(plan.federation.share)
    return whole | merged(tensors, whole)


def merged(tensors: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of an encoder without adapters: each adapter's product added to the weight of `base` beside it.

    Args:
        tensors: by name, of an encoder with adapters; where there are none, they come back as they are.
        base: the weights of the plain base by name.
    """
    found = {name: value for name, value in tensors.items() if not name.endswith((_UP, _DOWN))}
    for name, up in tensors.items():
        if name.endswith(_UP):
            beside = name.removesuffix(_UP)
            change = RANK_TO_ALPHA * (up @ tensors[beside + _DOWN])
            found[beside + ".weight"] = base[beside + ".weight"] + change
    return found
