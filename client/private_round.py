"""One round of private training at a site, from the terms to the reply: charged before its first step, answered again
by the very same update if it is asked for again."""

import hashlib
import hmac
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from client import outbox
from client.dpsgd import Mechanism, sensitivity, train_privately
from client.ledger import Charge, Entry, Ledger, locked, secret_key
from client.notes.store import NoteStore
from client.objectives import Objective
from client.policy import check_policy
from client.receipt import Noise, verify
from client.site import Site
from client.training import check_finite, usable
from client.units import count_units, units_of
from common.encoder import Encoder, tensors_digest
from common.errors import FednotesError
from common.messages import Request, Tensors, TrainReply
from common.plan import StudyPlan
from common.plan_sections import Privacy
from common.privacy import epsilon_of, noise_multiplier, sampling_rate, steps_per_round
from common.results import PrivacySpent
from common.wire import up

_LOCK_FILE = "private-round.lock"


@dataclass(frozen=True)
class Terms:
    """What a plan means at a site of so many units: public figures all, for none rests on what the notes hold."""

    units: int
    rate: float
    steps: int
    total_steps: int
    noise_multiplier: float
    epsilon: float

    @classmethod
    def of(cls, plan: StudyPlan, privacy: Privacy, units: int) -> "Terms":
        """Raises InputError `epsilon-too-small`, and FednotesError `delta-too-large`."""
        if privacy.delta * units > 1:
            raise FednotesError(
                "delta-too-large",
                f"privacy.delta = {privacy.delta:g} is above 1 / units: the site has {units:,}.",
                f"Lower it, best to {0.1 / units:.0e} or less.",
            )
        rate = sampling_rate(plan.training.batch_size, units)
        steps = steps_per_round(plan.training, units)
        total = steps * plan.federation.rounds
        noise = noise_multiplier(privacy, rate, total)
        return cls(
            units, rate, steps, total, noise, epsilon_of([(noise, rate, total)], privacy.delta, privacy.accountant)
        )


@dataclass(frozen=True)
class Done:
    """What is to leave, the noise that it has, and the entry that was charged for it."""

    reply: TrainReply
    update: Tensors
    noise: Noise
    entry: Entry


def private_round(
    site: Site,
    notes: NoteStore,
    read: NoteStore,
    request: Request,
    encoder: Encoder,
    objective: Objective,
    save: Callable[[], None],
    on_step: Callable[[int, int], None],
) -> Done:
    """Charge, train, and keep what is to leave: one round at a time, for two answers to the same request, worked out
    at once, could differ in their rounding under equal noise.

    Args:
        read: the notes as training reads them, with the site's canaries: these are units like any other, but no count
            that leaves has them.
        encoder: with the request's weights.
        save: keeps what stays at the site, before the update may leave.

    Raises:
        FednotesError: of the ledger, of the policy, or as `Terms.of` and `train_privately`.
    """
    with locked(site.folder / _LOCK_FILE):
        plan, privacy = request.plan, request.plan.privacy
        assert privacy is not None  # the caller has looked
        units = units_of(read, usable(objective, read, "train"), privacy.unit)
        terms = Terms.of(plan, privacy, count_units(notes, privacy.unit))
        check_policy(site, plan, terms)
        public = site.public_notes(encoder.tokenizer) if objective.needs_public_text else None
        sent = verify(site.folder)
        secret = secret_key(site.folder)
        entry = Ledger(site.folder).charge(
            _charge(request, privacy, terms, _inputs(request, read, public, encoder)),
            study_cap=terms.epsilon if privacy.epsilon is None else privacy.epsilon,  # whatever rounds are asked for
            total_cap=site.config.policy.max_epsilon,
        )
        spread = terms.noise_multiplier * sensitivity(objective, privacy)
        noise = Noise(noise_multiplier=terms.noise_multiplier, standard_deviation=spread, steps=terms.steps)
        if kept := outbox.kept(site.folder, request.run, request.round):
            update, said = kept
            return Done(_reply(said), update, noise, entry)
        if entry.hash in {receipt.ledger for receipt in sent}:
            # To compute it again would give the same update only where not a bit of arithmetic has changed.
            raise FednotesError(
                "round-replayed",
                f"The update of round {request.round} left this site before, and is no longer kept.",
                "Go on from a later round, or start the study as a new run.",
            )
        trained = train_privately(
            encoder,
            objective,
            read,
            public,
            units,
            plan.training,
            privacy,
            Mechanism(
                terms.noise_multiplier, terms.rate, hmac.digest(secret, bytes.fromhex(entry.nonce), hashlib.sha256)
            ),
            first_step=(request.round - 1) * terms.steps,
            steps=terms.steps,
            total_steps=terms.total_steps,
            proximal_mu=request.proximal_mu,
            on_step=on_step,
        )
        spent = PrivacySpent(
            unit=privacy.unit,
            units=terms.units,
            noise_multiplier=terms.noise_multiplier,
            sample_rate=terms.rate,
            steps=terms.steps,
            epsilon=entry.epsilon_study,
            delta=privacy.delta,
            ledger=entry.hash,
        )
        loss = trained.loss if privacy.release_loss and math.isfinite(trained.loss) else None
        # Every site weighs the same, and neither tokens nor seconds leave: they tell of the notes that were drawn.
        reply = TrainReply(1, trained.steps, 0, loss, 0.0, {}, spent)
        check_finite(encoder)
        update = up(encoder.shared_arrays(plan.federation.share), request.arrays, plan.federation.wire)
        save()
        outbox.keep(site.folder, request.run, request.round, update, _words(reply))
        return Done(reply, update, noise, entry)


def _inputs(request: Request, notes: NoteStore, public: NoteStore | None, encoder: Encoder) -> str:
    """SHA-256 (hex) over all that the round is computed from, so that equal noise is never put on another sum."""
    heads = encoder.category_head.named_parameters() if encoder.category_head else ()
    weights = tensors_digest([*encoder.model.named_parameters(), *heads])
    rows = hashlib.sha256(notes.rows.tobytes()).hexdigest()
    said = [weights, notes.digest, rows, public and public.digest, request.plan.hash(), request.proximal_mu]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _charge(request: Request, privacy: Privacy, terms: Terms, inputs: str) -> Charge:
    return Charge(
        run=request.run,
        study=request.plan.study.name,
        plan_hash=request.plan.hash(),
        round=request.round,
        unit=privacy.unit,
        units=terms.units,
        noise_multiplier=terms.noise_multiplier,
        sample_rate=terms.rate,
        steps=terms.steps,
        delta=privacy.delta,
        accountant=privacy.accountant,
        inputs=inputs,
    )


def _words(reply: TrainReply) -> dict[str, object]:
    assert reply.privacy is not None  # a private one
    return asdict(reply) | {"privacy": reply.privacy.model_dump()}


def _reply(words: dict[str, object]) -> TrainReply:
    known: dict = dict(words)
    return TrainReply(**known | {"privacy": PrivacySpent.model_validate(known["privacy"])})
