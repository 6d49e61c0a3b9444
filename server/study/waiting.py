"""Before a study starts: wait until its sites are online, not for ever, and show who is."""

import time
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from common.errors import InputError, MachineError, StudyError
from common.plan import StudyPlan
from server.deployment.config import Server
from server.deployment.control import Control, Node

_LOOK = 1.0
_AWAY = 60.0  # seconds: a SuperLink that has just begun, or died, answers again within them


def wait_for_sites(server: Server, plan: StudyPlan, console: Console | None) -> list[str]:
    """The sites that are online when the study can start: all that the plan names, or `federation.min_sites` of all.

    After `federation.site_wait` seconds it starts without those that are missing, or not at all.

    Args:
        console: where a live table shows who is there; None for none.

    Raises:
        InputError: `site-unknown`, where the plan names a site that the coordinator has not registered.
        StudyError: `too-few-sites`.
        MachineError: there is no SuperLink.
    """
    federation = plan.federation
    began = time.monotonic()
    with Control(server) as control, Live(console=console or Console(quiet=True), transient=True) as live:
        while True:
            nodes = _nodes(control)
            if unknown := sorted(set(federation.sites) - {node.name for node in nodes}):
                raise InputError(
                    "site-unknown",
                    f"The plan names {', '.join(unknown)}; this coordinator has no key of such a site.",
                    "Register it: fednotes server add-site DIR NAME --key FILE, or mend federation.sites.",
                )
            wanted = [node for node in nodes if not federation.sites or node.name in federation.sites]
            there = sorted(node.name for node in wanted if node.online)
            enough = len(there) >= federation.min_sites
            if enough and (not federation.sites or len(there) == len(wanted)):
                return there
            left = federation.site_wait - (time.monotonic() - began)
            if left <= 0:
                break
            live.update(_table(wanted, plan, left))
            time.sleep(_LOOK)
    if enough:
        return there
    missing = sorted(node.name for node in wanted if not node.online)
    raise StudyError(
        "too-few-sites",
        f"{len(there)} sites are online after {federation.site_wait:g} s; the plan asks for {federation.min_sites}. "
        f"Missing: {', '.join(missing) or 'no other site is registered'}.",
        "Ask the sites to run `fednotes site start`, or lower federation.min_sites.",
    )


def _nodes(control: Control) -> list[Node]:
    """All that are registered, as soon as the SuperLink says so. Raises MachineError where it does not for a minute."""
    end = time.monotonic() + _AWAY
    while True:
        try:
            return control.nodes()
        except MachineError as error:
            if error.code != "superlink-unreachable" or time.monotonic() > end:
                raise
        time.sleep(_LOOK)


def _table(nodes: list[Node], plan: StudyPlan, left: float) -> Table:
    title = f"{plan.study.name}: waiting for sites, {left:.0f} s more · {plan.privacy_words}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("site", "", "since"):
        table.add_column(column, no_wrap=True)
    for node in sorted(nodes, key=lambda node: node.name):
        state = Text("online", style="green") if node.online else Text("not online", style="red")
        table.add_row(Text(node.name), state, _ago(node.since) if node.since else "never")
    return table


def _ago(then: datetime) -> str:
    minutes = int((datetime.now(UTC) - then).total_seconds()) // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
