"""The dashboard as it is: the command in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboards import PASSWORD, Dashboard, Start, add_run

from server.dashboard.passwords import write_password


@pytest.fixture(scope="session")
def start_dashboard(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start the command with options on a free port; every one that was started is ended."""
    started: list[Dashboard] = []

    def start(runs: Path | None, *options: str, scheme: str = "http") -> Dashboard:
        place = ["--runs", str(runs)] if runs else []
        line = [sys.executable, "-m", "fednotes", "dashboard", *place, *options]
        # NiceGUI behaves otherwise where it thinks that it is tested
        own = {name: value for name, value in environment.items() if not name.startswith(("PYTEST", "NICEGUI"))}
        process = subprocess.Popen(
            line,
            env=own,
            cwd=tmp_path_factory.mktemp("cwd"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        said = process.stdout.readline()
        found = re.search(rf"{scheme}://\S+?(?=/\s)", said)
        if not found:
            process.kill()
            pytest.fail(said + process.stdout.read())
        started.append(Dashboard(found[0], process))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs that `dashboard` and `guarded` show: studies "first" and "second", and what tests add."""
    folder = tmp_path_factory.mktemp("runs")
    add_run(folder, "first")
    add_run(folder, "second", study="another")
    return folder


@pytest.fixture(scope="session")
def dashboard(start_dashboard: Start, runs: Path) -> Dashboard:
    """One that is open to all of this machine; tests may not end it."""
    return start_dashboard(runs)


@pytest.fixture(scope="session")
def guarded(start_dashboard: Start, runs: Path, password_file: Path) -> Dashboard:
    """The same behind a password."""
    return start_dashboard(runs, "--password-file", str(password_file))


@pytest.fixture(scope="session")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "dashboard.password"
    write_password(PASSWORD, path)
    return path
