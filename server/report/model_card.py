"""`README.md` in the folder of a model: what it is, how it was trained, and whether anything bounds what it reveals."""

from common.results import NO_DP, Summary
from server.report.words import OBJECTIVES, rounds_sentence

_NO_BOUND = (
    "Nothing bounds what these weights may reveal about single notes: handle the model as you would handle the notes."
)
_BOUND = (
    "Each site added noise before anything left it; its ledger has what was spent, and the report beside this folder "
    "shows it site by site. What a site does with its own notes and this model is not covered, nor are scores in the "
    "report."
)


def model_card(summary: Summary) -> str:
    """The card of the run's model, in Markdown."""
    bound = _NO_BOUND if summary.privacy == NO_DP else _BOUND
    privacy = summary.privacy[:1].upper() + summary.privacy[1:]
    lines = [
        f"# {summary.study}",
        "",
        f"A text encoder that {len(summary.sites)} sites trained together from `{summary.base}`, by "
        f"{OBJECTIVES[summary.objective]}. {rounds_sentence(summary)} Pooling: mean of the last layer.",
        "",
        f"**{privacy}.** {bound}",
        "",
        f"Plan {summary.plan_hash}, seed {summary.seed}, Fednotes {summary.versions['fednotes']}.",
        "",
    ]
    return "\n".join(lines)
