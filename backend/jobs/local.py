"""Jobs on this machine: one at a time, in processes that outlive the page, the dashboard and the shell.

There is no daemon. Whoever submits writes the run folder and starts a worker; a worker holds the slot (a file lock
that its jobs inherit, so that it is free when the last of them is gone), works off the queue and ends.
"""

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from backend.home import CHECKOUT, runs_root
from backend.run import Run, RunError, all_runs
from backend.spec import RunSpec

SLOT = ".slot"
THREADS = str(
    max(1, (os.cpu_count() or 1) - 1)
)  # of a job, unless OMP_NUM_THREADS says: a core is left to the dashboard


def submit(spec: RunSpec) -> Run:
    """Queue a run and see that it is worked on. A run that is finished, queued or running already is left alone."""
    return submit_all([spec])[0]


def submit_all(specs: Iterable[RunSpec]) -> list[Run]:
    """Queue a grid in its order, behind what waits already, and see that it is worked on: one worker, however many runs."""
    runs = [Run.create(runs_root(), spec) for spec in specs]
    for run in runs:
        _queue(run)
    start_worker()
    return runs


def resume(run: Run) -> None:
    """Queue a run again that failed, was cancelled or interrupted; it goes on from its last row."""
    _queue(run)
    start_worker()


def _queue(run: Run) -> None:
    with contextlib.suppress(RunError), run.held(patience=0.2):  # held by another: it is running
        if run.state(mine=True)["state"] not in ("finished", "queued"):
            run.set_state("queued")


def delete(run: Run) -> None:
    """Delete the folder of a run that is not running, with everything in it. Publishing afterwards takes it out of the store.

    Raises RunError where another process works on it, or where it does not lie among this machine's runs.
    """
    if run.path.parent != runs_root():
        raise RunError(
            f"{run.run_id} lies in {run.path.parent}, not among the runs of this machine; it is not deleted here"
        )
    aside = run.path.with_name(
        f".deleted-{run.run_id}"
    )  # at once out of every list, also where deleting takes its time
    with run.held():
        run.path.rename(aside)
    shutil.rmtree(aside)


def start_worker() -> None:
    """Start a process that works off the queue; it ends at once where another one does so already."""
    with open(runs_root() / ".worker.log", "ab") as log:
        subprocess.run(
            [sys.executable, "-m", "backend", "worker"],
            cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, check=True,
        )  # fmt: skip


def cancel(run: Run, patience: float = 10.0) -> None:
    """End a queued or running job. What it has written stays, and it can be resumed.

    Raises RunError where the job is not one of this machine's queue: it is not ours to end.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        state = run.state()
        if state["state"] == "running":
            if state.get("host") != platform.node():
                raise RunError(f"{run.run_id} runs on {state.get('host')}; cancel it there")
            if not state.get("queue"):
                raise RunError(f"{run.run_id} was started from the command line; end it there with Ctrl-C")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(state["pid"], signal.SIGKILL)  # a row in flight is all that it can cost
        elif state["state"] != "queued" and not state.get("queue"):
            return
        with contextlib.suppress(RunError), run.held(patience=0.5):
            if run.state(mine=True)["state"] != "finished":
                run.set_state("cancelled")
            return
    raise RunError(f"{run.run_id} could not be ended; is its process {state.get('pid')} still there?")


def queued(root: Path) -> list[Run]:
    """The runs that wait, the longest waiting first. A folder that cannot be read does not hold up the others."""
    waiting = []
    for run in all_runs(root):
        with contextlib.suppress(RunError, FileNotFoundError):
            if run.state()["state"] == "queued":
                waiting.append((run.state_file.stat().st_mtime_ns, run))
    return [run for _, run in sorted(waiting, key=lambda pair: pair[0])]


def work_off_queue() -> None:
    """Be the worker, in the background: run the queued runs one after the other, each in a process of its own.

    The caller's process ends at once; the worker is its child, whom nobody has to wait for.
    """
    if os.fork():
        os._exit(0)
    root = runs_root()
    root.mkdir(parents=True, exist_ok=True)
    tried: set[tuple[str, int]] = set()  # a run that cannot even fail is not tried for ever

    def waiting() -> list[Run]:
        return [run for run in queued(root) if (run.run_id, run.state_file.stat().st_mtime_ns) not in tried]

    while waiting():
        with _slot(root) as slot:
            if slot is None:
                return
            while runs := waiting():
                tried.add((runs[0].run_id, runs[0].state_file.stat().st_mtime_ns))
                with contextlib.suppress(OSError):  # its folder is gone, or cannot be written
                    _run_in_process(runs[0], slot)
        # One that was queued after the last look and before the slot was free finds this loop, or takes the slot.


@contextlib.contextmanager
def _slot(root: Path) -> Iterator[int | None]:
    with open(root / SLOT, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def _run_in_process(run: Run, slot: int) -> None:
    with open(run.log_file, "ab") as log:
        command = [sys.executable, "-m", "backend", "execute", run.run_id, str(slot)]
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, pass_fds=(slot,), env={"OMP_NUM_THREADS": THREADS} | os.environ,
        )  # fmt: skip
        code = process.wait()
    with contextlib.suppress(RunError), run.held():
        if run.state(mine=True)["state"] == "queued":  # it died before it could say anything
            run.set_state("failed", error=f"the job ended with exit status {code} before it began; see its log")
