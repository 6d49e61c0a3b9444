"""A dashboard that runs: the command in a process of its own, over folders of runs."""

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from example_summary import example_summary

from common.plan import StudyPlan, plan_to_toml
from server.run_folder import PLAN_FILE, RunFolder

PASSWORD = "correct horse battery staple"


@dataclass
class Dashboard:
    """A dashboard that runs."""

    address: str
    runs: Path
    process: subprocess.Popen[str]

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.address + path, trust_env=False, timeout=30, **options)

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


def add_run(runs: Path, name: str, study: str = "test", **changes: Any) -> RunFolder:
    """The folder of a finished run."""
    plan = StudyPlan.model_validate({"study": {"name": study}})
    run = RunFolder(runs / name)
    run.path.mkdir(parents=True)
    (run.path / PLAN_FILE).write_text(plan_to_toml(plan), encoding="utf-8")
    run.write_summary(example_summary().model_copy(update=changes))
    return run


def eventually(holds: Callable[[], Any], seconds: float = 10.0) -> float:
    """Wait until it holds; the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "it never did"
        time.sleep(0.02)
    return time.monotonic() - began
