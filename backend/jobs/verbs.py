"""The verbs that look after this machine's jobs: queue, gc, doctor."""

from backend.home import home, runs_root
from backend.jobs import local, queue
from backend.jobs.leftovers import collect
from backend.run import all_runs, find_run


def add_verbs(verb) -> None:
    """Add the verbs of this file to the command line; verb(name, function, summary) gives a parser."""
    sub = verb("queue", _queue, "List what runs and waits on this machine, in the order in which it will be started.")
    sub.add_argument(
        "--cancel", nargs="+", metavar="RUN_ID", help="end these runs, or do not start them; `all`: every one"
    )
    sub.add_argument("--resume", nargs="+", metavar="RUN_ID", help="queue these again; `all`: every interrupted one")
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


def _queue(options) -> None:
    def named(ids: list[str], *states: str):
        every = (run for run in all_runs(runs_root()) if run.state()["state"] in states)
        return every if ids == ["all"] else (find_run(run_id, runs_root()) for run_id in ids)

    # The last one first: else a slot that is freed takes up one that is to be cancelled next.
    for run in reversed(list(named(options.cancel or [], "queued", "running"))):
        local.cancel(run)
    for run in named(options.first or [], "queued"):
        queue.prioritise(run, queue.PRIORITIES[1] if options.priority is None else options.priority)
    if resumed := list(named(options.resume or [], "interrupted")):
        queue.enqueue(runs_root(), resumed, options.priority or 0)
    local.start_worker()
    for run in all_runs(runs_root()):
        if (state := run.state())["state"] == "running":
            print(f"running  {state.get('slot') or state.get('host')}  {run.run_id}  since {state['since']}")
    for run, state in queue.waiting(runs_root()):
        print(f"queued   priority {state.get('priority', 0)}  {run.run_id}  since {state['since']}")


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
