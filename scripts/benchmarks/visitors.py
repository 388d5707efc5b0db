"""Twenty visitors at once, on a store of 200 runs: a real server, and a browser with a window a visitor.

First content after a cold start (target: 2 s), how long a change of a filter takes, alone and beside the others, and whatever went
wrong. The runs are copies of shipped folders under other seeds, so their specs, names and claims are those of real runs. An
interaction lasts from the key press until the page is at rest again: the server's answer and what the browser makes of it. The browser
shares this machine with the server.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

from backend.home import CHECKOUT, PRECOMPUTED
from backend.run import Run, all_runs

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
RESTING = "[data-testid=stApp][data-test-script-state=notRunning]"
FIRST_CONTENT = "h1"
PAGES = ("", "compare")  # visitors take them in turn


def copies(root: Path, count: int) -> None:
    """Run folders under root, shipped ones under other seeds, so that `count` runs are there with the shipped."""
    shipped = [run for run in all_runs(PRECOMPUTED) if run.spec.dataset == "mnist"]
    for number in range(count - len(shipped)):
        source = shipped[number % len(shipped)]
        run = Run.create(root, replace(source.spec, seed=1_000 + number // len(shipped)))
        for file in set(source.portable(weights=False)) - {source.spec_file}:
            shutil.copy(file, run.path)


def port() -> int:
    """One that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


async def visit(browser, address: str, number: int, rounds: int) -> dict:
    """One visitor: opens a page, changes a field `rounds` times, says how long each took and what went wrong."""
    from playwright.async_api import Error

    path = list(PAGES)[number % len(PAGES)]
    seen = {"page": path or "trade_offs", "first": None, "rest": None, "interactions": [], "errors": []}
    context = await browser.new_context(viewport={"width": 1440, "height": 1000})
    page = await context.new_page()
    page.set_default_timeout(180_000)
    page.on("pageerror", lambda error: seen["errors"].append(str(error)[:200]))
    try:
        start = time.perf_counter()
        await page.goto(f"{address}/{path}", wait_until="commit")
        await page.locator(FIRST_CONTENT).first.wait_for()
        seen["first"] = time.perf_counter() - start
        await page.locator(RESTING).wait_for()
        seen["rest"] = time.perf_counter() - start
        for turn in range(rounds):
            seen["interactions"].append(await change(page, path, round(0.3 + 0.01 * number + 0.3 * (turn + 1), 2)))
        if await page.get_by_test_id("stException").count():
            seen["errors"].append("a traceback was shown")
    except Error as error:
        seen["errors"].append(str(error).splitlines()[0])
    await context.close()
    return seen


async def change(page, path: str, value: float) -> float:
    """Seconds from moving the radius to a page at rest that shows it: typed where there is a field, else a step of the slider."""
    if path:
        handle, key, shown = (
            page.get_by_role("spinbutton", name="Radius r"),
            "Enter",
            f"Certified accuracy at {value:g}",
        )
        await handle.fill(f"{value:g}")
    else:
        handle, key = page.get_by_test_id("stSlider").get_by_role("slider").first, "ArrowRight"
        shown = f"at least {float(await handle.get_attribute('aria-valuetext')) + 0.01:.2f}"
    start = time.perf_counter()
    await handle.press(key)
    await page.get_by_text(shown).first.wait_for()
    await page.locator(RESTING).wait_for()
    return time.perf_counter() - start


def chromium() -> str:
    """Where Chromium is."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("this bench wants Chromium: apt install chromium")
    return found


def served(home: Path, log: Path) -> tuple[subprocess.Popen, str]:
    """A server on the store of `home`, as scripts/run starts it, and its address; returns when it answers."""
    number = port()
    with open(log, "w") as output:
        process = subprocess.Popen(
            [CHECKOUT / ".venv/bin/python", "-m", "app", "--server.port", str(number), "--server.headless", "true"],
            cwd=CHECKOUT, env=os.environ | {"CERTSCOPE_HOME": str(home)}, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    address, deadline = f"http://127.0.0.1:{number}", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
            return process, address
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"the server does not answer:\n{log.read_text()[-2000:]}")


async def visits(address: str, visitors: int, rounds: int) -> tuple[dict, list[dict], list[dict]]:
    """What the first visitor of a cold server saw, then one at a time on each page, then all at once."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        cold = await visit(browser, address, 0, 0)
        alone = [await visit(browser, address, number, rounds) for number in range(len(PAGES))]
        everyone = await asyncio.gather(*(visit(browser, address, number, rounds) for number in range(visitors)))
        await browser.close()
    return cold, alone, everyone


def measure(visitors: int, runs: int, rounds: int) -> dict:
    """A store of so many runs, a server on it, and its visitors."""
    from backend.store.publish import publish

    with tempfile.TemporaryDirectory() as folder:
        home, log = Path(folder) / "home", Path(folder) / "log"
        os.environ["CERTSCOPE_HOME"] = str(home)
        copies(home / "runs", runs)
        report = publish()
        assert report.total == runs, (report.total, report.skipped)
        process, address = served(home, log)
        try:
            cold, alone, everyone = asyncio.run(visits(address, visitors, rounds))
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
        written = [line for line in log.read_text().splitlines() if "Traceback" in line or "Error" in line]
    return {
        "visitors": visitors, "runs": runs, "first_content_cold_s": cold["first"] and round(cold["first"], 2),
        "first_content_alone_s": {v["page"]: of([v["first"]]) for v in alone},
        "at_rest_alone_s": {v["page"]: of([v["rest"]]) for v in alone},
        "interaction_alone_s": {v["page"]: of(v["interactions"]) for v in alone},
        "first_content_crowd_s": of([v["first"] for v in everyone]),
        "at_rest_crowd_s": of([v["rest"] for v in everyone]),
        "interaction_crowd_s": of([seconds for v in everyone for seconds in v["interactions"]]),
        "errors": [error for v in (cold, *alone, *everyone) for error in v["errors"]] + written[:5],
    }  # fmt: skip


def of(seconds: list[float | None]) -> dict:
    """Median and slowest of those that were measured."""
    known = [value for value in seconds if value is not None]
    if not known:
        return {}
    return {"median": round(statistics.median(known), 2), "slowest": round(max(known), 2)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="4 visitors, 3 interactions each")
    options.add_argument("--visitors", type=int, default=20)
    options.add_argument("--runs", type=int, default=200)
    options.add_argument("--rounds", type=int, default=5, help="interactions of each visitor")
    options = options.parse_args()
    visitors, rounds = (4, 3) if options.quick else (options.visitors, options.rounds)
    result = measure(visitors, options.runs, rounds)
    for name, value in result.items():
        print(f"{name:<24} {value}")
    print(json.dumps({"machine": platform.processor() or platform.machine(), "load": os.getloadavg()[0], **result}))


if __name__ == "__main__":
    main()
