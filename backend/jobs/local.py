"""Jobs on this machine: one a slot at a time, in processes that outlive the page, the dashboard and the shell.

There is no daemon. Whoever submits writes the run folder and starts the workers; a worker holds a slot (a file lock
that its jobs inherit, so that it is free when the last of them is gone), works off the queue and ends.
"""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from backend import process
from backend.home import CHECKOUT, runs_root
from backend.jobs import queue
from backend.jobs.journal import NAME, note, open_journal, turn_over
from backend.jobs.slots import Slot, slots, wanted_slots
from backend.run import DELETED, Run, RunError
from backend.spec import RunSpec

TRIES = 10  # to claim a run that somebody else holds, 0.2 s each
LEAST_FREE = 50 * 2**20  # bytes: with less, what is queued waits


def submit(specs: Iterable[RunSpec], priority: int = 0) -> list[Run]:
    """Queue runs in their order, behind what waits already at their priority or a higher one, and see that they are worked on.

    What is finished, queued or running already is left alone. It costs one worker a slot, however many runs. Raises SpecError for a priority that is none,
    and RunError or OSError where folders of some are damaged or closed: the others are queued then.
    """
    queue.check_priority(priority)
    runs, refused = [], []
    for spec in specs:
        try:
            runs.append(Run.create(runs_root(), spec))
        except RunError as error:
            refused.append(str(error))
    enqueue(runs, priority)
    if refused:
        raise RunError("; ".join(refused) + (f"; the other {len(runs)} are queued" if runs else ""))
    return runs


def resume(run: Run) -> None:
    """Queue a run again that failed, was cancelled or interrupted; it goes on from its last row. Raises RunError for any other."""
    if others := enqueue([run]):
        raise RunError(*others)


def enqueue(runs: list[Run], priority: int = 0) -> list[str]:
    """`queue.enqueue` among this machine's runs, and workers for those that it could queue: also where it raises for one of them."""
    queue.check_priority(priority)
    try:
        return queue.enqueue(runs_root(), runs, priority)
    finally:
        start_worker()


def delete(run: Run) -> None:
    """Delete the folder of a run that is not running, with everything in it. Publishing afterwards takes it out of the store.

    Raises RunError where another process works on it, or where it does not lie among this machine's runs.
    """
    if run.path.parent != runs_root():
        raise RunError(
            f"{run.run_id} lies in {run.path.parent}, not among the runs of this machine; it is not deleted here"
        )
    # At once out of every list, also where deleting takes its time; a name of its own, should an older one be left.
    aside = run.path.with_name(f"{DELETED}{run.run_id}-{os.getpid()}-{time.monotonic_ns()}")
    with run.held():
        run.path.rename(aside)
    os.utime(aside, follow_symlinks=False)  # as old as it is under this name, for `gc`
    if aside.is_symlink():  # what it leads to is not ours
        aside.unlink()
    else:
        shutil.rmtree(aside)


def start_worker() -> None:
    """Start a process a slot that works off the queue; each ends at once where another one does so already.

    Raises SpecError for a CERTSCOPE_SLOTS that is no number, and RunError where no worker could begin.
    """
    wanted_slots()
    runs_root().mkdir(parents=True, exist_ok=True)
    journal = runs_root() / NAME
    turn_over(journal)
    with open(journal, "ab") as log:
        started = subprocess.run(
            [sys.executable, "-m", "backend", "worker"],
            cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, check=False,
        )  # fmt: skip
    if started.returncode:
        raise RunError(
            f"no worker could begin (exit status {started.returncode}): the end of {journal} says why; what is queued waits"
        )


def cancel(run: Run, patience: float = 10.0) -> None:
    """End a queued or running job with all its processes. What it has written stays, and it can be resumed.

    Raises RunError where there is no such job, or it is not one of this machine's queue: it is not ours to end.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        state = run.state()
        if state["state"] == "running":
            if not process.is_here(state):
                with contextlib.suppress(RunError), run.held(patience=0.5):
                    # Nobody works on it: the folder was copied in mid-run, or its machine has another name now.
                    run.set_state("cancelled")
                    return
                raise RunError(f"{run.run_id} runs on {state.get('host')}; cancel it there")
            if not state.get("queue"):
                raise RunError(f"{run.run_id} was started from the command line; end it there with Ctrl-C")
            if process.is_alive(state):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(state["pid"], signal.SIGKILL)  # a row in flight is all that it can cost
        elif state["state"] != "queued" and not state.get("queue"):
            raise RunError(f"{run.run_id} is {state['state']}: nothing is there to end")
        with contextlib.suppress(RunError), run.held(patience=0.5):
            if run.state(mine=True)["state"] != "finished":
                run.set_state("cancelled")
            return
    raise RunError(f"{run.run_id} could not be ended; is its process {state.get('pid')} still there?")


def work_off_queue() -> None:
    """Be the workers, in the background: one a slot, each of which runs queued runs one after the other.

    The caller's process ends at once; the workers are its children, whom nobody has to wait for.
    """
    root, all_slots = runs_root(), slots()
    root.mkdir(parents=True, exist_ok=True)
    open_journal(root)  # here too, where whoever started this hears that it cannot be written
    for slot in all_slots:
        if not os.fork():
            open_journal(root)
            try:
                _work(root, slot)
            except Exception:  # nobody sees its output
                note("worker died", level=logging.ERROR, slot=slot.name, error=traceback.format_exc())
            break
    os._exit(0)


def _work(root: Path, slot: Slot) -> None:
    tried: Counter = Counter()  # a run that cannot even fail is not tried for ever
    while _next(root, tried):
        with slot.held(root) as lock:
            if lock is None:
                return
            while pair := _next(root, tried):
                if (free := shutil.disk_usage(root).free) < LEAST_FREE:
                    note("disk full", level=logging.ERROR, free_bytes=free, slot=slot.name)
                    return
                tried[_try(*pair)] += 1
                with contextlib.suppress(RunError, OSError):  # somebody else has it just now, or its folder is gone
                    if pid := _start(pair[0], slot, lock):
                        tried[_try(*pair)] = TRIES
                        _wait(*pair, pid)
        # One that was queued after the last look and before the slot was free finds this loop, or takes the slot.


def _next(root: Path, tried: Counter) -> tuple[Run, dict] | None:
    waiting = (pair for pair in queue.waiting(root) if tried[_try(*pair)] < TRIES)
    return next((pair for pair in waiting if not _too_early(pair[0], tried)), None)


def _too_early(run: Run, tried: Counter) -> bool:
    """Whether it certifies the weights of a run that a queue is still at: whose slot takes it up when they are there."""
    with contextlib.suppress(RunError, OSError):
        if (source := run.spec.weights_of) and not (trained := Run(run.path.parent / source)).weights_file.exists():
            state = trained.state()
            if state["state"] == "queued":
                return tried[_try(trained, state)] < TRIES
            return state["state"] == "running" and bool(state.get("queue")) and _is_held(trained)
    return False


def _is_held(run: Run) -> bool:
    """Whether a process works on it, maybe on another machine that shares the folder; of a folder that was copied none does."""
    try:
        with run.held(patience=0):
            return False
    except RunError:
        return True


def _try(run: Run, state: dict) -> tuple[str, int]:
    return run.run_id, state.get("ticket", 0)  # who queues it again gives it another ticket


def _start(run: Run, slot: Slot, slot_lock: int) -> int | None:
    """Claim a queued run and start its job, in a session of its own; returns the pid, None where it does not wait any more.

    Raises RunError where another process holds the run.
    """
    worker = os.getpid()
    try:
        run.refuse_links()
    except RunError as error:  # nobody can hold such a run
        run.set_state("failed", error=str(error))
        return None
    with run.held(patience=0.2) as run_lock:
        if run.state(mine=True)["state"] != "queued":
            return None
        if not (pid := os.fork()):
            _become_job(run, slot, [run_lock, slot_lock], worker)
    note("job started", run.run_id, slot=slot.name, job=pid)
    return pid


def _become_job(run: Run, slot: Slot, locks: list[int], worker: int) -> None:
    """In a fresh child: say so in the folder, then turn into the job. From its first moment on it can be cancelled."""
    try:
        os.setsid()
        with open(run.log_file, "ab") as log, open(os.devnull, "rb") as nothing:
            for target, source in enumerate((nothing, log, log)):
                os.dup2(source.fileno(), target)
        run.set_state("running", **process.identity(), queue=True, slot=slot.name)
        for lock in locks:
            os.set_inheritable(lock, True)
        os.chdir(CHECKOUT)
        command = [sys.executable, "-m", "backend", "execute", run.run_id, *map(str, locks), str(worker)]
        os.execve(sys.executable, command, slot.environment())
    except OSError as error:
        print(f"certscope: the job could not be started: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def _wait(run: Run, queued: dict, pid: int) -> None:
    """Wait for a job to end; it fails where it could not say why. queued: the state from which it was started."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(RunError, OSError), run.held():
        state = run.state(mine=True)
        never_began = state["state"] == "queued" and _try(run, state) == _try(run, queued)
        if never_began or (state["state"] == "interrupted" and code > 0 and state.get("pid") == pid):
            how = f"with exit status {code}" if code >= 0 else f"by signal {-code}"
            run.set_state("failed", error=f"the job ended {how} before it began; see its log")
    note("job ended", run.run_id, job=pid, status=code)
