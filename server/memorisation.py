"""The memorisation check of a run: each site that trained is asked once, after the last round, what the encoder knows
by heart."""

from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict

from common import memorisation
from common.messages import BadReply, Tensors
from common.plan import StudyPlan
from common.results import Memorisation
from server.checkpoint import State
from server.meeting import in_order, present


def check_memorisation(
    state: State,
    plan: StudyPlan,
    arrays: Tensors,
    names: dict[int, str],
    ask: Callable[[dict[int, RecordDict]], dict[int, Message | None]],
) -> list[Memorisation]:
    """What each site that takes part says, in the order of their names; or why it says nothing.

    Args:
        arrays: the shared tensors after the last round.
        names: node -> site, of those that are there.
        ask: sends each node its request, and gives its answer, None where there was none in time.
    """
    trained = state.trained
    content = memorisation.request_content(plan, state.run, state.round, arrays)
    found = {site.name: Memorisation(site=site.name, reason="it was not there to be asked") for site in state.sites}
    found |= {name: _silent(name, "it returned from no round") for name in found.keys() - trained}
    nodes = in_order((node for node, name in names.items() if name in trained), names)
    for node, reply in ask(dict.fromkeys(nodes, content)).items():
        try:
            found[names[node]] = memorisation.read_reply(present(reply), names[node], plan)
        except BadReply as reason:
            found[names[node]] = _silent(names[node], str(reason))
    return [found[name] for name in sorted(found)]


def vetoes(found: Iterable[Memorisation]) -> list[str]:
    """The sites that let the model not be released, by name."""
    return [one.site for one in found if one.veto]


def _silent(site: str, reason: str) -> Memorisation:
    return Memorisation(site=site, reason=reason)
