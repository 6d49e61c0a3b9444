"""The scores of a study over real servers: each site that trained is asked, after the last round, how the encoder does
there. One that has answered is not asked again, however often the study is resumed."""

from collections.abc import Callable

from flwr.app import Message, RecordDict

from common.memorisation import request_content
from common.messages import BadReply, Tensors
from common.plan import StudyPlan
from common.results import SiteFacts
from common.scores import SiteScores, read_reply, without
from server.checkpoint import State
from server.events import Event, OnEvent
from server.meeting import in_order, present

OnReply = Callable[[int, Message], None]
Ask = Callable[[dict[int, RecordDict], OnReply], dict[int, Message | None]]


def gather_scores(
    state: State,
    plan: StudyPlan,
    arrays: Tensors,
    sites: dict[int, SiteFacts],
    ask: Ask,
    keep: Callable[[list[SiteScores]], None],
    on_event: OnEvent,
) -> list[SiteScores]:
    """What each site that takes part says, in the order of their names; or why it says nothing.

    Args:
        arrays: the shared tensors after the last round.
        sites: node -> what its site brings, of those that are there.
        ask: sends each node its request, tells of each answer as it comes, and gives all, None where one did not come.
        keep: told of all answers so far, whenever there is another.
    """
    trained = state.trained
    found = {one.name: without(one.name, plan, "The site was not there to be asked.") for one in state.sites}
    found |= {name: without(name, plan, "The site returned from no round.") for name in found.keys() - trained}
    found |= {one.site: one for one in state.scores if one.answered}
    names = {node: facts.name for node, facts in sites.items()}
    nodes = in_order((node for node, name in names.items() if name in trained and not found[name].answered), names)
    came: set[str] = set()

    def said() -> list[SiteScores]:
        return [found[name] for name in sorted(found)]

    def phase() -> None:
        verb = "has" if len(came) == 1 else "have"
        text = f"waiting for scores: {len(came)} of {len(nodes)} sites {verb} answered"
        on_event(Event("phase", state.round, text=text))

    def take(node: int, reply: Message | None) -> None:
        name = names[node]
        try:
            found[name] = read_reply(present(reply), sites[node], plan)
        except BadReply as reason:
            found[name] = without(name, plan, f"No score came: {reason}.")
            on_event(Event("unmeasured", state.round, name, f"scores: {reason}", reason.code))

    def on_reply(node: int, reply: Message) -> None:
        take(node, reply)
        came.add(names[node])
        keep(said())
        phase()

    if nodes:
        phase()
        content = request_content(plan, state.run, state.round, arrays)
        for node, reply in ask(dict.fromkeys(nodes, content), on_reply).items():
            if names[node] not in came:
                take(node, reply)
        keep(said())
    return said()
