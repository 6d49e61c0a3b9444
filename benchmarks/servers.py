"""What a round over real servers costs beyond training: seconds, bytes and memory, on loopback.

    python benchmarks/servers.py --sites 3 --rounds 4
    python benchmarks/servers.py --sites 3 --rounds 4 --wire float16

It sets up a coordinator and its sites in a scratch folder, with TLS and authentication, each site with a few synthetic
notes; runs a study whose rounds train one step of one note; and prints for each round how long it took, how long the
slowest site trained, and what is left: everything else. Of each kind of process it prints the highest memory that one
had, looked at four times a second, and the processor time of all in the whole study.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from common.plan import parse_plan, plan_to_toml
from server.deployment.config import Server
from server.deployment.processes import healthy
from simulations.synthetic_notes import write_jsonl

FEDNOTES = [sys.executable, "-m", "fednotes"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}


def fednotes(*arguments: object) -> str:
    line = [*FEDNOTES, *map(str, arguments)]
    done = subprocess.run(line, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(line)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def started(log: Path, *arguments: object) -> Iterator[int]:
    with log.open("w") as out:
        process = subprocess.Popen([*FEDNOTES, *map(str, arguments)], env=ENVIRONMENT, stdout=out, stderr=out)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Watch:
    """The highest resident memory, and the processor time, of each kind of process below some supervisors."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.peaks: dict[str, float] = {}
        self.seconds: dict[tuple[str, int], float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            for root in self.roots:
                with contextlib.suppress(psutil.Error):
                    for process in psutil.Process(root).children(recursive=True):
                        with contextlib.suppress(psutil.Error):
                            name, size = kind(process.cmdline()), process.memory_info().rss / 1e6
                            self.peaks[name] = max(self.peaks.get(name, 0.0), size)
                            self.seconds[name, process.pid] = sum(process.cpu_times()[:2])


def kind(command: list[str]) -> str:
    line = " ".join(command)
    known = {
        "superlink": "SuperLink",
        "flwr-serverapp": "ServerApp",
        "superexec": "SuperExec",
        "gateway": "gateway",
        "client.node": "site: node",
        "spawn_main": "site: worker",
    }
    return next((name for part, name in known.items() if part in line), "other")


def set_up(folder: Path, settings: argparse.Namespace) -> tuple[Path, list[str]]:
    """A coordinator's folder, and sites that have approved the plan; returns the plan and the sites' names."""
    gateway, superlink = free_ports(2)
    plan = parse_plan(
        f"""
        [study]
        name = "overhead"
        [encoder]
        base = "{settings.base}"
        max_length = 16
        [training]
        steps_per_round = 1
        batch_size = 1
        [federation]
        rounds = {settings.rounds}
        min_sites = {settings.sites}
        wire = "{settings.wire}"
        [evaluation]
        held_out_notes = 1
        """
    )
    (folder / "plan.toml").write_text(plan_to_toml(plan), encoding="utf-8")
    coordinator = folder / "coordinator"
    fednotes("server", "init", coordinator, "--address", f"localhost:{gateway}", "--flower-port", superlink)
    names = [f"site-{number}" for number in range(settings.sites)]
    for number, name in enumerate(names):
        write_jsonl(folder / f"{name}.jsonl", seed=number, notes=60, hospitals=1)
        fednotes("server", "add-site", coordinator, name)
        options = ["--notes", folder / f"{name}.jsonl", "--allow-no-privacy", "--yes"]
        fednotes("site", "init", coordinator / "kits" / f"{name}.zip", "--to", folder / name, *options)
        fednotes("server", "add-site", coordinator, name, "--key", folder / name / f"{name}.key.json")
        fednotes("site", "approve", folder / "plan.toml", folder / name, "--by", "benchmark", "--yes")
    return coordinator, names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--base", default="packaged:minilm")
    parser.add_argument("--wire", default="float32")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, contextlib.ExitStack() as running:
        folder = Path(scratch)
        coordinator, names = set_up(folder, settings)
        watch = Watch()
        watch.roots.append(running.enter_context(started(folder / "coordinator.log", "server", "start", coordinator)))
        for name in names:
            watch.roots.append(running.enter_context(started(folder / f"{name}.log", "site", "start", folder / name)))
        if not healthy(Server(coordinator), seconds=120):
            sys.exit((folder / "coordinator.log").read_text("utf-8"))
        began = time.monotonic()
        with watch:
            summary = json.loads(fednotes("server", "run", coordinator, folder / "plan.toml", "--json"))
        print(f"{settings.sites} sites, {settings.base}, wire {settings.wire}, load {os.getloadavg()[0]:.1f}")
        rest = []
        for one in summary["rounds"]:
            trained = max((site["seconds"] for site in one["sites"]), default=0.0)
            up, down = (sum(site[f"bytes_{way}"] for site in one["sites"]) / 1e6 for way in ("up", "down"))
            print(
                f"round {one['number']}: {one['seconds']:6.1f} s, of which training {trained:5.1f} s; "
                f"{down:.0f} MB down, {up:.0f} MB up, and {down:.0f} MB down to evaluate"
            )
            rest += [one["seconds"] - trained] if one["number"] else []
        print(
            f"beyond training: median {statistics.median(rest):.1f} s a round (from {min(rest):.1f} to {max(rest):.1f})"
        )
        print(f"the whole study: {time.monotonic() - began:.1f} s")
        for name, size in sorted(watch.peaks.items()):
            seconds = sum(value for (of, _), value in watch.seconds.items() if of == name)
            print(f"{name:13s} {size:6.0f} MB at most, {seconds:6.1f} s of processor time")
        versions = summary["versions"]
        print(", ".join(f"{name} {versions[name]}" for name in ("fednotes", "flwr", "torch", "python")))


if __name__ == "__main__":
    main()
