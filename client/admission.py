"""Whether a site can and may take part in a study: asked before round 1 by the coordinator, and before that by the
people who approve the plan."""

from client.approval import approval_of, approved
from client.ledger import Ledger
from client.notes.store import NoteStore
from client.objectives import make_objective
from client.objectives.declutr_public import no_public_text
from client.policy import check_policy, violations
from client.private_round import Terms
from client.site import Site, private_facts, site_facts
from client.units import count_units
from common.encoder import load_tokenizer
from common.errors import FednotesError, InputError
from common.plan import StudyPlan
from common.privacy import epsilon_of
from common.results import SiteFacts


def admitted(site: Site, notes: NoteStore, plan: StudyPlan) -> tuple[SiteFacts, Terms | None]:
    """What the site says of itself to the study, and its terms where training is private.

    Raises:
        FednotesError: as `check_policy` and `Terms.of`; `too-few-notes` below the site's own floor, `no-public-text`.
        InputError: as `make_objective`.
    """
    facts = site_facts(site.name, notes, plan)
    if (notes_used := facts.whole + facts.shortened) < site.config.min_notes:
        raise FednotesError(
            "too-few-notes",
            f"{site.name} has {notes_used} training notes that the objective can use; {facts.too_short} are too short.",
            "Add notes, lower min_notes, or lower objective.min_span.",
        )
    # What else it needs is missing now, not in round 1.
    objective = make_objective(plan, load_tokenizer(plan.encoder.base), notes)
    terms = None
    if privacy := plan.privacy:
        terms = Terms.of(plan, privacy, count_units(notes, privacy.unit))
        if objective.needs_public_text and site.config.public is None:
            raise no_public_text()
        facts = private_facts(facts, terms.units, site.config.policy)
    check_policy(site, plan, terms)
    if found := approval_of(site, plan):
        by = found.by if site.config.policy.release_approver else ""
        said = {"approved_by": by, "approved_at": found.time, "approval": found.hash}
        facts = facts.model_copy(update=said)
    return facts, terms


def refusals(site: Site, notes: NoteStore, plan: StudyPlan) -> list[FednotesError]:
    """All that the site would answer this plan with, but for the missing approval; a code once."""
    terms, found = None, []
    try:
        if plan.privacy:
            terms = Terms.of(plan, plan.privacy, count_units(notes, plan.privacy.unit))
            found += _beyond_budget(site, plan, terms)
    except FednotesError as error:
        found.append(error)
    found = violations(site.config.policy, plan, terms) + found
    try:
        admitted(site, notes, plan)
    except FednotesError as error:
        found.append(error)
    once: dict[str, FednotesError] = {}
    for one in found:
        once.setdefault(one.code, one)
    return list(once.values())


def _beyond_budget(site: Site, plan: StudyPlan, terms: Terms) -> list[FednotesError]:
    """Whether the ledger has room for the whole study, which is more than its first round would notice."""
    assert plan.privacy is not None
    delta, most = plan.privacy.delta, site.config.policy.max_epsilon
    entries = Ledger(site.folder).entries()
    if other := next((entry.delta for entry in entries if entry.delta != delta), None):
        return [
            InputError(
                "delta-changed",
                f"The plan counts at delta {delta:g}, this site's ledger at {other:g}.",
                f"Plan privacy.delta = {other:g}.",
            )
        ]
    after = epsilon_after(site, plan, terms)
    if most is None or not entries or after <= most:
        return []
    return [
        InputError(
            "budget-spent",
            f"With this study the ledger would stand at epsilon {after:.3g}; the site's policy allows {most:g} in all.",
            "Plan less, or raise policy.max_epsilon in site.toml.",
        )
    ]


def epsilon_after(site: Site, plan: StudyPlan, terms: Terms) -> float:
    """Epsilon of all studies of the site, were the whole of this one added to what the ledger has."""
    assert plan.privacy is not None
    history = [(entry.noise_multiplier, entry.sample_rate, entry.steps) for entry in Ledger(site.folder).entries()]
    history.append((terms.noise_multiplier, terms.rate, terms.total_steps))
    return epsilon_of(history, plan.privacy.delta, plan.privacy.accountant)


def unapproved(site: Site, plan: StudyPlan) -> FednotesError | None:
    """Why the plan is not approved as it stands, or None."""
    try:
        approved(site, plan)
    except FednotesError as error:
        return error
    return None
