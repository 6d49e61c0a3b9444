"""What a plan would do at this site, on one page: for the people who decide about it."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from client.admission import epsilon_after, refusals, unapproved
from client.alone import site_steps
from client.ledger import Ledger
from client.policy import tells_of_notes, tells_scores
from client.private_round import Terms
from client.setup.speed import Speed, kept_speed
from client.site import Site, site_facts
from client.units import count_units
from common.encoder import Encoder, load_encoder
from common.errors import FednotesError
from common.package import package_digest
from common.plan import StudyPlan
from common.trainable import train_only

_FLOWER_BYTES = 8  # a site needs, beside training, some 8 times the weights while they travel


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Leaves(_Part):
    """A message that would leave. `when` says how often, `noised` whether what is in it went through the noise."""

    message: Literal["describe", "train", "evaluate", "memorisation", "scores", "error"]
    when: str
    what: str
    bytes: int
    noised: bool


class Refusal(_Part):
    """An answer that the plan would get as things stand, and what to do."""

    code: str
    message: str
    next_step: str


class Use(_Part):
    """Counts of this site's notes, of which the objective can use `whole` and `shortened` training notes. `units`:
    patients or notes that are protected, in private training."""

    train: int
    dev: int
    test: int
    whole: int
    shortened: int
    too_short: int
    units: int | None


class Budget(_Part):
    """Epsilon of this study, of all studies so far, of all with this one, and the most that the policy allows."""

    unit: Literal["patient", "note"]
    delta: float
    noise_multiplier: float
    study: float
    spent: float
    after: float
    most: float | None


class Tensor(_Part):
    name: str
    shape: list[int]


class Outlook(_Part):
    """The page. `hours` and `memory` (bytes) are None where no speed was measured."""

    site: str
    study: str
    plan_hash: str
    package: str
    base: str
    objective: str
    rounds: int
    steps_per_round: int
    privacy: str
    notes: Use
    budget: Budget | None
    hours: float | None
    memory: int | None
    tensors: list[Tensor]
    leaves: list[Leaves]
    stays: list[str]
    refusals: list[Refusal]
    approval: Refusal | None


def look(site: Site, plan: StudyPlan) -> Outlook:
    """Raises FednotesError where the notes or the base cannot be opened, or the ledger is damaged."""
    encoder = load_encoder(plan.encoder.base, plan.study.seed)
    train_only(encoder, plan.training.trainable, plan.training.lora_rank, plan.study.seed)
    encoder.set_categories(plan.shared_categories, shared=True, bias=plan.category_bias)
    notes = site.notes(encoder.tokenizer)
    facts = site_facts(site.name, notes, plan)
    units = count_units(notes, plan.privacy.unit) if plan.privacy else None
    steps = site_steps(plan, notes)
    tensors = _tensors(encoder, plan)
    speed = kept_speed(site.folder, plan)
    size = sum(math.prod(tensor.shape) for tensor in tensors)
    return Outlook(
        site=site.name,
        study=plan.study.name,
        plan_hash=plan.hash(),
        package=package_digest(),
        base=plan.encoder.base,
        objective=plan.objective.kind,
        rounds=plan.federation.rounds,
        steps_per_round=steps,
        privacy=plan.privacy_words,
        notes=Use.model_validate(
            {name: getattr(facts, name) for name in Use.model_fields if name != "units"} | {"units": units}
        ),
        budget=_budget(site, plan, units),
        hours=_hours(plan, steps, speed, tells_scores(plan, site.config.policy)),
        memory=speed and speed.memory + _FLOWER_BYTES * 4 * size,
        tensors=tensors,
        leaves=_leaves(site, plan, size),
        stays=_stays(plan, tells_scores(plan, site.config.policy)),
        refusals=[_refusal(error) for error in refusals(site, notes, plan)],
        approval=_refusal(error) if (error := unapproved(site, plan)) else None,
    )


def _hours(plan: StudyPlan, steps: int, speed: Speed | None, scored: bool) -> float | None:
    """`scored`: the site trains once more, alone, for scores that leave; how long the scoring takes is not known."""
    if speed is None:
        return None
    training = alone = steps * speed.step
    if plan.training.seconds_per_round is not None:
        training = min(training, plan.training.seconds_per_round + speed.step)
    rounds = plan.federation.rounds
    return (rounds * (training + alone * scored) + (rounds + 1) * speed.evaluate) / 3600


def _tensors(encoder: Encoder, plan: StudyPlan) -> list[Tensor]:
    shared = encoder.shared(plan.federation.share)
    return [Tensor(name=name, shape=list(value.shape)) for name, value in shared.items()]


def _budget(site: Site, plan: StudyPlan, units: int | None) -> Budget | None:
    """None without privacy, and where no terms can be had: the refusals say why."""
    if plan.privacy is None or units is None:
        return None
    try:
        terms = Terms.of(plan, plan.privacy, units)
    except FednotesError:
        return None
    return Budget(
        unit=plan.privacy.unit,
        delta=plan.privacy.delta,
        noise_multiplier=terms.noise_multiplier,
        study=terms.epsilon,
        spent=Ledger(site.folder).total(),
        after=epsilon_after(site, plan, terms),
        most=site.config.policy.max_epsilon,
    )


def _leaves(site: Site, plan: StudyPlan, size: int) -> list[Leaves]:
    """`size` is how many numbers the shared tensors have."""
    policy, private = site.config.policy, plan.privacy is not None
    uncovered = tells_of_notes(plan, policy)
    width = 4 if plan.federation.wire == "float32" else 2
    counts = "numbers of notes in each split, used and too short, and of tokens"
    units = f"the number of {plan.privacy.unit}s in training" if plan.privacy else ""
    described = ", ".join(part for part in (units, counts if uncovered else "") if part)
    found = [
        Leaves(
            message="describe",
            when="once",
            what=f"the site's name, when the plan was approved{' and by whom' * policy.release_approver}, {described}",
            bytes=0,
            noised=False,
        ),
        Leaves(
            message="train",
            when=f"{plan.federation.rounds:,} times",
            what="the shared tensors as training here left them",
            bytes=size * width,
            noised=private,
        ),
        *_numbers(plan),
    ]
    if uncovered:
        space = plan.evaluation.embedding_space and policy.release_embedding_space
        figures = "; figures of the embedding space of held-out notes" if space else ""
        found.append(
            Leaves(
                message="evaluate",
                when=f"{plan.federation.rounds + 1:,} times",
                what=f"the loss on held-out notes and its parts, numbers of notes and tokens{figures}",
                bytes=0,
                noised=False,
            )
        )
    if plan.release and plan.release.memorisation:
        asked = ["how far canaries are exposed"] if plan.canaries else []
        asked += ["how well identifiers are completed in notes trained on and held out"] if uncovered else []
        what = " and ".join(asked) or "a code: nothing may be told"
        found.append(Leaves(message="memorisation", when="once, at the end", what=what, bytes=0, noised=False))
    if plan.evaluation.release_scores:
        what = "a code: the policy keeps the scores here"
        if tells_scores(plan, policy):
            what = (
                f"on {', '.join(plan.evaluation.tasks)}: macro-F1, accuracy and AUROC of the shared encoder, training "
                "alone, the base and TF-IDF, their differences, intervals, numbers of notes; no class, no other task"
            )
        found.append(Leaves(message="scores", when="once, at the end", what=what, bytes=0, noised=False))
    return [*found, Leaves(message="error", when="when it fails", what="a code", bytes=0, noised=False)]


def _numbers(plan: StudyPlan) -> list[Leaves]:
    """What goes with the tensors."""
    when = f"{plan.federation.rounds:,} times"
    if plan.privacy is None:
        what = "numbers of training notes, steps and tokens, the training loss and its parts, seconds"
        return [Leaves(message="train", when=when, what=what, bytes=0, noised=False)]
    what = f"numbers of steps and {plan.privacy.unit}s, the noise, epsilon so far: none rests on what notes hold"
    found = [Leaves(message="train", when=when, what=what, bytes=0, noised=False)]
    if plan.privacy.release_loss:
        found.append(Leaves(message="train", when=when, what="the training loss", bytes=0, noised=True))
    return found


def _stays(plan: StudyPlan, scored: bool) -> list[str]:
    heads = [] if plan.federation.share == "encoder+mlm-head" else ["the MLM head"]
    scores = (
        "classes, and all scores on tasks that the plan does not name" if scored else "scores on the site's own tasks"
    )
    return [
        "notes, tokens, labels, categories, patients' and files' names",
        "embeddings of notes",
        *heads,
        f"heads over the site's own categories and tasks, the optimiser's state, {scores}",
        "the ledger, receipts, approvals and keys",
    ]


def _refusal(error: FednotesError) -> Refusal:
    return Refusal(code=error.code, message=error.message, next_step=error.next_step)
