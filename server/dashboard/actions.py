"""What a coordinator can do from the page: start a checked plan, stop, resume, export. Each is asked for once more, is
written into the study's record, and runs the very command that a terminal would."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from nicegui import ui

from common.errors import FednotesError, StudyError
from common.files import write_text
from common.plan import StudyPlan, parse_plan, plan_to_toml
from server.dashboard.guard import address_of
from server.dashboard.library import Entry
from server.events import Event
from server.record.reader import read_study
from server.record.recorder import Recorder
from server.run_folder import RunFolder

LOG = "dashboard.log"
_WORDS = {
    "stop": ("Stop the study?", "Its sites stop training, too. It can be resumed from its last checkpoint.", "stopped"),
    "resume": ("Resume the study?", "It goes on from its last checkpoint.", "resumed"),
    "export": ("Export the model?", "It is written to the folder export of the run, with its card.", "exported"),
}


class Actions:
    """`coordinator`: the folder of the coordinator whose studies these are; without it nothing can be started."""

    def __init__(self, coordinator: Path | None, database: str | None) -> None:
        self._coordinator, self._database = coordinator, database

    @property
    def can_start(self) -> bool:
        return self._coordinator is not None

    def possible(self, entry: Entry) -> bool:
        """Whether the run's folder is on this machine."""
        return entry.run.is_dir()

    def ask(self, entry: Entry, action: str) -> None:
        """Ask once more, and do it. What is no action does nothing."""
        if action not in _WORDS or not self.possible(entry):
            return
        question, what, _ = _WORDS[action]
        _confirm(question, what, lambda: self._do(entry, action))

    def start_form(self) -> None:
        """A plan to paste, which is checked before anything can be started."""
        with ui.element("details").props('id="start"').classes("start"):
            with ui.element("summary"):
                ui.html("Start a study", sanitize=False)
            ui.html('<label for="plan">The plan, as TOML</label>', sanitize=False)
            text = ui.element("textarea").props('id="plan" rows="14" spellcheck="false"')
            plan = {"text": ""}
            text.on("input", lambda event: plan.update(text=str(event.args)), js_handler="(e) => emit(e.target.value)")
            with ui.element("button").props('type="button" id="check-plan"').classes("button") as button:
                ui.html("Check the plan", sanitize=False)
            said = ui.element("div").props('role="status" id="plan-said"')
            button.on("click", lambda: self._check(plan["text"], said))

    def _check(self, text: str, said: ui.element) -> None:
        said.clear()
        with said:
            try:
                plan = parse_plan(text)
            except FednotesError as error:
                _paragraph(f"{error.message} {error.next_step}", "message stopped")
                return
            summary = (
                f"{plan.study.name}: {plan.objective.kind}, {plan.federation.rounds} rounds, {plan.privacy_words}."
            )
            _paragraph(f"{summary} Sites are asked to approve the hash {plan.hash()}.", "message")
            with ui.element("button").props('type="button" id="start-plan"').classes("button strong") as button:
                ui.html("Start it", sanitize=False)
            question = f"Start {plan.study.name}?"
            what = "The coordinator waits for the sites and begins; the study then shows in the list."
            button.on("click", lambda: _confirm(question, what, lambda: self._start(plan)))

    def _start(self, plan: StudyPlan) -> None:
        assert self._coordinator is not None  # else there is no form
        folder = Path(tempfile.mkdtemp(prefix="fednotes-plan-"))
        write_text(folder / "plan.toml", plan_to_toml(plan))
        words = ["server", "run", str(self._coordinator), str(folder / "plan.toml"), "--quiet"]
        _run([*words, *(["--db", self._database] if self._database else [])], self._coordinator / LOG)
        ui.notify(f"{plan.study.name} is being started; {self._coordinator / LOG} says why, should it not be.")

    def _do(self, entry: Entry, action: str) -> None:
        record = read_study(entry.database, entry.study)
        simulated = record.engine != "servers"
        command = {
            "stop": ["server", "stop", str(entry.run)],
            "resume": ["simulate", "--resume", str(entry.run)] if simulated else ["server", "resume", str(entry.run)],
            "export": ["export", str(entry.run), "--to", str(entry.run / "export")],
        }[action]
        text = f"The study was {_WORDS[action][2]} from the dashboard, by {address_of(ui.context.client.request)}"
        last = max(record.begun, default=0)
        Recorder(entry.database, entry.study)(Event("action", last, text=text))
        if action == "stop" and simulated:  # it keeps what it has done, whenever it is killed
            RunFolder(entry.run).kill_holder()
            why = StudyError(
                "study-stopped", "The study was stopped.", f"Go on: fednotes simulate --resume {entry.run}"
            )
            Recorder(entry.database, entry.study).stop(why)
            return
        _run(command, entry.run / LOG)
        ui.notify(f"It is being done; {LOG} in the run's folder says how it went.")


def _confirm(question: str, what: str, then: Callable[[], None]) -> None:
    """A dialog with two buttons; Escape is no."""

    def yes() -> None:
        dialog.close()
        then()

    with ui.dialog() as dialog, ui.element("div").classes("asked").props('role="alertdialog" aria-modal="true"'):
        dialog.props(f'aria-label="{question}"')
        _paragraph(question, "asked-question")
        _paragraph(what, "")
        with ui.element("p").classes("actions"):
            for words, does, kind in (("Yes", yes, "button strong"), ("No", dialog.close, "button")):
                with ui.element("button").props('type="button"').classes(kind) as button:
                    ui.html(words, sanitize=False)
                button.on("click", does)
    dialog.open()


def _paragraph(text: str, kind: str) -> None:
    with ui.element("p").classes(kind):
        ui.label(text)


def _run(words: list[str], log: Path) -> None:
    """Start a command that outlives the dashboard; what it says goes to a file."""
    with log.open("ab") as said:
        subprocess.Popen(
            [sys.executable, "-m", "fednotes", *words],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
