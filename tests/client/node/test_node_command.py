"""`fednotes site start | status | stop` as a person runs them."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from fleet import Link, alive, wait_for

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_site_is_started_seen_and_stopped(
    link: Link, node_site: Callable[..., Path], fednotes: Run, command: list[str], environment: dict[str, str]
) -> None:
    folder = node_site()
    assert "no-status" in fednotes("site", "status", folder).stderr
    with subprocess.Popen(
        [*command, "site", "start", str(folder)], env=environment, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            assert started.stdout is not None
            lines = iter(started.stdout.readline, "")
            assert next(line for line in lines if "connected to" in line).strip().endswith(link.address)
            seen = fednotes("site", "status", folder, "--json")
            status = json.loads(seen.stdout)
            assert seen.returncode == 0 and status["state"] == "waiting" and status["connected_since"]
            assert "already-running" in fednotes("site", "start", folder).stderr
            node = json.loads((folder / "processes.json").read_text())["children"]["node"]["pid"]
            stopped = fednotes("site", "stop", folder)
            assert stopped.returncode == 0 and "has stopped" in stopped.stdout
            assert started.wait(10) == 0
        finally:
            started.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(node), 5)
    assert "connected to" in (folder / "logs" / "node.log").read_text()
    seen = fednotes("site", "status", folder)
    assert seen.returncode == 3 and "does not run" in seen.stdout
    assert fednotes("site", "stop", folder).returncode == 0


def test_what_is_wrong_at_the_site_is_said_before_anything_starts(
    link: Link, node_site: Callable[..., Path], fednotes: Run, tmp_path: Path
) -> None:
    for wrong, code in ({"key": tmp_path / "no.key"}, "key-unreadable"), ({"ca": tmp_path / "no.crt"}, "ca-unreadable"):
        done = fednotes("site", "start", node_site(**wrong))
        assert done.returncode == 2 and code in done.stderr
