"""What a person sees while a study runs: one live page on a terminal, a few lines in a log, nothing when quiet."""

import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.plan import StudyPlan
from common.table import Setting
from server.events import Event

_MOST_ROWS = 12


class Display(Protocol):
    """Where a study says how it goes."""

    def promise(self, privacy: str) -> None:
        """The plan is known, and with it what it promises of privacy."""

    def study(self, plan: StudyPlan, sites: list[str], phase: str) -> None:
        """A federation begins: the study itself, or a baseline."""

    def event(self, event: Event) -> None: ...

    def step(self, site: str, done: int, steps: int) -> None: ...

    def say(self, text: str) -> None:
        """What is being done now, outside of rounds."""

    def cells(self, progress: dict[tuple[str, Setting], tuple[int, int]], now: str) -> None:
        """How far a table is: finished and planned seeds of each (arm, setting), and which cell is made now."""


class Silent:
    """Says nothing."""

    def promise(self, privacy: str) -> None: ...

    def study(self, plan: StudyPlan, sites: list[str], phase: str) -> None: ...

    def event(self, event: Event) -> None: ...

    def step(self, site: str, done: int, steps: int) -> None: ...

    def say(self, text: str) -> None: ...

    def cells(self, progress: dict[tuple[str, Setting], tuple[int, int]], now: str) -> None: ...

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None: ...


class Log(Silent):
    """A few lines for a log file or a pipe: every quarter of the study's rounds, and that baselines are trained."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rounds, self.baselines, self.table = 0, False, False

    def cells(self, progress: dict[tuple[str, Setting], tuple[int, int]], now: str) -> None:
        self.table = True
        done, planned = (sum(counts) for counts in zip(*progress.values(), strict=True))
        self.console.print(f"{done} of {planned} cells done; now {now}", highlight=False)

    def study(self, plan: StudyPlan, sites: list[str], phase: str) -> None:
        if self.table:
            return
        if self.rounds == 0:
            self.rounds = plan.federation.rounds
            line = f"{phase}: {len(sites)} sites, {self.rounds} rounds, {plan.privacy_words}"
            self.console.print(line, highlight=False, soft_wrap=True)
        elif not self.baselines:
            self.baselines = True
            self.console.print("Training the baselines", highlight=False)

    def event(self, event: Event) -> None:
        left_out = event.kind in ("left-out", "unmeasured")
        if self.baselines or (self.table and not left_out):
            return
        if left_out:
            self.console.print(f"round {event.round}: {event.site} left out: {event.text}", highlight=False)
        quarters = {-(-self.rounds * part // 4) for part in (1, 2, 3, 4)}
        if event.kind == "round-ended" and event.round in quarters:
            self.console.print(f"round {event.round} of {self.rounds} ended after {event.text}", highlight=False)


class Page:
    """One live page, gone when the run ends: the round, each site's progress and losses, the time left."""

    def __init__(self, console: Console) -> None:
        self.phase, self.note, self.rounds, self.round = "", "", 0, 0
        self.privacy = ""  # until a plan is known
        self.sites: dict[str, list[str]] = {}  # name -> first loss, last loss, remark
        self.steps: dict[str, tuple[int, int]] = {}
        self.began = self.first_round = time.monotonic()
        self.done_here = 0
        self.table: dict[tuple[str, Setting], tuple[int, int]] = {}
        self.live = Live(console=console, transient=True, refresh_per_second=5, get_renderable=self._render)

    def __enter__(self) -> "Page":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def promise(self, privacy: str) -> None:
        self.privacy = privacy

    def study(self, plan: StudyPlan, sites: list[str], phase: str) -> None:
        self.phase, self.note, self.rounds, self.round, self.done_here = (
            phase,
            "meeting the sites",
            plan.federation.rounds,
            0,
            0,
        )
        self.promise(plan.privacy_words)
        self.sites = {name: ["", "", ""] for name in sites}
        self.steps = {}

    def event(self, event: Event) -> None:
        site = self.sites.get(event.site)
        match event.kind:
            case "round-started":
                if not self.done_here:
                    self.first_round = time.monotonic()
                self.round, self.steps, self.note = event.round, {}, ""
                for row in self.sites.values():
                    row[2] = ""
            case "held-out" if site:
                site[0] = site[0] or event.text
                site[1] = event.text
            case "asked" if site:
                site[2] = "is training"
            case "returned" if site:
                site[2] = f"returned after {event.text}"
            case "joined":
                self.sites.setdefault(event.site, ["", "", "joined"])
            case "phase":
                self.note = event.text
            case "left-out" | "unmeasured" if site:
                site[2] = event.text
            case "left-out" | "unmeasured":
                self.note = f"{event.site} left out: {event.text}"
            case "round-ended" if event.round:  # round 0 measures the base, and is no measure of time
                self.done_here += 1

    def step(self, site: str, done: int, steps: int) -> None:
        self.steps[site] = (done, steps)

    def cells(self, progress: dict[tuple[str, Setting], tuple[int, int]], now: str) -> None:
        self.table = progress

    def say(self, text: str) -> None:
        self.phase, self.note, self.sites, self.rounds = text, "", {}, 0

    def _render(self) -> RenderableType:
        elapsed = _clock(time.monotonic() - self.began)
        head = f"{self.phase}"
        if self.rounds:
            head += f" · round {self.round} of {self.rounds}"
            if self.done_here:
                each = (time.monotonic() - self.first_round) / self.done_here
                head += f" · about {_clock(each * (self.rounds - self.round + 1))} left"
        head = " · ".join(filter(None, [head, f"{elapsed} so far", self.privacy]))
        lines: list[RenderableType] = [Text(head, style="bold", overflow="ellipsis")]
        if self.note:
            lines.append(Text(self.note, style="dim"))
        if self.sites:
            lines.append(self._table())
        if self.table:
            lines += [Text(""), self._cells()]
        return Group(*lines)

    def _cells(self) -> Table:
        """A row an arm, a column a setting, in each how many of its seeds are done."""
        settings = list(dict.fromkeys(setting for _, setting in self.table))
        table = Table(box=None, pad_edge=False)
        for title in ("cells done", *settings):
            table.add_column(title, no_wrap=True)
        for arm in dict.fromkeys(arm for arm, _ in self.table):
            counts = [self.table.get((arm, setting)) for setting in settings]
            table.add_row(arm, *["" if count is None else f"{count[0]} of {count[1]}" for count in counts])
        return table

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("site", "this round", "", "held-out loss", ""):
            table.add_column(title, no_wrap=True)
        for name, (first, last, remark) in list(self.sites.items())[:_MOST_ROWS]:
            done, steps = self.steps.get(name, (0, 0))
            loss = f"{first} → {last}" if last and last != first else first
            bar = ProgressBar(total=max(1, steps), completed=done, width=20)
            table.add_row(
                Text(name), bar, f"{done}/{steps}" if steps else "", loss, Text(remark[:60], style=_style(remark))
            )
        if len(self.sites) > _MOST_ROWS:
            table.add_row(f"and {len(self.sites) - _MOST_ROWS} more")
        return table


def _style(remark: str) -> str:
    return "dim" if remark == "joined" or remark.startswith(("is training", "returned after")) else "red"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes}:{rest:02d} min"
