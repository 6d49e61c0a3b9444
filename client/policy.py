"""What a site's policy says of a plan: every line that the plan goes beyond. It can only be stricter than a plan."""

from typing import TYPE_CHECKING

from common.errors import FednotesError
from common.plan import StudyPlan

if TYPE_CHECKING:
    from client.private_round import Terms
    from client.site import Policy, Site


def check_policy(site: "Site", plan: StudyPlan, terms: "Terms | None") -> None:
    """Raises FednotesError, a code, where the site's policy is stricter than the plan; it is never looser.

    `terms` are known once the notes are: without them all is checked but epsilon.
    """
    for violation in violations(site.config.policy, plan, terms):
        raise violation


def tells_of_notes(plan: StudyPlan, policy: "Policy") -> bool:
    """Whether figures that rest on the site's notes leave: of private training no epsilon covers them."""
    return plan.privacy is None or policy.release_uncovered


def tells_scores(plan: StudyPlan, policy: "Policy") -> bool:
    """Whether scores on the plan's tasks leave."""
    return plan.evaluation.release_scores and policy.release_scores and tells_of_notes(plan, policy)


def violations(policy: "Policy", plan: StudyPlan, terms: "Terms | None") -> list[FednotesError]:
    """Every line of the policy that the plan goes beyond."""
    found, privacy, kind = [], plan.privacy, plan.objective.kind
    if kind not in policy.objectives:
        found.append(
            FednotesError(
                "objective-beyond-policy",
                f"The plan trains {kind}; the site's policy allows {', '.join(policy.objectives)}.",
                "Plan another objective, or add it to policy.objectives in site.toml.",
            )
        )
    if policy.max_rounds is not None and plan.federation.rounds > policy.max_rounds:
        found.append(
            FednotesError(
                "rounds-beyond-policy",
                f"The plan has {plan.federation.rounds:,} rounds; the site's policy allows {policy.max_rounds:,}.",
                "Plan fewer rounds, or raise policy.max_rounds in site.toml.",
            )
        )
    if policy.max_exposure is not None and not plan.canaries:
        found.append(
            FednotesError(
                "canaries-required",
                "The site's policy bounds how far canaries may be exposed, and the plan has none.",
                "Plan release.canaries, or remove policy.max_exposure from site.toml.",
            )
        )
    if privacy is None:
        if policy.require_privacy:
            found.append(
                FednotesError(
                    "privacy-required",
                    "The site takes part in private training only, and the plan has none.",
                    "Plan [privacy], or set policy.require_privacy = false in site.toml.",
                )
            )
        return found
    if policy.unit == "patient" and privacy.unit == "note":
        found.append(
            FednotesError(
                "unit-beyond-policy",
                "The plan protects single notes; the site asks for whole patients.",
                'Plan privacy.unit = "patient".',
            )
        )
    if policy.exact_clipping and privacy.engine != "loop":
        found.append(
            FednotesError(
                "clipping-beyond-policy",
                f"The plan clips by {privacy.engine}; the site asks for each unit to be computed alone.",
                'Plan privacy.engine = "loop", or set policy.exact_clipping = false in site.toml.',
            )
        )
    if policy.max_epsilon is not None and terms is not None and terms.epsilon > policy.max_epsilon:
        found.append(
            FednotesError(
                "epsilon-beyond-policy",
                f"The study would spend epsilon {terms.epsilon:.3g}; the site's policy allows {policy.max_epsilon:g}.",
                "Plan less, or raise policy.max_epsilon in site.toml.",
            )
        )
    return found
