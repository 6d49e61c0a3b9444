"""What went wrong in a study, in sentences with a next step, by the code with which a site or a round names it.

Only a code leaves a site (docs/errors.md says more of each): the details are in its own log.
"""

from typing import Literal

SiteState = Literal["waiting", "sending", "training", "returned", "late", "refused", "failed", "out"]

NO_REPLY, NOT_ONLINE, RESTS, SPENT, TOO_LARGE = "no-reply", "not-online", "rests", "budget-spent", "update-too-large"
_INVALID, _LOST = "reply-invalid", "node-lost"  # as common.messages has them
_BY_POLICY = {
    "plan-not-approved",
    "package-changed",
    "objective-beyond-policy",
    "rounds-beyond-policy",
    "privacy-required",
    "unit-beyond-policy",
    "epsilon-beyond-policy",
    "delta-changed",
    "delta-too-large",
}
_ITS_LOG = "Ask the site: the details are in its own log."

# code -> what happened, and what the coordinator can do
_KNOWN = {
    NO_REPLY: ("did not answer in time", "Ask whether it is online; the next round asks it again by itself."),
    RESTS: (
        "is left alone for a while, since it failed twice",
        "Ask it what failed; it is asked again by itself.",
    ),
    SPENT: ("has spent its privacy budget and left the study", "Nothing: the study goes on without it."),
    _INVALID: (
        "sent a reply that cannot be used",
        "Compare `fednotes version` on both sides.",
    ),
    TOO_LARGE: ("sent an update that is larger than the plan allows", "Ask the site; or raise max_update_norm."),
    _LOST: ("was lost while it worked", "It is asked again when it is back; ask the site if it does not come."),
    "site-failed": ("failed", "Ask the site: the details are in its own log."),
    "name-differs": ("calls itself by another name than it is registered under", "Ask it to mend name in site.toml."),
    "name-taken": ("has the name of another node", "Remove one of the two: fednotes server remove-site."),
    "not-in-plan": ("is not named in the plan", "Add it to federation.sites, in a new study."),
    NOT_ONLINE: ("is not online", "Ask it to run `fednotes site start`."),
    "plan-not-approved": ("has not approved the plan, or withdrew", "Ask the site to inspect and approve it."),
    "package-changed": ("has another package than when the plan was approved", "Ask the site to approve it again."),
    "objective-beyond-policy": ("does not allow this objective", "Plan another, or run without the site."),
    "rounds-beyond-policy": ("does not allow so many rounds", "Plan fewer, or run without the site."),
    "privacy-required": ("takes part in private training only", "Plan [privacy], or run without the site."),
    "unit-beyond-policy": ("protects whole patients only", 'Plan privacy.unit = "patient", or run without the site.'),
    "epsilon-beyond-policy": ("does not allow so large an epsilon", "Plan less, or run without the site."),
    "delta-changed": ("counts at another delta", "Plan the delta of the site's ledger."),
    "delta-too-large": ("is too small for the plan's delta", "Lower privacy.delta."),
    "too-few-notes": ("has too few notes", "Run without the site, or ask it for more notes."),
    "out-of-memory": ("ran out of memory", "Lower batch_size or max_length in the plan."),
    "worker-died": ("lost the process that trains, most often for want of memory", "Lower batch_size or max_length."),
    "took-too-long": ("gave up, for the round took too long", "Plan shorter rounds, or ask it to raise its limit."),
    "node-restarted": ("was restarted while it worked", "Nothing: it is asked again."),
    "diverged": ("trained to weights that are not numbers", "Lower learning_rate in the plan."),
    "version-differs": ("runs another version of Fednotes", "Install the same version on both sides."),
    "package-differs": ("runs other files of the same version", "Install the same package on both sides."),
    "base-differs": ("has other weights of the base", "Install the same files of the base on both sides."),
    "disk-full": ("has no space left on its disk", "Ask the site to free some."),
    "ledger-damaged": ("found its privacy ledger damaged", "Ask the site to put it back from a backup."),
    "bundle-has-code": ("refused a bundle that carries code", "Start studies with `fednotes server run` alone."),
    "bundle-not-ours": ("refused a bundle that is not Fednotes'", "Start studies with `fednotes server run` alone."),
    "internal-error": ("met a defect of Fednotes", "Ask the site for its log, and report it."),
}


def site_state(code: str) -> SiteState:
    """Of a site that is not in a round, by the code of the reason."""
    if code in _BY_POLICY:
        return "refused"
    if code in (RESTS, SPENT, _LOST, NOT_ONLINE):
        return "out"
    return "late" if code == NO_REPLY else "failed"


def sentence(site: str, code: str) -> str:
    """What happened to a site, in words that name it."""
    happened, _ = _KNOWN.get(code, (f"reports {code}", ""))
    return f"{site} {happened}."


def next_step(code: str) -> str:
    """What the coordinator can do about it."""
    return _KNOWN.get(code, ("", _ITS_LOG))[1]
