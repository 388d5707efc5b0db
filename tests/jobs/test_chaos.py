"""Fifty kills, and nothing lost: workers, jobs, publishers and whoever submits die at random moments of a grid."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from backend.home import CHECKOUT, runs_root
from backend.jobs import journal
from backend.jobs.worker import work
from backend.plan import sweep
from backend.run import Run
from backend.spec import Certification
from backend.store import queries
from backend.store.snapshot import StoreError

SEED, RUNS = 20, 4
KILLS = {"worker": 17, "job": 13, "dashboard": 13, "publisher": 7}  # fifty
# What stands for the dashboard queues the grid over and over: what was interrupted resumes, what is finished is left.
DASHBOARD = """
import contextlib, sys, time
from backend.jobs import local
from backend.run import RunError
from backend.spec import RunSpec
specs = [RunSpec.from_json(text) for text in open(sys.argv[1]).read().split("\\0")]
while True:
    with contextlib.suppress(RunError):
        local.submit(specs)
    time.sleep(0.3)
"""
PUBLISHER = """
import time
from backend.store.publish import publish
while True:
    publish()
    time.sleep(0.1)
"""
PROGRAMS = {"dashboard": DASHBOARD, "publisher": PUBLISHER}


@pytest.fixture(autouse=True)
def nothing_goes_on(home):
    """Whatever becomes of the test, no process of its home outlives it."""
    yield
    while left := processes(home):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def grid():
    return sweep(
        ["gaussian"], [0.25], [], range(RUNS), dataset="digits", epochs=2,
        certification=Certification(n=2000, n0=20, every=15),
    )  # fmt: skip


def processes(home):
    """pid -> what it does, of this home's processes."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"CERTSCOPE_HOME={home}\0".encode() not in (place / "environ").read_bytes():
                continue
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        kinds = {"worker": "worker", "execute": "job", DASHBOARD: "dashboard", PUBLISHER: "publisher"}
        if kind := next((kinds[word] for word in words if word in kinds), None):
            found[int(place.name)] = kind
    return found


def publishing(home):
    """The pid that holds the publisher's lock; None where nobody does."""
    lock = home / ".publish.lock"
    if not lock.exists():
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].endswith(f":{lock.stat().st_ino}"):
            return int(words[4])
    return None


def results(run):
    """What must be equal: everything but times, in the order of the images."""
    epochs = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.epochs()]
    return [replace(c, time=0.0) for c in run.certificates()], epochs, run.weights_sha256()


def keep_alive(started, specs):
    for kind, program in PROGRAMS.items():
        if kind not in started or started[kind].poll() is not None:
            started[kind] = subprocess.Popen([sys.executable, "-c", program, specs], cwd=CHECKOUT)


def wait_for(look, seconds):
    """The first thing that look() returns; None where there was none in time."""
    deadline = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return seen


def in_store():
    try:
        return set(queries.runs().run_id)
    except StoreError:
        return set()


def kill_one(home, kind, dice):
    """SIGKILL a process of that kind, a publisher while it publishes; returns whether there was one."""
    if kind == "publisher":
        victims = [pid] if (pid := wait_for(lambda: publishing(home), 3)) in processes(home) else []
    else:
        victims = sorted(pid for pid, does in processes(home).items() if does == kind)
    if victims:
        os.kill(dice.choice(victims), signal.SIGKILL)
    return bool(victims)


def test_fifty_kills_cost_nothing(home, grid, tmp_path, monkeypatch):
    monkeypatch.setenv("CERTSCOPE_SLOTS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    specs = tmp_path / "specs"
    specs.write_text("\0".join(spec.to_json() for spec in grid))
    runs = [Run(runs_root() / spec.run_id) for spec in grid]
    dice, hit, started = random.Random(SEED), Counter(), {}
    left = dice.sample(list(KILLS), 50, counts=KILLS.values())
    deadline = time.monotonic() + 300

    def complete():
        return all(run.spec_file.exists() and run.state()["state"] == "finished" for run in runs)

    while left or not complete() or not in_store() >= {run.run_id for run in runs}:
        assert time.monotonic() < deadline, (hit, left, [run.state() for run in runs])
        keep_alive(started, specs)
        time.sleep(dice.uniform(0.05, 0.6))
        if left:
            kind = left.pop()
            if kill_one(home, kind, dice):
                hit[kind] += 1
            else:  # there is none just now; when the grid is through, the rest are of those that go on
                left.insert(0, dice.choice(list(PROGRAMS)) if complete() else kind)
    for process in started.values():
        process.kill()
        process.wait()
    assert hit.total() == 50
    assert min(hit[kind] for kind in KILLS) >= 5, hit
    journal_lines = [json.loads(line) for line in (runs_root() / journal.NAME).read_text().splitlines()]
    assert {line["status"] for line in journal_lines if line["event"] == "job ended"} <= {0, -signal.SIGKILL}
    for run in runs:
        undisturbed = Run.create(home / "undisturbed", run.spec)
        work(undisturbed, "cpu")
        assert results(run) == results(undisturbed)
