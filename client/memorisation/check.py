"""The memorisation check of a site, and its veto."""

from client.ledger import secret_key
from client.memorisation.canaries import make_canaries
from client.memorisation.exposure import canary_exposure
from client.memorisation.identifiers import identifier_completion
from client.notes.store import NoteStore
from client.objectives import Objective
from client.policy import tells_of_notes
from client.site import Policy, Site
from client.training import site_key
from common.encoder import Encoder
from common.errors import FednotesError
from common.memorisation import EXPOSED
from common.messages import Request
from common.results import CanaryExposure, Memorisation


def check_memorisation(
    site: Site, notes: NoteStore, request: Request, encoder: Encoder, objective: Objective
) -> Memorisation:
    """What the encoder knows by heart of this site.

    Canaries are no notes, and what the encoder says of them is made of nothing but itself: it may leave a private
    study. How it completes the site's own identifiers rests on its notes: that leaves where no epsilon is promised, or
    the policy releases what none covers.

    Args:
        encoder: the final one, with the MLM head that this site has.

    Raises:
        FednotesError: `no-check`, `no-mlm-head`, `no-digits`, or `nothing-asked`: there is nothing that may be told.
    """
    plan, policy = request.plan, site.config.policy
    if plan.release is None or not plan.release.memorisation:
        raise FednotesError("no-check", "The plan has no memorisation check.")
    if encoder.fresh_head and not objective.reads_mlm_head:
        raise FednotesError(
            "no-mlm-head",
            "Nothing has trained the MLM head of the encoder, so that it cannot be asked for words.",
            "Plan an objective with MLM, or a base that has its MLM head.",
        )
    canaries = None
    if plan.canaries:
        made = make_canaries(plan, encoder.tokenizer, secret_key(site.folder), request.run)
        canaries = canary_exposure(encoder, made, plan.encoder.max_length, plan.release.repeats)
    identifiers = None
    if tells_of_notes(plan, policy):
        key, most = site_key(plan.study.seed, site.name), plan.evaluation.held_out_notes
        identifiers = identifier_completion(encoder, notes, plan.encoder.max_length, key, most)
    if not (canaries or identifiers):
        raise FednotesError(
            "nothing-asked",
            f"{site.name} has too few identifiers in its notes to say anything of them, or may not; and no canaries.",
            "Plan release.canaries.",
        )
    return Memorisation(site=site.name, veto=_veto(policy, canaries), canaries=canaries, identifiers=identifiers)


def _veto(policy: Policy, canaries: CanaryExposure | None) -> str:
    most = policy.max_exposure
    return EXPOSED if most is not None and canaries is not None and canaries.planted_max > most else ""
