"""The dashboard under load: a record of many sites and rounds, opened in a real browser, and twenty who look at once.

    python benchmarks/dashboard.py
    python benchmarks/dashboard.py --sites 50 --rounds 200 --viewers 20

It writes the record as a study does, event by event, into a scratch folder; starts `fednotes dashboard` on it; and
prints the seconds from the navigation until the page is open (verdict and ladder are there, the feed is live, and the
charts in the window are drawn), and until all charts are drawn by whoever scrolls to the end at once: the first time,
when nothing has been read; with an empty cache of the browser; with a full one. Then the seconds from a new event to
all viewers, and the memory of the dashboard's process. Needs Chromium and what the tests need.
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
from playwright.sync_api import Page, sync_playwright  # noqa: E402
from viewers import Viewer  # noqa: E402

# Verdict and ladder are there, the feed is live, and the charts in the window are drawn.
OPENED = """() => document.querySelector("#verdict .verdict-line") && document.querySelector("#ladder td.cell")
    && ["live", "still", "old"].includes(document.documentElement.dataset.feed) && window.socket?.connected
    && document.documentElement.classList.contains("drawn")"""
# Whoever reads on to the end has every chart.
ALL_DRAWN = """() => {
    const next = [...document.querySelectorAll(".chart")].find((one) => !one.querySelector(".main-svg"));
    next?.scrollIntoView();
    return document.querySelector("#sites") && !next;
}"""


def seconds(page: Page, address: str) -> tuple[float, float]:
    """From the navigation until the page is open, and until all its charts are drawn by scrolling to each at once."""
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_function(OPENED, timeout=120_000)
    opened = time.perf_counter() - began
    page.wait_for_function(ALL_DRAWN, timeout=120_000)
    return opened, time.perf_counter() - began


def said(what: str, took: list[tuple[float, float]]) -> str:
    opened, drawn = zip(*took, strict=True)
    worst = f" (worst {max(opened):.2f})" if len(took) > 1 else ""
    return f"{what}: open {statistics.median(opened):.2f} s{worst}, all charts {statistics.median(drawn):.2f} s"


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

        def fresh() -> Page:
            return browser.new_context(viewport={"width": 1280, "height": 900}).new_page()

        def opened(page: Page) -> tuple[float, float]:
            took = seconds(page, address)
            page.goto("about:blank")
            return took

        print(said("the first time", [opened(fresh())]), f"load {psutil.getloadavg()[0]:.1f}", memory(), sep="; ")
        print(said("empty cache", [opened(fresh()) for _ in range(7)]), f"load {psutil.getloadavg()[0]:.1f}", sep="; ")
        page = fresh()
        opened(page)
        warm = said("full cache", [opened(page) for _ in range(7)])
        print(warm, f"load {psutil.getloadavg()[0]:.1f}", memory(), sep="; ")
        browser.close()
    took = asyncio.run(seconds_until_all_heard(address, given.viewers, run, given.rounds + 1))
    print(f"{given.viewers} viewers heard of an event after {min(took):.2f} to {max(took):.2f} s; {memory()}")


if __name__ == "__main__":
    main()
