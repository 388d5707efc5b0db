"""Execute specs from a terminal: here, one after the other, or on a Ray cluster, many at once."""

import argparse
import os
import sys

from backend.home import runs_root
from backend.jobs import local
from backend.jobs.queue import check_priority
from backend.jobs.worker import accompany, work
from backend.progress import Progress
from backend.reports import publish_if_possible
from backend.run import Run, find_run
from backend.spec import RunSpec


def add_executor(sub: argparse.ArgumentParser) -> None:
    """Add the options that say where runs are executed."""
    sub.add_argument(
        "--executor", default="local", choices=("local", "queue", "ray"),
        help="local (default): in this process; queue: in the background; ray: on a cluster (docs/cluster.md)",
    )  # fmt: skip
    sub.add_argument("--priority", type=int, default=0, help="in the queue: the highest is started first (default 0)")
    sub.add_argument(
        "--address", default="auto", help="of the Ray cluster: auto (default), HOST:PORT or ray://HOST:PORT"
    )
    sub.add_argument("--shards", type=int, default=1, help="with Ray: workers that certify one network (default 1)")


def check_place(options) -> None:
    """Raise ValueError for options of `add_executor` that do not go together, SpecError for a priority that is none."""
    for name, default, executors in (
        ("shards", 1, ["ray"]), ("address", "auto", ["ray"]), ("priority", 0, ["queue"]), ("device", "auto", ["local", "ray"])
    ):  # fmt: skip
        if (value := getattr(options, name)) != default and options.executor not in executors:
            raise ValueError(f"--{name} {value} wants --executor {' or '.join(executors)}, not {options.executor}")
    check_priority(options.priority)


def follow_all(specs: list[RunSpec], options) -> int:
    """Execute specs one after the other here, in the background, or many at once on a cluster. Returns the exit status."""
    check_place(options)
    if options.executor == "queue":
        for run in local.submit(specs, options.priority):
            print(f"{run.run_id} is {run.state()['state']}")
        return 0
    check_device(options)
    if options.executor == "ray":
        failed = _follow_on_ray(specs, options)
    elif len(specs) == 1:
        _follow(specs[0], options.device)
        return 0
    else:
        failed = []
        for number, spec in enumerate(specs, 1):
            print(f"[{number}/{len(specs)}] {spec.run_id}", flush=True)
            try:
                _follow(spec, options.device)
            except BrokenPipeError:  # nobody reads on
                raise
            except (ValueError, RuntimeError, OSError) as error:
                print(f"certscope: {error}", file=sys.stderr)
                failed.append(spec.run_id)
    if failed:
        print(f"{len(failed)} of {len(specs)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def check_device(options) -> None:
    """Raise SpecError where it is to be computed here, on a device that is not there: before any run is made."""
    from backend.pipeline import choose_device

    if options.executor == "local":
        choose_device(options.device)


def _follow_on_ray(specs: list[RunSpec], options) -> list[str]:
    """Execute specs on a Ray cluster, saying which ended how; returns the ids of those that failed."""
    from backend.jobs import ray

    failed, progress = [], None
    nodes = ray.Nodes(options.address, options.shards)
    runs = [Run.create(runs_root(), spec) for spec in specs]
    if len(runs) == 1:
        progress = Progress(specs[0], runs[0])
    ended = nodes.run_all(runs, options.device, **{"on_row": progress.show} if progress else {})
    for number, (run, outcome) in enumerate(ended, 1):
        if progress:
            progress.close()
        says = {True: "is finished", False: "is finished already"}.get(outcome, f"failed: {outcome}")
        print(f"[{number}/{len(specs)}] {run.run_id} {says}", flush=True)
        if isinstance(outcome, Exception):
            failed.append(run.run_id)
        elif outcome:
            publish_if_possible()
    return failed


def _follow(spec: RunSpec, device: str) -> None:
    """Execute a spec in its run folder, print its progress, and publish."""
    run = Run.create(runs_root(), spec)
    if os.environ.get("RANK", "0") != "0":
        accompany(run, device)
        _end()
    progress = Progress(spec, run)
    if not work(run, device, progress.show):
        print(f"{run.run_id} is finished already.")
        return
    progress.close()
    print(f"{run.path}")
    publish_if_possible()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        _end()


def _end() -> None:
    """End one of several processes at once. Seen now and then: torch's threads abort the interpreter's end (SIGABRT), and torchrun calls the run failed."""
    sys.stdout.flush()
    os._exit(0)


def execute_queued(options) -> None:
    """What a worker's process does: the one run whose lock, and a slot's, it has inherited; then publish it. Raises RunError where it is gone or damaged."""
    try:
        run = find_run(options.run_id, runs_root())
        progress = Progress(run.spec, run)
        if work(run, on_row=progress.show, lock=options.run_lock, queue=True, slot=run.state(mine=True).get("slot")):
            progress.close()
            publish_if_possible()
    finally:
        os.close(options.slot_lock)
        if os.getppid() != options.worker:  # ours has died: another one goes on with the queue
            local.start_worker()
