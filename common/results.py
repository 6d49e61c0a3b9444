"""What a run reports: the typed contents of `summary.json`, written by every engine and read by every page and report.

`docs/summary.schema.json` is generated from `Summary`; a test keeps the two equal. Units: losses in nats (that of MLM a
masked token), times in seconds, sizes in bytes. An interval is 95 %. A score never stands without its n and its class
support.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1
NO_DP = "no differential privacy"
FLOOR = 20  # no figure stands on fewer notes, and no smaller count of them is printed in what leaves a study

ModelName = Literal["federated", "base", "local-only", "centralised", "tf-idf", "majority"]
EvaluatedModel = Literal["model", "against", "tf-idf", "majority"]
Mode = Literal["frozen", "fine-tuned", "lora"]
Metric = Literal["macro-f1", "accuracy"]
Verdict = Literal["better", "worse", "no clear difference"]
# In place of a site's name, as only a simulation can have them: one probe on the notes of all sites in one place, and
# the predictions of the sites' own probes taken together.
POOLED, TOGETHER = "(all sites)", "(sites together)"


class Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(Result):
    """A value with its 95 % interval; the bounds are None where no interval can be given."""

    value: float
    low: float | None = None
    high: float | None = None


class FewShot(Result):
    """Scores on the whole test set after training on `shots` labelled notes a class, over several draws.

    `per_seed` holds one macro-F1 a draw; the intervals are over the draws (Student's t). A class with fewer training
    notes than `shots` gives all it has; `short_classes` counts those. Of real servers both stay at the site.
    """

    shots: int
    macro_f1: Estimate
    accuracy: Estimate | None = None
    per_seed: list[float]
    short_classes: int | None


class TaskScore(Result):
    """One model on one downstream task at one site: a probe on the frozen encoder (or on TF-IDF), or the encoder tuned.

    `support` is test notes a class; empty where it stayed at a site of real servers. Intervals of the three metrics are
    a bootstrap over test notes. `auroc` is macro one-vs-rest over the classes that the test set holds; None where it is
    undefined. `metric` is the task's own: every choice in training and every verdict goes by it.
    """

    site: str
    task: str
    model: ModelName
    mode: Mode = "frozen"
    metric: Metric = "macro-f1"
    n_train: int
    n_test: int
    support: dict[str, int]
    macro_f1: Estimate
    accuracy: Estimate
    auroc: Estimate | None
    few_shot: list[FewShot]


class Comparison(Result):
    """The metric of the federated encoder minus that of `against`, on the same test notes (paired bootstrap)."""

    site: str
    task: str
    against: ModelName
    mode: Mode = "frozen"
    metric: Metric = "macro-f1"
    difference: Estimate
    n_test: int
    verdict: Verdict


class NotScored(Result):
    """A task that could not be scored at a site, and why."""

    site: str
    task: str
    reason: str


class Space(Result):
    """The shape of an embedding space, over `notes` held-out notes; None where a figure is undefined or was not asked.

    Cosines, alignment and uniformity are of L2-normalised embeddings. `within` and `between`: mean cosine of pairs of
    one class and of two. `alignment`: mean squared distance of pairs of one class, equal pairs a class. `uniformity`:
    log of the mean of exp(-2 squared distance). Silhouettes go by cosine. `modularity_*`: of the graph of nearest
    neighbours, with the classes as communities. `effective_rank`: of the centred embeddings. `cka_*`: linear CKA to the
    same notes under another encoder.
    """

    notes: int
    within: float | None = None
    between: float | None = None
    alignment: float | None = None
    uniformity: float | None = None
    silhouette_label: float | None = None
    silhouette_category: float | None = None
    modularity_label: float | None = None
    modularity_category: float | None = None
    effective_rank: float | None = None
    cka_base: float | None = None
    cka_local: float | None = None


class HeldOut(Result):
    """The objective's loss on the site's held-out (dev) notes under the shared weights of a round.

    `parts` are the means of the losses that the objective adds up, by name. `space` is there where the site's policy
    releases it.
    """

    loss: float
    notes: int
    tokens: int
    parts: dict[str, float] = {}
    space: Space | None = None


class PrivacySpent(Result):
    """What a site's ledger says after a round of private training: of the study alone, without other studies.

    `units` are the site's patients or notes in training, of which each step draws each with `sample_rate`. `steps` are
    the round's; `epsilon` is what all rounds so far have spent at `delta`. `ledger` is the hash of the ledger's entry
    for the round: it fixes every entry before it, and tells nothing of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    unit: Literal["patient", "note"]
    units: int = Field(ge=1)
    noise_multiplier: float = Field(gt=0.0)
    sample_rate: float = Field(gt=0.0, le=1.0)
    steps: int = Field(ge=1)
    epsilon: float = Field(ge=0.0)
    delta: float = Field(gt=0.0, lt=1.0)
    ledger: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class SiteRound(Result):
    """One site in one round. `state` is "returned" or "left-out"; a site that was left out has a `reason`.

    `code` names the reason (docs/errors.md; server/incidents.py). Bytes are of the weights: down to the site, to train
    and to evaluate, and up from it. `update_norm` is the L2 norm of what the site changed, `cosine` that of its angle
    to the mean update, `weight` its share of the average (0 to 1).

    With private training `privacy` is there, `loss` has noise or is None, and notes, tokens and seconds are withheld.
    """

    site: str
    state: Literal["returned", "left-out"]
    reason: str = ""
    code: str = ""
    notes: int = 0
    steps: int = 0
    tokens: int = 0
    loss: float | None = None
    parts: dict[str, float] = {}
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    update_norm: float | None = None
    cosine: float | None = None
    weight: float | None = None
    privacy: PrivacySpent | None = None


class Round(Result):
    """One round. Round 0 is the base before any training: held-out losses only.

    `hospital_epsilon` is what all rounds so far have spent where the coordinator adds noise that protects a hospital.
    """

    number: int
    attempts: int
    seconds: float
    sites: list[SiteRound]
    held_out: dict[str, HeldOut]
    hospital_epsilon: float | None = None


class SiteFacts(Result):
    """What a site brings: notes in each split after duplicates were set aside, and tokens at the plan's maximum.

    Of the `train` notes the objective uses `whole` as the plan has it and `shortened` in part (a window of a long note,
    or shorter spans of a short one); it has to leave out `too_short` ones. With private training a site says only how
    many `units` train (patients or notes), and all other counts are 0, unless its policy releases them.

    `approved_by` (a person) approved the plan at `approved_at` (ISO 8601) with the entry whose SHA-256 (hex) is
    `approval` in the site's chain of approvals; empty where the site's policy asks for no approval, and
    the name where it is withheld.
    """

    name: str
    train: int
    dev: int
    test: int
    set_aside: int
    tokens: int
    whole: int
    shortened: int
    too_short: int
    units: int | None = None
    approved_by: str = Field("", max_length=100)
    approved_at: str = Field("", max_length=40)
    approval: str = Field("", pattern=r"^([0-9a-f]{64})?$")


class CanaryExposure(Result):
    """How well the encoder knows secrets that stand in no other text: exposure in bits (Carlini et al. 2019).

    A secret of `references` that there could have been, which ranks r-th by its likelihood, has log2(references) -
    log2(r): 1.4 on average by chance. `planted` canaries were trained on, each in `repeats` copies; the `controls`
    were not. `auc`: of telling the ones from the others by their exposure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    planted: int = Field(ge=2)
    controls: int = Field(ge=2)
    repeats: int = Field(ge=1)
    references: int = Field(ge=2)
    planted_mean: float = Field(ge=0.0)
    planted_max: float = Field(ge=0.0)
    controls_mean: float = Field(ge=0.0)
    auc: Estimate


class IdentifierCompletion(Result):
    """How well the encoder completes masked identifiers (dates, long numbers) in notes that it was trained on, and in
    held-out ones.

    `train_completed` and `held_out_completed` are shares of identifiers whose every token it gets right, `completed`
    is their difference, `likelihood` that of the log-likelihood in nats a token: means over patients, and above zero
    where it knows its training notes better.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    train_notes: int = Field(ge=FLOOR)
    held_out_notes: int = Field(ge=FLOOR)
    train_completed: float = Field(ge=0.0, le=1.0)
    held_out_completed: float = Field(ge=0.0, le=1.0)
    completed: Estimate
    likelihood: Estimate


class Memorisation(Result):
    """What a site found when it asked the final encoder for what it should not know.

    `reason`: why there are no figures. `veto`: the code with which the site refuses the release; empty where it does
    not.
    """

    site: str
    reason: str = ""
    veto: str = ""
    canaries: CanaryExposure | None = None
    identifiers: IdentifierCompletion | None = None


class EvaluatedEncoder(Result):
    """An encoder as it was given, with the SHA-256 (hex) of its weights, without any head."""

    name: str
    digest: str
    parameters: int


class EncoderScore(TaskScore):
    """A score of an evaluation: `model` is the encoder that was asked about, or what stands beside it."""

    model: EvaluatedModel  # type: ignore[assignment]


class EncoderComparison(Comparison):
    """The metric of the encoder that was asked about, minus that of `against`."""

    against: EvaluatedModel  # type: ignore[assignment]


class EncoderSpace(Result):
    """The embedding space of an encoder over all test notes, with the labels of a task. `cka_base` of `model` is to
    `against`."""

    model: EvaluatedModel
    task: str
    space: Space


class EvaluationResult(Result):
    """What `fednotes evaluate` found: an encoder (and another, `against`) on the notes of one site."""

    schema_version: Literal[1] = 1
    encoder: EvaluatedEncoder
    against: EvaluatedEncoder | None
    site: str
    notes_digest: str
    train: int
    dev: int
    test: int
    set_aside: int
    max_length: int
    long_notes: Literal["cut", "windows"]
    precision: str
    seed: int
    started: str
    seconds: float
    versions: dict[str, str]
    scores: list[EncoderScore]
    comparisons: list[EncoderComparison]
    space: list[EncoderSpace]
    not_scored: list[NotScored]


class Summary(Result):
    """A run. `objective` is the kind that the plan has it train: "mlm", "declutr" or "note-category".

    `epsilon_cap` is the most that the plan lets a site spend; None without private training, and where the plan gives
    the noise instead. `memorisation` is empty where no check was made.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    study: str
    status: Literal["finished", "stopped"]
    message: str = ""
    privacy: str = NO_DP
    epsilon_cap: float | None = None
    plan_hash: str
    objective: str
    seed: int
    engine: Literal["inprocess", "flower", "servers"]
    started: str
    finished: str
    seconds: float
    versions: dict[str, str]
    base: str
    parameters: int
    shared_parameters: int
    sites: list[SiteFacts]
    left_out_sites: dict[str, str]
    planned_rounds: int
    rounds: list[Round]
    scores: list[TaskScore]
    comparisons: list[Comparison]
    not_scored: list[NotScored]
    memorisation: list[Memorisation] = []


class EmbeddingPoint(Result):
    """One simulated note on the map; `label` is what a person reads when pointing at it."""

    site: str
    category: str
    label: str
    x: float
    y: float


class EmbeddingMap(Result):
    """Note embeddings in two dimensions, for simulated data only.

    Never build one from a real site's notes: a point a note would leave the site, and a neighbourhood of points can say
    what a note is about. `explained` is the share of the variance on each axis (0 to 1).
    """

    points: list[EmbeddingPoint]
    model: str
    method: str = "PCA"
    explained: list[float]
