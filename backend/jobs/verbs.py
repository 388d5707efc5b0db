"""The verbs that look after this machine's jobs: queue, gc, doctor."""

import sys
from functools import partial

from backend.home import home, runs_root
from backend.jobs import local, queue
from backend.jobs.leftovers import collect
from backend.overview import DAMAGED, Listed, listing, stands_still
from backend.process import is_here
from backend.run import Run, RunError
from backend.spec import check_run_id


def add_verbs(verb) -> None:
    """Add the verbs of this file to the command line; verb(name, function, summary) gives a parser."""
    sub = verb("queue", _queue, "List what runs, what waits (the next one first) and what broke off on this machine.")
    sub.add_argument(
        "--cancel", nargs="+", metavar="RUN_ID", help="end these runs, or do not start them; `all`: every one"
    )
    sub.add_argument(
        "--resume", nargs="+", metavar="RUN_ID", help="queue these again; `all`: every interrupted or failed one"
    )
    sub.add_argument("--first", nargs="+", metavar="RUN_ID", help="give these the highest priority")
    low, high = queue.PRIORITIES
    sub.add_argument(
        "--priority", type=int, help=f"with --resume or --first: from {low} to {high}, instead of 0 or {high}"
    )
    sub = verb(
        "gc",
        _collect,
        "List files that nobody needs any more: what killed processes left, checkpoints of finished runs.",
    )
    sub.add_argument("--delete", action="store_true", help="delete them; without it, nothing is changed")
    verb("doctor", _doctor, "Say whether this machine has what it needs; exit status 1 where there is a problem.")


def _queue(options) -> int:
    if options.priority is not None and not (options.resume or options.first):
        raise ValueError("--priority wants --resume or --first, which say whose it is to be")
    cancelled, first = _named(options.cancel, "queued", "running"), _named(options.first, "queued")
    resumed, undone = _named(options.resume, "interrupted", "failed"), []
    priority = queue.PRIORITIES[1] if options.priority is None else options.priority
    # Cancelled from the last: else a slot that is freed takes up one that is to be cancelled next.
    for act, runs in ((local.cancel, reversed(cancelled)), (partial(queue.prioritise, priority=priority), first)):
        for run in runs:
            try:
                act(run)
            except RunError as error:
                undone.append(str(error))
    if resumed or first:
        undone += local.enqueue(resumed, options.priority or 0)
    there = listing(runs_root())
    _tell(there)
    if stands_still(there) and not (resumed or first):
        print("nothing runs: `python -m backend worker` takes the queue up", file=sys.stderr)
    for sentence in undone:
        print(f"certscope: {sentence}", file=sys.stderr)
    return int(bool(undone))


def _tell(there: list[Listed]) -> None:
    """What runs and waits, and what broke off, whose page or `--resume` takes it up again."""
    for one in there:
        if one.name == "running":
            state = one.state
            print(f"running  {state.get('slot') or state.get('host')}  {one.run.run_id}  since {state.get('since')}")
        elif one.name == DAMAGED:
            print(f"damaged  {one.run.run_id}: {one.state['error']}")
    waiting = queue.waiting(runs_root())
    if not waiting and all(one.name != "running" for one in there):
        print("Nothing runs or waits.")
    for run, state in waiting:
        print(f"queued   priority {state.get('priority', 0)}  {run.run_id}  since {state.get('since')}")
    for one in there:
        if one.name in ("interrupted", "failed"):
            why = str(one.state.get("error") or "").partition("\n")[0]
            print(f"{one.name}  {one.run.run_id}" + (f": {why}" if why else ""))


def _named(ids: list[str] | None, *states: str) -> list[Run]:
    """The runs of these ids; of `all`, those of this machine's queue that are in one of the states.

    Raises RunError for an id that is none, and for a run whose state cannot be read.
    """
    if ids == ["all"]:
        found = [one for one in listing(runs_root()) if one.name in states]
        return [one.run for one in found if one.name != "running" or (one.state.get("queue") and is_here(one.state))]
    runs = [Run(runs_root() / check_run_id(run_id)) for run_id in ids or []]
    for run in runs:
        if not run.spec_file.exists():
            raise RunError(
                f"this machine has started no run {run.run_id!r}: `python -m backend queue` lists what can be resumed or cancelled"
            )
        run.state()
    return runs


def _collect(options) -> None:
    total = 0
    for leftover, size in collect(options.delete):
        total += size
        word = "deleted" if options.delete else "would delete"
        print(f"{word}  {size / 1e6:.1f} MB  {leftover.path.relative_to(home())}: {leftover.reason}")
    print(f"{total / 1e6:.1f} MB" + ("" if options.delete or not total else "; --delete deletes them"))


def _doctor(_) -> int:
    from backend.doctor import examine

    findings = list(examine())
    for finding in findings:
        print(f"{finding.level:8} {finding.says}" + (f". {finding.do}" if finding.do else ""))
    return int(any(finding.level == "problem" for finding in findings))
