"""`fednotes dashboard`: where it may listen, what it refuses, and how it ends."""

import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dashboards import Start

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "fed.example.org"])
def test_another_address_without_tls_and_a_password_is_refused(fednotes: Run, host: str) -> None:
    done = fednotes("dashboard", "--host", host)
    assert done.returncode == 2
    assert f"error (dashboard-exposed): On {host} others could reach the dashboard, without TLS and a password." in (
        done.stderr
    )
    assert "--password-file" in done.stderr and "ssh -L" in done.stderr


def test_a_password_without_tls_is_not_enough(fednotes: Run, password_file: Path) -> None:
    done = fednotes("dashboard", "--host", "0.0.0.0", "--password-file", password_file)
    assert done.returncode == 2 and "without TLS." in done.stderr


def test_tls_without_a_password_is_not_enough(fednotes: Run, tmp_path: Path) -> None:
    done = fednotes("dashboard", "--host", "0.0.0.0", "--certificate", "a.pem", "--key", "a.key")
    assert done.returncode == 2 and "without a password." in done.stderr


def test_a_wrong_certificate_is_found_at_the_start(fednotes: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    options = ("dashboard", "--certificate", "a.pem", "--key")
    assert "(certificate-wrong)" in fednotes(*options, "a.pem").stderr
    assert "(certificate-unreadable)" in fednotes(*options, "missing.pem").stderr
    assert "(usage)" in fednotes("dashboard", "--key", "a.pem").stderr


def test_a_port_that_is_taken_is_refused(fednotes: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = fednotes("dashboard", "--port", port)
    assert done.returncode == 3
    assert f"error (port-taken): Port {port} on 127.0.0.1 is in use by another process." in done.stderr


def test_a_folder_without_runs_is_refused(fednotes: Run) -> None:
    done = fednotes("dashboard", "--runs", "nowhere")
    assert done.returncode == 2 and "error (runs-unreadable)" in done.stderr


def test_a_password_file_that_is_missing_is_refused(fednotes: Run) -> None:
    done = fednotes("dashboard", "--password-file", "nowhere")
    assert done.returncode == 2 and "fednotes dashboard password nowhere" in done.stderr


def test_a_password_is_read_from_standard_input(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    line = [*command, "dashboard", "password", "secret"]
    done = subprocess.run(
        line, input="four words are enough\n", env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert "four words" not in (tmp_path / "secret").read_text() + done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_leaves_nothing(start_dashboard: Start, tmp_path: Path, number: int) -> None:
    dashboard = start_dashboard(tmp_path)
    folder = Path(f"/proc/{dashboard.process.pid}/cwd").resolve() if sys.platform == "linux" else None
    assert dashboard.get("/").status_code == 200
    dashboard.process.send_signal(number)
    assert dashboard.process.wait(15) == 0
    assert dashboard.process.stdout and dashboard.process.stdout.read() == "Ctrl-C ends it.\n"
    assert folder is None or list(folder.iterdir()) == []


def test_the_other_commands_do_not_load_it(command: list[str], environment: dict[str, str]) -> None:
    code = "import sys, fednotes; sys.exit(any(name in sys.modules for name in ('nicegui', 'fastapi', 'uvicorn')))"
    assert subprocess.run([command[0], "-c", code], env=environment, check=False).returncode == 0
