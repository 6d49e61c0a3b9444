"""A dashboard that runs: the command in a process of its own, over folders of runs."""

import asyncio
import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from example_summary import example_summary
from sqlalchemy import update

from common.plan import StudyPlan, plan_to_toml
from common.results import Round, Summary
from server.events import Event
from server.record.place import create, opened
from server.record.recorder import Recorder
from server.record.tables import StudyRow
from server.run_folder import PLAN_FILE, RunFolder

SECTION = re.compile(r"/section/[0-9a-f]{64}")
PASSWORD = "correct horse battery staple"


@dataclass
class Dashboard:
    """A dashboard that runs."""

    address: str
    process: subprocess.Popen[str]

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.address + path, trust_env=False, timeout=30, **options)

    def shown(self, path: str) -> str:
        """The page and its sections, as a browser puts them together."""

        def page() -> str:
            text = self.get(path).text
            return text if SECTION.search(text) else ""  # what takes long to read comes later

        text = eventually(page, 30)
        return "\n".join([text, *(self.get(address).text for address in dict.fromkeys(SECTION.findall(text)))])

    @contextlib.contextmanager
    def log_in(self) -> Iterator[httpx.Client]:
        """A client that has the session's cookie."""
        with httpx.Client(base_url=self.address, trust_env=False, timeout=30) as client:
            form = re.search(r'name="form" value="([^"]+)"', client.get("/login").text)
            assert form
            client.post("/login", data={"form": form[1], "password": PASSWORD, "next": "/"})
            yield client

    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


Start = Callable[..., Dashboard]
Result = TypeVar("Result")


def add_run(runs: Path, name: str, study: str = "test", finished: bool = True, **changes: Any) -> RunFolder:
    """The folder of a run whose record holds an example: every round of it, its scores, and its end."""
    run = RunFolder(runs / name)
    run.path.mkdir(parents=True)
    add_record(run.path, None, study, finished, example_summary().model_copy(update=changes))
    return run


def add_record(run: Path, database: str | None, study: str, finished: bool, summary: Summary) -> None:
    """A record in the folder of a run, or in a database by its URL, of a study that came to `summary`."""
    plan = StudyPlan.model_validate({"study": {"name": study}, "federation": {"rounds": len(summary.rounds)}})
    (run / PLAN_FILE).write_text(plan_to_toml(plan), encoding="utf-8")
    create(run, plan, "inprocess", database)
    with recorder(run) as record:
        record(Event("began", 0))
        for site in summary.sites:
            record(Event("joined", 0, site.name, result=site))
        for one in summary.rounds:
            add_round(record, one)
        if finished:
            record.end(summary, None)


@contextlib.contextmanager
def recorder(run: Path) -> Iterator[Recorder]:
    database, study = opened(run)
    yield Recorder(database, study)
    database.close()


def add_round(record: Recorder, one: Round) -> None:
    if one.number:
        record(Event("round-started", one.number))
    record(Event("round-ended", one.number, result=one, digest="0" * 64))


def next_round(number: int = 9) -> Round:
    """One more than the example has."""
    return example_summary().rounds[-1].model_copy(update={"number": number})


def silent_for(run: Path, seconds: float) -> None:
    """As if whoever worked on the study had said nothing for so long."""
    database, study = opened(run)
    values = {"heartbeat": datetime.now(UTC) - timedelta(seconds=seconds)}
    database.write(lambda session: session.execute(update(StudyRow).where(StudyRow.id == study).values(**values)))
    database.close()


def run_apart(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run` in a thread of its own: where a browser was opened, Playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, coroutine).result()


def eventually(holds: Callable[[], Result], seconds: float = 10.0) -> Result:
    """Wait until it holds; what it gave."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it never did"
        time.sleep(0.02)
    return found
