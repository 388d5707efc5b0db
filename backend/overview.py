"""What stands where among the runs of this machine: their states at a glance, and how far one has come.

Asked every second or two by every page that is open, so that a file is read again only where it changed.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from backend.datasets import DatasetError, find_dataset
from backend.jobs.queue import place
from backend.run import STATES, Run, RunError
from backend.spec import RunSpec, SpecError

DAMAGED = "damaged"  # a folder whose state or spec cannot be read
TAIL = 4096  # bytes
LATEST = 64  # images
STARTS = 20e9  # nanoseconds within which a job begins where all is well, also behind one that ends with publishing


@dataclass(frozen=True)
class Listed:
    """A run of a list. `state` as `Run.state`, with `error` where it is damaged; `changed`: ns, of state.json."""

    run: Run
    state: dict
    changed: int

    @property
    def name(self) -> str:
        """One of run.STATES, or DAMAGED."""
        return self.state["state"]


_known: dict[Path, tuple[tuple, Listed]] = {}  # folder -> what its state.json looked like, and what it told


def listing(root: Path) -> list[Listed]:
    """The runs under root: those that run, those that wait (the next one first), then the latest that changed."""
    found = []
    before = [path for path in list(_known) if path.parent == root]
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                with contextlib.suppress(SpecError, OSError):  # no run's name; gone, or not ours to read
                    if one := listed(Path(entry.path)):
                        found.append(one)
    for gone in set(before) - {one.run.path for one in found}:
        _known.pop(gone, None)
    return sorted(found, key=_place)


def _place(one: Listed) -> tuple:
    if one.name != "queued":
        return (0 if one.name == "running" else 2, 0, 0, -one.changed)
    return (1, *place(one.state), one.changed)


def counts(runs: list[Listed]) -> dict[str, int]:
    """How many are in each state, states that none is in left out."""
    names = [one.name for one in runs]
    return {name: names.count(name) for name in (*STATES, DAMAGED) if name in names}


def stands_still(runs: list[Listed]) -> bool:
    """Whether some wait, none runs, and nothing has begun or ended of late: nobody works on the queue."""
    names = {one.name for one in runs}
    idle = not 0 <= time.time_ns() - max((one.changed for one in runs), default=0) <= STARTS
    return "queued" in names and "running" not in names and idle


def listed(path: Path) -> Listed | None:
    """The run whose folder this is; None where it is none. Raises SpecError for a name that is no run's, and OSError."""
    known = _known.get(path)
    run = known[1].run if known else Run(path)
    try:
        stat = run.state_file.stat()
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        if not run.spec_file.exists():
            return None
        mark = (0, run.spec_file.stat().st_mtime_ns, 0)
    if (
        known and known[0] == mark and known[1].name not in ("running", "interrupted", DAMAGED)
    ):  # these change without the file
        return known[1]
    try:
        state, _ = run.state(), run.spec
    except RunError as error:
        state = {"state": DAMAGED, "error": str(error)}
    _known[path] = (mark, one := Listed(run, state, mark[1]))
    return one


@dataclass(frozen=True)
class SoFar:
    """How far a run has come. Rates and seconds_left (of the phase it is in) are None where nothing tells them."""

    epochs: int
    of_epochs: int  # 0: it takes the weights of another run
    images: int
    of_images: int | None  # None: its data set is not on this machine
    loss: float | None = None
    images_per_second: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    missing_classes: int = 0  # answered hardly ever after the last epoch: above 0 it collapsed


def progress(run: Run) -> SoFar:
    """Read from a run's rows. Raises RunError for a folder that cannot be read."""
    return _progress(run.path, run.fingerprint())


@lru_cache(maxsize=2048)
def _progress(path: Path, fingerprint: str) -> SoFar:
    run = Run(path)
    spec, rows, images = run.spec, run.epochs(), run.count()[1]
    last = rows[-1] if rows else {}
    of_epochs = 0 if spec.weights_of else spec.recipe.epochs
    facts = {
        "epochs": len(rows), "of_epochs": of_epochs, "images": images, "of_images": images_of(spec),
        "loss": last.get("loss"), "images_per_second": last.get("images_per_second"),
        "missing_classes": int((last or run.environment()).get("missing_classes", 0)) if len(rows) == of_epochs else 0,
    }  # fmt: skip
    if images:
        seconds, samples = _latest(run)
        facts["samples_per_second"] = samples / seconds if seconds else None
        if facts["of_images"] is not None:
            facts["seconds_left"] = seconds * (facts["of_images"] - images)
    elif last:
        facts["seconds_left"] = last["seconds"] * (of_epochs - len(rows))
    return SoFar(**facts)


def took(run: Run) -> tuple[float, float]:
    """Seconds of training and of certifying so far, by a run's rows: all attempts together, without their starts. Raises RunError for a folder that cannot be read."""
    return _took(run.path, run.fingerprint())


@lru_cache(maxsize=256)
def _took(path: Path, fingerprint: str) -> tuple[float, float]:
    run = Run(path)
    return sum(row["seconds"] for row in run.epochs()), sum(row.time for row in run.certificates())


def images_of(spec: RunSpec) -> int | None:
    """How many images a spec certifies; None where its data set is not on this machine."""
    if spec.certification is None:
        return 0
    try:
        return len(spec.certification.chosen(find_dataset(spec.dataset).test_images))
    except DatasetError:
        return None


def _latest(run: Run) -> tuple[float, float]:
    """Seconds and samples that the latest certified images took, each a mean."""
    header, *lines = (run.content(run.certificates_file) or b"").decode(errors="replace").split("\n")[:-1] or [""]
    columns, rows = header.split("\t"), [line.split("\t") for line in lines[-LATEST:]]
    rows = [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]
    if not rows:
        return 0.0, 0.0
    try:
        seconds = sum(float(row["time"]) for row in rows)
        samples = sum(int(row["n"]) + int(row["n0"]) for row in rows)
    except (KeyError, ValueError) as error:
        raise RunError(f"{run.certificates_file} holds a row that is no certificate: {error}") from error
    return seconds / len(rows), samples / len(rows)


def tail(path: Path) -> list[str]:
    """The last whole lines of a file, of about 4 kB; none where it is not there, or is a link: a run folder may be anybody's."""
    if path.is_symlink():
        return []
    try:
        with open(path, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL)
            file.seek(start)
            lines = file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    return lines[1 if start else 0 : -1]
