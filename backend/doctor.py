"""Whether this machine has what Certscope needs: one finding a line, with what to do where something is amiss."""

import os
import re
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from backend.datasets import DATASETS, dataset_names, is_there
from backend.home import CHECKOUT, data_root, home, imported_root, read_only, runs_root, snapshot_path
from backend.jobs.slots import gpus, slots
from backend.overview import listing, stands_still
from backend.run import RunError, all_runs
from backend.spec import SpecError

PORT = 8501
LITTLE, VERY_LITTLE = 10e9, 1e9  # bytes free


@dataclass(frozen=True)
class Finding:
    """level: ok, note (something to know) or problem (something will not work)."""

    level: str
    says: str
    do: str = ""


def examine() -> Iterator[Finding]:
    """Every finding. A check that fails itself is a problem, and does not hold up the others."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:
            name = check.__name__.strip("_")
            yield Finding("problem", f"{name} could not be looked at: {type(error).__name__}: {error}")


def _packages() -> Iterator[Finding]:
    yield Finding("ok", f"Python {'.'.join(map(str, sys.version_info[:3]))}, checkout {CHECKOUT}, home {home()}")
    for file, level in (("backend/requirements.txt", "problem"), ("requirements.txt", "note")):
        found, wrong = [], []
        for name, floor in re.findall(r"^([\w-]+)(?:\[.*?\])?>=([\d.]+)", (CHECKOUT / file).read_text(), re.MULTILINE):
            try:
                (found if _numbers(version(name)) >= _numbers(floor) else wrong).append(f"{name} {version(name)}")
            except PackageNotFoundError:
                wrong.append(f"{name} is missing")
        use = "training and certifying" if level == "problem" else "the dashboard"
        if wrong:
            yield Finding(level, f"for {use}: {', '.join(wrong)}", f"pip install -r {file}")
        else:
            yield Finding("ok", f"for {use}: {', '.join(found)}")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text.split("+", maxsplit=1)[0])[:3]]


def _device() -> Iterator[Finding]:
    from backend.pipeline import choose_device, circumstances

    device, there = choose_device(), gpus()
    facts = circumstances(device)
    if there and device.type == "cpu":
        yield Finding("problem", f"{len(there)} GPUs are here, but torch {facts['torch']} sees none",
                      "Is it a CPU build, or is the driver too old for it? https://pytorch.org/get-started/locally")  # fmt: skip
    try:
        own = slots()
        yield Finding("ok", f"{facts['device']}; {len(own)} jobs at once: {', '.join(slot.name for slot in own)}")
    except SpecError as error:
        yield Finding("problem", str(error))


def _disk() -> Iterator[Finding]:
    place = home()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        yield Finding("problem", f"{place} is no folder", "Set CERTSCOPE_HOME to a folder, or to one that can be made.")
        return
    if not os.access(place, os.W_OK):
        yield Finding(
            "problem", f"{place} cannot be written", "Change its owner, or set CERTSCOPE_HOME to another folder."
        )
    free = shutil.disk_usage(place).free
    level = "problem" if free < VERY_LITTLE else "note" if free < LITTLE else "ok"
    yield Finding(level, f"{free / 1e9:.1f} GB free at {place}",
                  "" if level == "ok" else "`python -m backend gc` lists what nobody needs.")  # fmt: skip


def _data() -> Iterator[Finding]:
    there = [name for name in dataset_names() if name not in DATASETS]
    missing = []
    for dataset in DATASETS.values():
        (there if not dataset.place or is_there(dataset.place) else missing).append(dataset.name)
    yield Finding("ok", f"data sets here: {', '.join(there)}; not in {data_root()}: {', '.join(missing) or 'none'}")


def _store() -> Iterator[Finding]:
    if not find_spec("duckdb"):
        yield Finding("note", "no duckdb here: this machine cannot publish", "pip install -r requirements.txt")
        return
    if not snapshot_path().exists():
        yield Finding("note", "there is no store yet", "python -m backend publish")
        return
    from backend.store import queries
    from backend.store.snapshot import StoreError

    try:
        stored = set(queries.runs().run_id)
    except StoreError as error:
        yield Finding("problem", str(error))
        return
    minutes = (time.time() - snapshot_path().stat().st_mtime) / 60
    yield Finding("ok", f"the store has {len(stored)} runs, and is {minutes:.0f} minutes old")
    finished = {run.run_id for state, run, _ in _states() if state == "finished"}
    if late := finished - stored:
        yield Finding("note", f"finished, but not in the store: {_some(late)}", "python -m backend publish says why.")


def _states() -> Iterator[tuple[str, object, str]]:
    """(state, run, ""), or ("unreadable", run, why)."""
    for root in (runs_root(), imported_root()):
        for run in all_runs(root):
            try:
                _ = run.spec
                yield run.state()["state"], run, ""
            except (RunError, OSError, ValueError) as error:
                yield "unreadable", run, str(error)


def _runs() -> Iterator[Finding]:
    states = list(_states())
    counts = Counter(state for state, _, _ in states)
    listed = ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "none yet"
    yield Finding("ok", f"runs of this machine: {listed}")
    for state, run, why in states:
        if state == "unreadable":
            yield Finding("problem", f"{run.path}: {why}", "Mend it, or move the folder away.")
    for state, do in (
        ("interrupted", "python -m backend queue --resume all"),
        ("failed", "python -m backend queue says why"),
    ):
        if names := [run.run_id for s, run, _ in states if s == state]:
            yield Finding("note", f"{state}: {_some(names)}", do)
    if stands_still(listing(runs_root())):
        yield Finding("note", f"{counts['queued']} runs wait, and none runs", "python -m backend worker")


def _some(names) -> str:
    first = sorted(names)[:5]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def _dashboard() -> Iterator[Finding]:
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex(("127.0.0.1", PORT)) == 0
    if taken:
        yield Finding("note", f"port {PORT} is in use, maybe by a dashboard", f"./scripts/run --port {PORT + 1}")
    else:
        yield Finding("ok", f"port {PORT} is free")
    if read_only():
        yield Finding("note", "CERTSCOPE_READ_ONLY=1: visitors start, stop and delete nothing")
    if not find_spec("choreographer"):
        return
    from choreographer.browsers.chromium import Chromium  # of kaleido, which draws the files

    if Chromium.find_browser(skip_local=False):
        yield Finding("ok", "Chrome or Chromium is here: figures can be had as files")
    else:
        yield Finding("note", "no Chrome or Chromium: figures cannot be had as SVG, PNG or PDF", "apt install chromium")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (_packages, _device, _disk, _data, _store, _runs, _dashboard)
