"""The pages that `fednotes site inspect`, `check`, `approvals` and `report` print."""

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.approval import Approval
from client.setup.finding import Finding
from client.setup.outlook import Outlook, Refusal
from client.setup.report import SiteReport
from common.results import NO_DP, Estimate

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def show_finding(finding: Finding, console: Console) -> None:
    style = _STYLES[finding.state]
    _say(console, f"[{style}]{finding.state:<8}[/] {escape(finding.name)}: {escape(finding.text)}")
    if finding.fix:
        _say(console, f"         {escape(finding.fix)}")


def show_outlook(page: Outlook, console: Console) -> None:
    """The whole page."""
    _say(console, f"[bold]{escape(page.study)}[/] at [bold]{escape(page.site)}[/]")
    console.print(_facts(page))
    _say(console, "[bold]What would leave[/]")
    console.print(_leaving(page))
    _say(console, "[bold]What would not leave[/]")
    for line in page.stays:
        _say(console, f"  {escape(line)}")
    show_verdict(page, console)
    _say(console, "Compare these with the coordinator, by telephone:")
    _say(console, f"  plan     {page.plan_hash}")
    _say(console, f"  package  {page.package}")


def show_essence(page: Outlook, console: Console) -> None:
    """What a person has to know to approve it."""
    _say(console, f"[bold]{escape(page.study)}[/] at [bold]{escape(page.site)}[/]")
    console.print(_facts(page))
    show_verdict(page, console)


def show_verdict(page: Outlook, console: Console) -> None:
    if page.refusals:
        _say(console, "[bold red]This site would refuse it:[/]")
        for one in page.refusals:
            _refusal(one, console)
    else:
        _say(console, "It is within this site's policy.")
    if page.approval:
        _say(console, f"Not approved ({page.approval.code}): {escape(page.approval.message)}")


def _facts(page: Outlook) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    notes, budget = page.notes, page.budget
    kept = f"{notes.whole + notes.shortened:,} of {notes.train:,} training notes"
    some = f" ({notes.shortened:,} in part)" if notes.shortened else ""
    rows = {
        "trains": f"{escape(page.base)}, {page.objective}, {page.rounds:,} rounds x {page.steps_per_round:,} steps",
        "reads": f"{kept}{some}; {notes.too_short:,} are too short. {notes.dev:,} dev notes are for held-out losses.",
        "takes": "not known: run fednotes site check with --plan first"
        if page.hours is None
        else f"{_duration(page.hours)}, {(page.memory or 0) / 1e9:.1f} GB of memory, by the speed measured here",
        "privacy": f"[bold red]{NO_DP.upper()}[/]" if page.privacy == NO_DP else escape(page.privacy),
    }
    if budget:
        most = "no limit" if budget.most is None else f"at most {budget.most:g}"
        rows["epsilon"] = (
            f"{budget.study:.3g} for each of {notes.units:,} {budget.unit}s, noise multiplier "
            f"{budget.noise_multiplier:g}; the ledger has {budget.spent:.3g} and would have {budget.after:.3g} ({most})"
        )
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _leaving(page: Outlook) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("message", "when", "what", "size", "noise"):
        table.add_column(name, overflow="fold", justify="right" if name == "size" else "left")
    for one in page.leaves:
        what = f"{one.what} ({len(page.tensors)} tensors, {_names(page)})" if one.bytes else one.what
        size = f"{one.bytes / 1e6:,.1f} MB" if one.bytes else "numbers"
        table.add_row(one.message, one.when, escape(what), size, "with noise" if one.noised else "none")
    return table


def _names(page: Outlook) -> str:
    names = [tensor.name for tensor in page.tensors]
    return f"{names[0]} to {names[-1]}; --json names all" if names else "none"


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _refusal(one: Refusal, console: Console) -> None:
    _say(console, f"  {one.code}: {escape(one.message)}")
    if one.next_step:
        _say(console, f"    {escape(one.next_step)}")


def show_approvals(lines: Iterable[Approval], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "time (UTC)", "decision", "by", "study", "plan", "package"):
        table.add_column(name)
    for one in lines:
        time = one.time[:16].replace("T", " ")
        cells = (one.decision, one.by, one.study, one.plan_hash[:12], f"{one.version} {one.package[:12]}")
        table.add_row(str(one.number), time, *map(escape, cells))
    console.print(table)


def show_report(made: SiteReport, console: Console) -> None:
    counts = f"{made.train:,} train, {made.dev:,} dev and {made.test:,} test notes"
    _say(console, f"{escape(made.site)}: {counts}. Study {escape(made.study)}, round {made.round} of {made.rounds}.")
    _say(console, escape(made.privacy))
    for task in dict.fromkeys(score.task for score in made.scores):
        console.print(_scores(made, task))
        for one in made.comparisons:
            if one.task == task:
                _say(
                    console,
                    f"  federated, {one.mode}, against {one.against}: [bold]{one.verdict}[/] "
                    f"({one.metric} {_estimate(one.difference, signed=True)}, n = {one.n_test:,})",
                )
    for missing in made.not_scored:
        _say(console, f"{escape(missing.task)} was not scored. {escape(missing.reason)}")
    if made.alone_without_noise:
        _say(
            console,
            "Local-only was trained without noise: it never leaves, so it needs none and spends nothing. What it is "
            "ahead by holds the price of the study's privacy, too.",
        )


def _scores(made: SiteReport, task: str) -> Table:
    scores = [score for score in made.scores if score.task == task]
    first = scores[0]
    table = Table(
        title=f"{task}: {len(first.support)} classes, {first.n_train:,} train notes, n = {first.n_test:,} test notes",
        caption="With 95 % intervals over test notes.",
        box=None,
        pad_edge=False,
    )
    table.add_column("")
    for name in ("macro-F1", "accuracy", "AUROC"):
        table.add_column(name, justify="right")
    for score in scores:
        mode = "" if score.model in ("tf-idf", "majority") else f", {score.mode}"
        cells = (_estimate(value) for value in (score.macro_f1, score.accuracy, score.auroc))
        table.add_row(f"{score.model}{mode}", *cells)
    return table


def _estimate(value: Estimate | None, signed: bool = False) -> str:
    if value is None:
        return ""
    form = "+.3f" if signed else ".3f"
    if value.low is None or value.high is None:
        return format(value.value, form)
    return f"{value.value:{form}} ({value.low:{form}} to {value.high:{form}})"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
