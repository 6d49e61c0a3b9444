"""What the dashboard shows of a folder of runs: the list of them, and one of them."""

from datetime import UTC, datetime
from pathlib import Path

from common.errors import FednotesError, InputError
from server import figures
from server.dashboard.live import Feed
from server.dashboard.rendering import rendered
from server.figures.style import marks, site_names
from server.report import round_tables, words
from server.report.shell import Charts
from server.run_folder import CHECKPOINTS, PLAN_FILE, SUMMARY_FILE, RunFolder
from server.study.events import EVENTS_FILE
from server.study.folder import STOPPED_FILE, STUDY_FILE, Study
from server.study.status import RunStatus, status

_FILES = (EVENTS_FILE, SUMMARY_FILE, STOPPED_FILE, STUDY_FILE, CHECKPOINTS)
_STALE_AFTER = 300.0  # seconds: a round of a hospital's node takes minutes
_STILL = {
    "finished": "The study has finished: nothing changes any more.",
    "stopped": "The study has stopped: nothing changes until it is resumed.",
    "interrupted": "Nobody works on the study: nothing changes until it is resumed.",
}


class Runs:
    """A folder whose folders are runs: the list of studies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """The newest first."""
        try:
            found = [path for path in self.folder.iterdir() if (path / PLAN_FILE).is_file()]
        except OSError as error:
            message = f"The folder of runs, {self.folder}, cannot be read: {error.strerror}."
            raise InputError("runs-unreadable", message, "Give one with --runs.") from None
        return [path.name for path in sorted(found, key=_changed, reverse=True)]

    def run(self, name: str) -> "Run | None":
        """None where there is no such run; a name is only ever compared, never made a path of."""
        return Run(self.folder / name) if name in self.names() else None

    def feed(self) -> Feed:
        return Feed(" ".join(f"{name} {_version(self.folder / name)}" for name in self.names()))

    def sections(self) -> dict[str, str]:
        rows: list[tuple[str, RunStatus | None, str]] = []
        for name in self.names():
            try:
                rows.append((name, status(self.folder / name), ""))
            except FednotesError as error:  # one that is damaged must not hide the others
                rows.append((name, None, str(error)))
        return {"studies": rendered("studies.html", rows=rows, folder=str(self.folder))}


class Run:
    """One run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def feed(self) -> Feed:
        still = "" if _worked_on(self.path) else _STILL[self._state()]
        return Feed(_version(self.path), _changed(self.path), still, _STALE_AFTER)

    def sections(self) -> dict[str, str]:
        now = status(self.path)
        return {
            "verdict": rendered("verdict.html", now=now, heard=_moment(_changed(self.path))),
            "sites": rendered("sites.html", now=now),
            "training": self._training(),
        }

    def _state(self) -> str:
        summary = RunFolder(self.path).summary()
        if summary:
            return summary.status
        return "stopped" if (self.path / STOPPED_FILE).exists() else "interrupted"

    def _training(self) -> str:
        summary = RunFolder(self.path).summary()
        if summary is None:
            return rendered("training.html", chart=None, legend={})
        charts = Charts("training")
        chart = charts.add(
            "Held-out loss by round and site",
            f"Line chart of the held-out loss by round, one line a site. {words.loss_sentence(summary)}",
            figures.held_out_loss(summary),
            round_tables.held_out_table(summary),
        )
        legend = {name: (name, mark) for name, mark in marks(site_names(summary)).items()}
        return rendered("training.html", charts, chart=chart, legend=legend)


def _worked_on(path: Path) -> bool:
    return Study(path).worked_on() if (path / STUDY_FILE).exists() else RunFolder(path).busy()


def _version(path: Path) -> str:
    """Differs when anything that is shown may."""
    stamps = [(path / name).stat().st_mtime_ns if (path / name).exists() else 0 for name in _FILES]
    return f"{stamps} {_worked_on(path)}"


def _changed(path: Path) -> float:
    """When anything was last written, in Unix seconds."""
    return max((path / name).stat().st_mtime for name in (*_FILES, PLAN_FILE) if (path / name).exists())


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
