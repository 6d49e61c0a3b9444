"""The dashboard under load: a record of many sites and rounds, opened in a real browser, and twenty who look at once.

    python benchmarks/dashboard.py
    python benchmarks/dashboard.py --sites 50 --rounds 200 --viewers 20

It writes the record as a study does, event by event, into a scratch folder; starts `fednotes dashboard` on it; and
prints the seconds from the navigation until ladder and charts are drawn (the first time, when nothing has been read,
and again), the bytes of the page, those from a new event to all viewers, and the memory of the dashboard's process.
Needs Chromium and what the tests need.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/server"), str(ROOT / "tests/server/dashboard")]

import psutil  # noqa: E402
from browsing import CHROMIUM  # noqa: E402
from dashboards import add_record, add_round, next_round, recorder  # noqa: E402
from example_summary import example_summary  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402
from viewers import Viewer  # noqa: E402

DRAWN = """() => {
    const drawn = document.querySelectorAll("#training .main-svg").length && document.querySelector("#ladder td.cell");
    return drawn && document.documentElement.classList.contains("drawn") && window.socket?.connected;
}"""


def seconds_until_drawn(browser: Browser, address: str) -> float:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_function(DRAWN, timeout=120_000)
    took = time.perf_counter() - began
    page.context.close()
    return took


async def seconds_until_all_heard(address: str, viewers: int, run: Path, number: int) -> list[float]:
    looking = [Viewer() for _ in range(viewers)]
    for one in looking:
        await one.open(address, f"ound {number} of")  # "Round 9 of 9", or "Interrupted after round 9 of 9"
    await asyncio.sleep(2)
    with recorder(run) as record:
        add_round(record, next_round(number))
    began = time.time()
    async with asyncio.timeout(60):
        while not all(one.seen for one in looking):
            await asyncio.sleep(0.02)
    await asyncio.gather(*(one.close() for one in looking))
    return [one.seen - began for one in looking]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--viewers", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "runs" / "large"
        run.mkdir(parents=True)
        names = [f"Hospital {number:03d}" for number in range(given.sites)]
        began = time.perf_counter()
        add_record(run, None, "large", False, example_summary(names, given.rounds, metric="accuracy"))
        print(f"record: {given.sites} sites, {given.rounds} rounds, written in {time.perf_counter() - began:.0f} s")
        line = [sys.executable, "-m", "fednotes", "dashboard", "--runs", str(run.parent)]
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            address = process.stdout.readline().split()[-1] + "study/large"
            measure(address, psutil.Process(process.pid), run, given)
        finally:
            process.terminate()
            process.wait()


def measure(address: str, process: psutil.Process, run: Path, given: argparse.Namespace) -> None:
    def memory() -> str:
        return f"{process.memory_info().rss / 1e6:.0f} MB"

    print(f"load {psutil.getloadavg()[0]:.1f}; dashboard, idle: {memory()}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        first = seconds_until_drawn(browser, address)
        again = [seconds_until_drawn(browser, address) for _ in range(5)]
        browser.close()
    print(f"opened: {first:.2f} s the first time, then {statistics.median(again):.2f} s ({max(again):.2f}); {memory()}")
    took = asyncio.run(seconds_until_all_heard(address, given.viewers, run, given.rounds + 1))
    print(f"{given.viewers} viewers heard of an event after {min(took):.2f} to {max(took):.2f} s; {memory()}")


if __name__ == "__main__":
    main()
