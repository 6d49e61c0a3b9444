"""The supervisor over real processes: it starts them again, ends them in order, and takes them with it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import MachineError
from common.supervisor import _LOG_BYTES, LOCK, PROCESSES, Child, _rotate, running, stop, supervise

ROOT = Path(__file__).parents[2]
SLEEPER = "import time; time.sleep(600)"
# Each notes its end, so that their order can be seen. One catches SIGTERM and stays.
POLITE = "import signal, sys, time, pathlib\ndef end(*_):\n    pathlib.Path('ends').open('a').write('{}\\n'); sys.exit(0)\nsignal.signal(signal.SIGTERM, end)\nprint('ready')\ntime.sleep(600)"  # noqa: E501

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor over [name, program] pairs in a process of its own; it is killed when the test ends."""
    begun: list[subprocess.Popen[str]] = []

    def run(children: list[tuple[str, str, float]], once: bool = False) -> "subprocess.Popen[str]":
        made = ", ".join(
            f"Child({name!r}, [{sys.executable!r}, '-c', {code!r}], {{'MARK': 'seen'}}, "
            f"Path('logs/{name}.log'), {delay}, {once})"
            for name, code, delay in children
        )
        code = (
            "import sys; from pathlib import Path\nfrom common.errors import MachineError\n"
            f"from common.supervisor import Child, supervise\nsys.path.insert(0, {str(ROOT)!r})\n"
            "try:\n"
            f"    supervise([{made}], Path('.'), lambda line: print(line, flush=True))\n"
            "except MachineError as error:\n    sys.exit(error.code)\n"
        )
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        begun.append(
            subprocess.Popen(
                [sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True, stdout=-1, stderr=-1
            )
        )
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def processes(folder: Path) -> dict[str, dict[str, int]]:
    return json.loads((folder / PROCESSES).read_text())["children"]


def wait_for(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except (OSError, KeyError, json.JSONDecodeError):
            pass
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_starts_again_what_was_killed(start: Start, tmp_path: Path) -> None:
    start([("one", SLEEPER, 0.1), ("two", SLEEPER, 0.1)])
    wait_for(lambda: all(child["pid"] for child in processes(tmp_path).values()))
    before = processes(tmp_path)
    os.kill(before["one"]["pid"], signal.SIGKILL)
    wait_for(lambda: processes(tmp_path)["one"]["restarts"] == 1 and processes(tmp_path)["one"]["pid"])
    after = processes(tmp_path)
    assert after["one"]["pid"] != before["one"]["pid"] and after["two"] == before["two"]


def test_what_dies_at_once_is_started_ever_more_slowly(start: Start, tmp_path: Path) -> None:
    process = start([("bad", "import sys; sys.exit(7)", 0.2)])
    wait_for(lambda: processes(tmp_path)["bad"]["restarts"] >= 4)
    process.terminate()
    said = process.communicate(timeout=10)[0]
    waits = [float(line.split(" in ")[1].split(" s")[0]) for line in said.splitlines() if "exit code 7" in line]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]


def test_what_cannot_be_started_does_not_end_the_others(tmp_path: Path) -> None:
    """The supervisor itself is in this process: a timer tells it to stop."""
    said: list[str] = []
    children = [
        Child("missing", ["/no/such/program"], {}, tmp_path / "a.log", 0.1),
        Child("good", [sys.executable, "-c", SLEEPER], {}, tmp_path / "b.log", 0.1),
    ]
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.alarm(2)
    supervise(children, tmp_path, said.append)
    assert any("missing cannot be started" in line for line in said)
    assert any(line.startswith("good runs") for line in said)


def test_one_that_runs_once_is_tried_until_it_succeeds(start: Start, tmp_path: Path) -> None:
    code = "import pathlib, sys; p = pathlib.Path('tries'); p.open('a').write('x'); sys.exit(len(p.read_text()) < 3)"
    start([("once", code, 0.1)], once=True)
    wait_for(lambda: (tmp_path / "tries").read_text() == "xxx" and processes(tmp_path)["once"]["pid"] is None)
    time.sleep(0.5)
    assert (tmp_path / "tries").read_text() == "xxx" and processes(tmp_path)["once"]["restarts"] == 2


def test_sigterm_ends_the_children_in_reverse_order(start: Start, tmp_path: Path) -> None:
    names = ("one", "two", "three")
    process = start([(name, POLITE.format(name), 1) for name in names])
    wait_for(lambda: all("ready" in (tmp_path / "logs" / f"{name}.log").read_text() for name in names))
    assert running(tmp_path) == process.pid
    assert stop(tmp_path, 20) and process.wait(5) == 0
    assert (tmp_path / "ends").read_text().split() == ["three", "two", "one"]
    assert running(tmp_path) is None and not stop(tmp_path, 1) and not (tmp_path / PROCESSES).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_supervisor_that_is_killed_takes_its_children_with_it(start: Start, tmp_path: Path) -> None:
    process = start([("one", SLEEPER, 1)])
    wait_for(lambda: processes(tmp_path)["one"]["pid"])
    pid = processes(tmp_path)["one"]["pid"]
    process.kill()
    wait_for(lambda: not lives(pid))
    assert running(tmp_path) is None  # though its files still lie there
    start([("one", SLEEPER, 1)])
    wait_for(lambda: processes(tmp_path)["one"]["pid"] not in (None, pid))


def test_a_second_one_is_refused_and_the_first_goes_on(start: Start, tmp_path: Path) -> None:
    first = start([("one", SLEEPER, 1)])
    wait_for(lambda: processes(tmp_path)["one"]["pid"])
    second = start([("one", SLEEPER, 1)])
    assert second.communicate(timeout=20)[1].strip().endswith("already-running")
    assert running(tmp_path) == first.pid and lives(processes(tmp_path)["one"]["pid"])
    with pytest.raises(MachineError, match=str(first.pid)):
        supervise([], tmp_path, print)


def test_what_a_child_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    code = f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); print(p.pid, flush=True); time.sleep(600)"  # noqa: E501
    start([("one", code, 1)])
    log = tmp_path / "logs" / "one.log"
    wait_for(lambda: log.read_text().strip())
    stop(tmp_path, 10)
    assert not lives(int(log.read_text()))


def test_a_log_goes_on_across_restarts_and_sees_the_environment(start: Start, tmp_path: Path) -> None:
    start([("one", "import os; print(os.environ['MARK'])", 0.1)])
    wait_for(lambda: (tmp_path / "logs" / "one.log").read_text().count("seen") >= 2)


def test_a_long_log_is_cut_while_its_writer_writes_on(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(4):
            writer.write(bytes([48 + number]) * _LOG_BYTES)
            _rotate(log)
            assert log.stat().st_size == 0
        writer.write(b"last")
    assert log.read_bytes() == b"last"
    assert [(tmp_path / f"one.log.{n}").read_bytes()[:1] for n in (1, 2)] == [b"3", b"2"]
    assert not (tmp_path / "one.log.3").exists()


def test_nothing_runs_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert running(tmp_path / "none") is None
    (tmp_path / LOCK).write_text("123\n")  # left by one that was killed
    assert running(tmp_path) is None


def test_what_hangs_is_killed_with_what_it_has_started_and_begins_anew(tmp_path: Path) -> None:
    """Its pulse is a file: one that is written once grows old."""
    child = f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).pid, flush=True); time.sleep(600)"  # noqa: E501
    code = (
        "import sys; from pathlib import Path\nimport common.supervisor as s\n"
        "s._ASK, s._HANGS = 0.1, 0.5\n"
        f"one = s.Child('one', [sys.executable, '-c', {child!r}], {{}}, Path('one.log'), 0.1, lives=lambda: False)\n"
        f"two = s.Child('two', [sys.executable, '-c', {SLEEPER!r}], {{}}, Path('two.log'), 0.1, lives=lambda: True)\n"
        "s.supervise([one, two], Path('.'), lambda line: print(line, flush=True))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: processes(tmp_path)["one"]["restarts"] >= 1)
        started = int((tmp_path / "one.log").read_text().split()[0])
        wait_for(lambda: not lives(started))
        assert processes(tmp_path)["two"]["restarts"] == 0
    finally:
        stop(tmp_path, 10)
        process.wait(10)
