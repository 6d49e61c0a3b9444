"""The Flower ServerApp. It finds the plan in the run's folder, which Flower's run config names."""

from pathlib import Path
from typing import cast

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import StudyError
from server.base import base_digest, base_tensors
from server.events import Event
from server.record.recorder import recording
from server.results import write_results
from server.rounds import Rounds
from server.run_folder import RunFolder
from server.side_by_side import SideBySide
from server.study.folder import STUDY_FILE, Study

app = ServerApp()

RUN_FOLDER = "run-folder"  # key of Flower's run config


# Called as a simulation goes on; a display in this process may set it.
def on_event(event: Event) -> None: ...


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds that are still to do. Raises StudyError where the study cannot go on."""
    folder = Path(str(context.run_config[RUN_FOLDER]))
    if (folder / STUDY_FILE).exists():
        _over_servers(grid, Study(folder))
        return
    run = RunFolder(folder)
    plan = run.plan
    Rounds(grid, plan, run.checkpoints, lambda: base_tensors(plan), on_event).run()


def _over_servers(grid: Grid, study: Study) -> None:
    """The whole of it: whoever started the run may have gone, so what it came to is written here."""
    plan, stopped = study.plan, None
    with study.locked(), recording(study.path) as record:
        assert record is not None  # every study over servers has one
        study.forget_stop_reason()
        try:
            digest = base_digest(plan)
            beside = cast(Grid, SideBySide(grid))
            Rounds(beside, plan, study.checkpoints, lambda: base_tensors(plan), record, base=digest).run()
        except StudyError as error:
            stopped = error
            study.write_stop_reason(error)
        summary = write_results(study, study.record.started, stopped)
        if summary is not None:
            record.end(summary, stopped)
        elif stopped is not None:
            record.stop(stopped)
    if stopped is not None:
        raise stopped
