"""The queue: the run folders whose state is `queued`. No file lists them, so that none can be wrong about them.

A queued state holds a ticket and a priority. Tickets are numbers that only grow, so that the order does not hang on a
clock, which may be set back.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from backend.run import Run, RunError, all_runs
from backend.spec import SpecError

TICKETS = ".tickets"  # the last number given
PRIORITIES = (-100, 100)


def enqueue(root: Path, runs: list[Run], priority: int = 0) -> list[str]:
    """Queue those runs, in their order, that are not finished, queued or running; returns a sentence for each of the others.

    Raises SpecError for a priority that is none, and OSError where the disk or a folder does not let it: those that it could are queued then.
    """
    check_priority(priority)
    others, failed = [], None
    for ticket, run in zip(_tickets(root, len(runs)), runs, strict=True):
        try:
            with run.held(patience=0.2):
                state = run.state(mine=True)["state"]
                if state in ("finished", "queued", "running"):  # running on another machine
                    others.append(f"{run.run_id} is {state}")
                else:
                    run.set_state("queued", ticket=ticket, priority=priority)
        except RunError as error:  # of another process: it is running; or it was deleted
            others.append(str(error))
        except OSError as error:
            failed = error
    if failed:
        raise failed
    return others


def prioritise(run: Run, priority: int) -> None:
    """Give a queued run another priority. Raises RunError where it does not wait any more."""
    check_priority(priority)
    with run.held():
        state = run.state(mine=True)
        if state["state"] != "queued":
            raise RunError(f"{run.run_id} is {state['state']}: only a queued run has a priority to change")
        run.set_state("queued", ticket=state.get("ticket", 0), priority=priority)


def check_priority(priority: int) -> None:
    """Raise SpecError unless it is a whole number in PRIORITIES."""
    low, high = PRIORITIES
    if type(priority) is not int or not low <= priority <= high:
        raise SpecError(f"a priority is a whole number from {low} to {high}, not {priority!r}")


def waiting(root: Path) -> list[tuple[Run, dict]]:
    """The queued runs with their states: the highest priority first, then the smallest ticket.

    A folder that cannot be read does not hold up the others.
    """
    found = []
    for run in all_runs(root):
        with contextlib.suppress(RunError, OSError):
            if (state := run.state())["state"] == "queued":
                found.append((run, state))
    return sorted(found, key=lambda pair: place(pair[1]))


def place(state: dict) -> tuple[int, int]:
    """Where a queued state stands in the queue: the least is the next."""
    return -state.get("priority", 0), state.get("ticket", 0)


def _tickets(root: Path, count: int) -> range:
    """The next `count` numbers. A lost or damaged file is made again from the tickets in the folders."""
    root.mkdir(parents=True, exist_ok=True)
    with open(os.open(root / TICKETS, os.O_RDWR | os.O_CREAT, 0o644), "rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read(20).strip()
        last = int(text) if text.isdigit() else max((s.get("ticket", 0) for _, s in waiting(root)), default=0)
        file.seek(0)
        file.write(b"%d\n" % (last + count))
        file.flush()  # over what is there: where the disk is full that stays, and no number is given twice
        file.truncate()
    return range(last + 1, last + count + 1)
