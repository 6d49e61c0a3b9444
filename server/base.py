"""Where a study begins: the shared tensors of its base."""

from common.encoder import Encoder, load_encoder
from common.messages import Tensors
from common.plan import StudyPlan
from common.trainable import plain_tensors, train_only


def base_tensors(plan: StudyPlan) -> Tensors:
    """The shared tensors of the plan's base, before any training."""
    encoder = load_encoder(plan.encoder.base, plan.study.seed)
    train_only(encoder, plan.training.trainable, plan.training.lora_rank, plan.study.seed)
    set_shared_categories(encoder, plan)
    return encoder.shared_arrays(plan.federation.share)


def trained_encoder(plan: StudyPlan, shared: Tensors) -> Encoder:
    """The plan's encoder with the shared tensors of a run: plain weights, with adapters merged."""
    encoder = load_encoder(plan.encoder.base, plan.study.seed)
    set_shared_categories(encoder, plan)
    encoder.load(plain_tensors(plan, shared))
    return encoder


def base_digest(plan: StudyPlan) -> str:
    """SHA-256 (hex) over the body of the base: what does not travel must be the same at every site."""
    return load_encoder(plan.encoder.base, plan.study.seed).body_digest()


def set_shared_categories(encoder: Encoder, plan: StudyPlan) -> None:
    """Give the encoder the category head that travels, fresh, where the plan has one."""
    encoder.set_categories(plan.shared_categories, shared=True, bias=plan.category_bias)
