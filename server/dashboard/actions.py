"""What a coordinator can do from the page: start a checked plan, stop, resume, export. Each is asked for once more, is
written into the study's record, and runs the very command that a terminal would."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nicegui import background_tasks, ui

from common.errors import FednotesError, InputError, StudyError
from common.files import write_text
from common.plan import StudyPlan, parse_plan, plan_to_toml
from server.dashboard.asking import Notice, button, confirm, paragraph
from server.dashboard.downloads import EXPORT_FOLDER
from server.dashboard.guard import address_of
from server.dashboard.library import Entry
from server.events import Event
from server.record.reader import State, read_study
from server.record.recorder import Recorder
from server.run_folder import RunFolder

LOG = "dashboard.log"
PLANS = "plans"  # in the coordinator's folder: what was started from the page
_LOOK = 0.5  # seconds


@dataclass(frozen=True)
class _Action:
    """`states`: of a study that it can be done to. `done`: in the record; `ended`: what is said when its command has
    ended well."""

    states: tuple[State, ...]
    question: str
    what: str
    done: str
    ended: str


_ACTIONS = {
    "stop": _Action(
        ("waiting", "running"),
        "Stop the study?",
        "Its sites stop training, too. It can be resumed from its last checkpoint.",
        "stopped",
        "The study is stopped.",
    ),
    "resume": _Action(
        ("stopped", "interrupted"),
        "Resume the study?",
        "It goes on from its last checkpoint.",
        "resumed",
        "The study has run to its end.",
    ),
    "export": _Action(
        ("finished",),
        "Export the model?",
        "It is written to the folder “export” of the run, with its card and its governance annex.",
        "exported",
        "The model is exported: to {run}/export on the coordinator's machine, and below as export.zip.",
    ),
}


class Actions:
    """`coordinator`: the folder of the coordinator whose studies these are; without it nothing can be started."""

    def __init__(self, coordinator: Path | None, database: str | None) -> None:
        self._coordinator, self._database = coordinator, database

    @property
    def can_start(self) -> bool:
        return self._coordinator is not None

    def ask(self, entry: Entry, action: str, notice: Notice) -> None:
        """Ask once more, and do it. What is no action, or none of a study whose folder is elsewhere, does nothing."""
        if action not in _ACTIONS or entry.run is None:
            return
        who = address_of(ui.context.client.request)

        async def do() -> None:
            await self._do(entry, action, who, notice)

        confirm(_ACTIONS[action].question, _ACTIONS[action].what, do)

    def start_form(self, notice: Notice) -> None:
        """A plan to paste, which is checked before anything can be started."""
        with ui.element("details").props('id="start"').classes("start"):
            with ui.element("summary"):
                ui.label("Start a study").props("class=words")
            with ui.element("label").props('for="plan"'):
                ui.label("The plan, as TOML").props("class=words")
            ui.element("textarea").props('id="plan" rows="14" spellcheck="false"')
            check = button("Check the plan", "button", "check-plan")
            said = ui.element("div").props('role="status" id="plan-said"')
            given = '() => emit(document.getElementById("plan").value)'
            check.on("click", lambda event: self._check(str(event.args), said, notice), js_handler=given)

    def _check(self, text: str, said: ui.element, notice: Notice) -> None:
        said.clear()
        who = address_of(ui.context.client.request)
        with said:
            try:
                plan = parse_plan(text)
            except FednotesError as error:
                for line in [*error.message.splitlines(), error.next_step]:
                    paragraph(line, "message stopped")
                return
            federation = plan.federation
            paragraph(
                f"{plan.study.name}: {plan.objective.kind}, {federation.rounds} rounds, {plan.privacy_words}.", ""
            )
            paragraph(f"Sites are asked to approve the hash {plan.hash()}.", "hash")
            question = f"Start {plan.study.name}?"
            what = "The coordinator waits for the sites and begins; the study then shows in the list."

            async def start() -> None:
                await self._start(plan, who, notice)

            button("Start it", "button strong", "start-plan").on("click", lambda: confirm(question, what, start))

    async def _start(self, plan: StudyPlan, who: str, notice: Notice) -> None:
        assert self._coordinator is not None  # else there is no form
        file = self._coordinator / PLANS / f"{plan.study.name}-{plan.hash()[:12]}.toml"
        words = ["server", "run", str(self._coordinator), str(file), "--quiet", "--asked-by", who]
        words += ["--db", self._database] if self._database else []
        try:
            await asyncio.to_thread(write_text, file, plan_to_toml(plan))
            running = _Command(words, self._coordinator / LOG)
        except (FednotesError, OSError) as error:
            return notice.say(f"{plan.study.name} was not started: {error}", wrong=True)
        notice.say(f"{plan.study.name} is being started. It shows in the list when its sites are there.")
        running.follow(notice, f"{plan.study.name} has run to its end.")

    async def _do(self, entry: Entry, action: str, who: str, notice: Notice) -> None:
        try:
            running = await asyncio.to_thread(_begin, entry, action, who)
        except (FednotesError, OSError) as error:
            return notice.say(f"It was not done: {error}", wrong=True)
        if running is None:
            return notice.say(_ACTIONS[action].ended)
        notice.say("It is being done.")
        running.follow(notice, _ACTIONS[action].ended.format(run=entry.folder.absolute()))


def _begin(entry: Entry, action: str, who: str) -> "_Command | None":
    """Begin an action, which is recorded; None where it is done already. Raises InputError where it cannot be done
    now."""
    record, run = read_study(entry.database, entry.study), entry.run
    if record.state not in _ACTIONS[action].states or run is None:
        raise InputError("not-now", f"The study is {record.state}.", "The page shows what can be done.")
    recorder, simulated = Recorder(entry.database, entry.study), record.engine != "servers"
    if simulated or action == "export":  # the commands of studies over servers record it themselves
        text = f"The study was {_ACTIONS[action].done} from the dashboard, by {who}"
        recorder(Event("action", max(record.begun, default=0), text=text))
    if action == "stop" and simulated:  # it keeps what it has done, whenever it is killed
        RunFolder(run).kill_holder()
        recorder.stop(StudyError("study-stopped", "The study was stopped.", "It can be resumed."))
        return None
    asked = ["--asked-by", who]
    server_resume = ["server", "resume", str(run), "--quiet", *asked]
    command = {
        "stop": ["server", "stop", str(run), *asked],
        "resume": ["simulate", "--resume", str(run), "--quiet"] if simulated else server_resume,
        "export": ["export", str(run), "--to", str(run / EXPORT_FOLDER)],
    }[action]
    return _Command(command, run / LOG)


class _Command:
    """A command that outlives the dashboard; what it says goes to a file."""

    def __init__(self, words: list[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as said:
            self._began = said.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fednotes", *words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def follow(self, notice: Notice, ended: str) -> None:
        """Say what became of it, if the page is still open then."""

        async def wait() -> None:
            while (code := self._process.poll()) is None:
                await asyncio.sleep(_LOOK)
            notice.say(f"It failed: {self._why()}" if code else ended, wrong=bool(code))

        background_tasks.create(wait(), name="what a command came to")

    def _why(self) -> str:
        with self._log.open("rb") as said:
            said.seek(self._began)
            text = said.read()[-4000:].decode(errors="replace").strip()
        return text[max(0, text.rfind("error (")) :] or f"{self._log} says more."
