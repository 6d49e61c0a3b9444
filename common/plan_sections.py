"""The sections of a study plan: their keys, what each may be, and what it means.

Checks across fields are field validators on the later field, because pydantic skips whole-model validators as soon as
one field is wrong, and would then report only a part.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, le=1000.0)]
MaskProbability = Annotated[float, Field(gt=0.0, le=0.5)]
Trainable = Literal["all", "no-embeddings", "biases", "lora"]
Wire = Literal["float32", "float16", "delta-float16"]
SiteName = Annotated[str, Field(min_length=1, max_length=100)]
TaskName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Study(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="lower-case letters, digits and hyphens")
    seed: int = Field(0, ge=0, lt=2**32, description="the same seed gives the same weights on the same machine")


class EncoderPlan(Section):
    base: str = Field(
        "packaged:minilm", min_length=1, description="a model hub name, a folder, or the packaged base packaged:minilm"
    )
    pooling: Literal["mean"] = Field("mean", description="masked mean of the last layer, special tokens included")
    max_length: int = Field(256, ge=16, le=8192, description="tokens a sequence, the two special ones included")
    long_notes: Literal["cut", "windows"] = Field(
        "cut",
        description="of a longer note, evaluation embeds its start (cut) or the mean of all its windows (windows)",
    )


class Mlm(Section):
    kind: Literal["mlm"] = Field("mlm", description="mlm: masked language modelling; or declutr, note-category")
    mask_probability: MaskProbability = Field(
        0.15, description="share of tokens to predict; of these 80 % masked, 10 % random, 10 % kept"
    )
    whole_word: bool = Field(False, description="mask all pieces of a word together")


class Declutr(Section):
    kind: Literal["declutr"] = Field(description="declutr: contrastive spans of a note, and MLM on them")
    anchors: int = Field(2, ge=1, le=16, description="anchors a note")
    positives: int = Field(2, ge=1, le=16, description="positives an anchor; their embeddings are averaged")
    min_span: int = Field(
        8, ge=2, le=8190, description="shortest span in tokens; notes of fewer than 2 x anchors x this are left out"
    )
    max_span: int = Field(
        64,
        ge=2,
        le=8190,
        validate_default=True,
        description="longest span in tokens; shorter in notes of fewer than 2 x anchors x this",
    )
    sampling: Literal["default", "adjacent", "subsuming"] = Field(
        "default", description="where positives lie: overlapping or touching the anchor, beside it, or within it"
    )
    temperature: Positive = Field(0.05, description="of the contrastive loss")
    contrastive_weight: Weight = Field(1.0, description="0 turns the contrastive loss off")
    mlm_weight: Weight = Field(
        1.0, validate_default=True, description="0 turns MLM on the anchors off, and their masking"
    )
    mask_probability: MaskProbability = Field(0.15, description="share of the anchors' tokens to predict")
    masked: bool = Field(
        True, description="anchors are compared as masked for MLM; false reads them once more, as they stand"
    )
    related_negatives: bool = Field(
        False, description="push notes of one patient, and near copies, apart like any others"
    )
    spans_at_once: int | None = Field(
        None,
        ge=1,
        description="spans in memory at once, by gradient caching: batches grow without memory, at 4/3 of the time",
    )

    @field_validator("max_span")
    @classmethod
    def _longest(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min_span", 0):
            raise PydanticCustomError("span_order", "it is less than min_span; raise it")
        return value

    @field_validator("mlm_weight")
    @classmethod
    def _one_loss(cls, value: float, info: ValidationInfo) -> float:
        if value == 0 and info.data.get("contrastive_weight") == 0:
            raise PydanticCustomError("no_loss", "contrastive_weight is 0, too: nothing is left to learn from")
        return value

    @property
    def plain_anchors(self) -> bool:
        """Whether anchors are read as they stand, to be compared so."""
        return self.contrastive_weight > 0 and not (self.masked and self.mlm_weight > 0)


class NoteCategory(Section):
    kind: Literal["note-category"] = Field(description="note-category: MLM, and a loss that tells categories apart")
    loss: Literal["linear", "prototypes", "contrastive"] = Field(
        "linear",
        description="linear: a linear head and cross-entropy; prototypes: cosine to a learned vector a category; "
        "contrastive: notes of a category attract",
    )
    weight: Weight = Field(0.1, description="of the category loss; that of MLM is 1")
    temperature: Positive = Field(0.1, description="of the contrastive loss, and of prototypes")
    categories: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None,
        min_length=2,
        max_length=1000,
        description="a list that all sites share, and with it the head; without it, each site has its own",
    )
    mask_probability: MaskProbability = Field(0.15, description="share of tokens to predict")
    masked: bool = Field(
        True, description="the category is told from the text as masked for MLM; false reads it once more, as it stands"
    )
    strip_headings: bool = Field(
        False, description="take headings that name a category out of the notes, for they give it away"
    )

    @field_validator("categories")
    @classmethod
    def _distinct(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < len(value):
            raise PydanticCustomError("repeated", "a category stands there twice")
        return value


OBJECTIVES: dict[str, type[Section]] = {"mlm": Mlm, "declutr": Declutr, "note-category": NoteCategory}
Objective = Annotated[
    Annotated[Mlm, Tag("mlm")] | Annotated[Declutr, Tag("declutr")] | Annotated[NoteCategory, Tag("note-category")],
    Discriminator(lambda value: value.get("kind", "mlm") if isinstance(value, dict) else getattr(value, "kind", None)),
]


class Training(Section):
    steps_per_round: int | None = Field(None, ge=1, le=1_000_000, description="optimiser steps a site makes each round")
    tokens_per_round: int | None = Field(
        None,
        ge=1,
        le=10**12,
        description="or tokens the encoder reads, turned into steps by what a step reads on average: "
        "the same budget for every objective",
    )
    epochs_per_round: float | None = Field(
        None, gt=0.0, le=1000, validate_default=True, description="or passes over its notes; 1.0 where none is given"
    )
    seconds_per_round: Positive | None = Field(
        None,
        description="a slow site stops after the step in which so many seconds are over, and weighs by its steps; its "
        "weights then depend on its machine, so a seed no longer gives the same",
    )
    batch_size: int = Field(16, ge=1, le=65536, description="notes a step")
    learning_rate: Positive = Field(1e-4, description="peak rate of AdamW")
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="decoupled; none on biases and norms")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="decay over the whole study's steps"
    )
    warmup_fraction: Fraction = Field(0.1, description="share of the whole study's steps that warms up")
    max_grad_norm: Positive = Field(1.0, description="gradients are clipped to this norm")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast where the processor computes in it, else float32"
    )
    trainable: Trainable = Field(
        "all",
        description="what learns, and so travels: all; no-embeddings: all but the tables of the embeddings; biases: "
        "biases and norms; lora: adapters. An MLM head that starts fresh learns in any case",
    )
    lora_rank: int = Field(8, ge=1, le=1024, description="of the adapters, with trainable = lora")

    @field_validator("tokens_per_round", "epochs_per_round")
    @classmethod
    def _one_measure(cls, value: float | None, info: ValidationInfo) -> float | None:
        measures = ("steps_per_round", "tokens_per_round")
        given = [name for name in measures if name != info.field_name and info.data.get(name) is not None]
        if value is not None and given:
            raise PydanticCustomError(
                "two_measures", "give {one} or {other}, not both", {"one": given[0], "other": str(info.field_name)}
            )
        known = all(name in info.data for name in measures)
        if info.field_name == "epochs_per_round" and value is None and known and not given:
            return 1.0
        return value


STRATEGY_SETTINGS = {
    "fedavg": (),
    "fedprox": ("proximal_mu",),
    "fedadam": ("server_learning_rate",),
    "fedavgm": ("server_learning_rate", "server_momentum"),
    "trimmed-mean": ("trim_fraction",),
    "median": (),
}


class Federation(Section):
    rounds: int = Field(10, ge=1, le=100_000, description="rounds of the study")
    strategy: Literal["fedavg", "fedprox", "fedadam", "fedavgm", "trimmed-mean", "median"] = Field(
        "fedavg", description="how updates become the next shared weights"
    )
    proximal_mu: Positive | None = Field(
        None, validate_default=True, description="fedprox: pull towards the round's start; 0.01 where not given"
    )
    server_learning_rate: Positive | None = Field(
        None,
        validate_default=True,
        description="fedadam (0.001 where not given), fedavgm (1.0): the coordinator's step",
    )
    server_momentum: Fraction | None = Field(
        None, validate_default=True, description="fedavgm: momentum of the coordinator's step; 0.9 where not given"
    )
    trim_fraction: Annotated[float, Field(ge=0.0, lt=0.5)] | None = Field(
        None,
        validate_default=True,
        description="trimmed-mean: share cut at either end, rounded down: with 0.2 (where not given), one site of five",
    )
    min_sites: int = Field(1, ge=1, le=10_000, description="fewest good replies that make a round")
    round_timeout: Positive = Field(
        86_400.0, description="most seconds to wait for replies; less, once it is known how long the sites take"
    )
    max_update_norm: Positive | None = Field(
        None, description="a site's update of a larger L2 norm is left out of the round; without it, none is too large"
    )
    share: Literal["encoder", "encoder+mlm-head"] = Field(
        "encoder+mlm-head", description="what travels, of what learns; the rest stays at the site between rounds"
    )
    wire: Wire = Field(
        "float32",
        description="weights in transit; float16: half the bytes, both ways; delta-float16: half of them upwards",
    )
    sites: list[SiteName] = Field(
        [], description="real servers: the hospitals that are to take part, by name; empty: all that are there"
    )
    site_wait: Positive = Field(
        600.0,
        description="real servers: seconds to wait for them before the study starts without those that are missing",
    )

    @field_validator("share", mode="before")
    @classmethod
    def _planned_shares(cls, value: object) -> object:
        if value == "lora":
            raise PydanticCustomError("moved", 'to train and share adapters only, set training.trainable = "lora"')
        return value

    @field_validator("sites")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise PydanticCustomError("repeated", "a site stands there twice")
        return value

    @field_validator("proximal_mu", "server_learning_rate", "server_momentum", "trim_fraction")
    @classmethod
    def _setting_of_strategy(cls, value: float | None, info: ValidationInfo) -> float | None:
        strategy, name = info.data.get("strategy"), str(info.field_name)
        if strategy is None:
            return value
        if name not in STRATEGY_SETTINGS[strategy]:
            if value is None:
                return None
            users = " and ".join(s for s, names in STRATEGY_SETTINGS.items() if name in names)
            raise PydanticCustomError("wrong_strategy", "only {users} uses it; remove it", {"users": users})
        if value is not None:
            return value
        if name == "server_learning_rate":
            return 0.001 if strategy == "fedadam" else 1.0
        return {"proximal_mu": 0.01, "server_momentum": 0.9, "trim_fraction": 0.2}[name]


class Privacy(Section):
    """Differential privacy of a site's units (client/dpsgd.py; docs/privacy.md has the theorem and its proof)."""

    unit: Literal["patient", "note"] = Field(
        "patient",
        description="what is protected: all notes of a patient together (of a note that names none, it and its "
        "copies), or one note and its copies",
    )
    epsilon: Annotated[float, Field(gt=0.0, le=100.0)] | None = Field(
        None, description="most that a site may spend in the study; it finds the noise for its own size"
    )
    noise_multiplier: Annotated[float, Field(ge=0.1, le=1000.0)] | None = Field(
        None, validate_default=True, description="or the noise, over the sensitivity; epsilon then follows"
    )
    delta: float = Field(1e-5, gt=0.0, lt=0.01, description="chance that epsilon does not hold; below 1 / units")
    accountant: Literal["prv", "rdp"] = Field("prv", description="prv: tight; rdp: an older, looser bound")
    max_grad_norm: Annotated[float, Field(ge=1e-6, le=1e6)] = Field(  # beyond, single precision is too coarse or ends
        1.0, description="a unit's gradient is clipped to this L2 norm each step"
    )
    notes_per_unit: int = Field(2, ge=1, le=1000, description="most notes of a unit that a step reads, drawn at random")
    negatives: Literal["public", "groups"] = Field(
        "public",
        description="declutr: push away from spans of the site's public text; groups: from other units in a random "
        "group, at twice the noise",
    )
    public_negatives: int = Field(256, ge=1, le=100_000, description="public spans a step")
    group_size: int = Field(8, ge=2, le=1024, description="expected units a group")
    release_loss: bool = Field(
        True, description="the training loss leaves, inside the same noise; false: it does not leave at all"
    )
    engine: Literal["book-keeping", "loop", "opacus"] = Field(
        "book-keeping",
        description="how units are clipped: in one backward pass; one unit at a time; or Opacus' gradients a row",
    )

    @field_validator("noise_multiplier")
    @classmethod
    def _epsilon_or_noise(cls, value: float | None, info: ValidationInfo) -> float | None:
        if "epsilon" in info.data and (value is None) == (info.data["epsilon"] is None):
            raise PydanticCustomError("epsilon_or_noise", "give either epsilon or noise_multiplier")
        return value


class HospitalPrivacy(Section):
    """Differential privacy of a whole hospital against those who see the model, by noise that the coordinator adds."""

    noise_multiplier: Annotated[float, Field(ge=0.01, le=1000.0)] = Field(
        description="noise over the clipping norm, on the sum of the updates"
    )
    clipping_norm: Positive = Field(description="each update is clipped to this L2 norm")
    epsilon: Annotated[float, Field(gt=0.0, le=1000.0)] = Field(
        description="the study stops before the round that would exceed it"
    )
    delta: float = Field(1e-2, gt=0.0, lt=0.5, description="small against 1 / hospitals, which is seldom possible")


class Release(Section):
    """What each site asks of the final encoder before it may be released (client/memorisation/; docs/release.md)."""

    canaries: int = Field(
        0,
        ge=0,
        le=1000,
        description="synthetic notes with a secret number at each site: half of them it trains on, half it holds back, "
        "to compare; 0: none",
    )
    repeats: int = Field(1, ge=1, le=100, description="copies of each canary that a site trains on")
    memorisation: bool = Field(
        True,
        validate_default=True,
        description="after the last round each site asks the encoder for canaries and for identifiers of its notes",
    )

    @field_validator("canaries")
    @classmethod
    def _halves(cls, value: int) -> int:
        if value % 2 or 0 < value < 4:
            raise PydanticCustomError("halves", "half are trained on, half held back; give an even number from 4 on")
        return value

    @field_validator("memorisation")
    @classmethod
    def _asked_for(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("canaries"):
            raise PydanticCustomError("never_asked", "canaries would be planted that nobody asks for; set it to true")
        return value


class Evaluation(Section):
    held_out_notes: int = Field(256, ge=1, description="most dev notes a site uses for its held-out loss each round")
    embedding_space: bool = Field(
        False, description="figures of the embedding space of these notes, too, from sites whose policy releases them"
    )
    tasks: list[TaskName] = Field(
        ["label"], description="downstream tasks, as the sites' files call them; label is the notes' label column"
    )
    release_scores: bool = Field(
        False,
        description="real servers: after the last round, sites whose policy allows it say how well the encoder does on "
        "these tasks, beside training alone; it changes nothing in a simulation, which scores in any case",
    )
    modes: list[Literal["frozen", "fine-tuned", "lora"]] = Field(
        ["frozen"],
        min_length=1,
        description="frozen: a probe on fixed embeddings; fine-tuned: the encoder learns, too; lora: adapters learn",
    )
    shots: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(
        [16, 32, 64, 128], description="labelled notes a class in the few-shot curve"
    )
    seeds: int = Field(5, ge=5, le=100, description="draws at each point of the curve")
    tuned_shots: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(
        [], description="the curve where the encoder learns, too: each point trains it anew, a draw at a time"
    )
    tuning_epochs: int = Field(10, ge=1, le=1000, description="most passes over the labelled notes; dev notes stop it")
    tuning_learning_rate: Positive = Field(5e-5, description="of the encoder, where it is fine-tuned")
    lora_learning_rate: Positive = Field(5e-4, description="of the adapters")
    lora_rank: int = Field(16, ge=1, le=1024, description="of the adapters")
    head_learning_rate: Positive = Field(1e-3, description="of the task's head, where the encoder learns, too")
