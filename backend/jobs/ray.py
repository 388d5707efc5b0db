"""Runs on a Ray cluster; the only file that imports ray.

The nodes compute and write nothing: rows stream back, and this side appends them to the run folders. So no disk is
shared, and a run whose node is lost goes on elsewhere from its last checkpoint and without the images that it has.
"""

import contextlib
import logging
import os
import platform
import socket
import tempfile
import threading
from collections.abc import Callable, Container, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from backend.datasets import find_dataset
from backend.home import CHECKOUT
from backend.jobs.worker import here, work
from backend.rows import Certificate, Checkpoint, Epoch, Row
from backend.run import Run, RunError
from backend.spec import RunSpec, whole

REQUIREMENTS = "backend/jobs/requirements-ray.txt"
LOSSES = 5  # of a part in a row, without a row between them, until its run fails


@dataclass(eq=False)
class Part:
    """What one task does of a run: everything, or the images that are not in `done`."""

    spec: RunSpec
    weights: bytes | None
    checkpoint: bytes | None
    done: set[int]
    losses: int = 0
    epoch: Epoch | None = None

    def take(self, row: dict | Row) -> Iterator[dict | Row]:
        """Note what a successor need not do again, and pass the row on; an epoch's together with its checkpoint."""
        if not isinstance(row, dict):
            self.losses = 0
        if isinstance(row, Epoch):
            self.epoch = row  # a node lost before the checkpoint came costs this row, which will be made again
            return
        if isinstance(row, Certificate):
            self.done.add(row.idx)
        elif isinstance(row, Checkpoint):
            if self.epoch is not None:
                yield self.epoch
            self.epoch = None
            if row.final:
                self.weights = row.tensors
            else:
                self.checkpoint = row.tensors
        yield row


def on_node(spec: RunSpec, device: str, **left) -> Iterator[dict | Row]:
    """`here`, on a node, which the circumstances name."""
    import ray

    name = f"{platform.node()}/{ray.get_runtime_context().get_node_id()[:8]}"
    for row in here(spec, device, **left):
        yield row | {"node": name} if isinstance(row, dict) else row


class Nodes:
    """A Ray cluster. `execute` is an executor for `work`, for several runs at once, each in a thread of its own."""

    def __init__(self, address: str, shards: int = 1):
        """Connect. Raises RunError where ray is not installed or no cluster answers, SpecError for shards below 1."""
        whole("shards", shards, 1, 10_000)
        if find_spec("ray") is None:
            raise RunError(f"--executor ray wants Ray, which is not installed here: pip install -r {REQUIREMENTS}")
        import ray

        self.shards, self.stopping = shards, threading.Event()
        code = {"py_modules": [str(CHECKOUT / "backend")], "excludes": ["__pycache__"]}
        _must_answer(address)
        try:
            ray.init(address, runtime_env=code, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _no_cluster(address, error) from None
        self.kind = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
        wants = {"num_gpus": 1} if self.kind == "GPU" else {"num_cpus": 1}
        # Not retried by Ray, which would begin at the beginning. Named here and not in .options(): a process that had a GPU
        # then ends with its task, and neither keeps that GPU's memory nor computes on it once it is given another.
        self.task = ray.remote(num_returns="streaming", max_retries=0, scheduling_strategy="SPREAD", **wants)(on_node)

    def capacity(self) -> int:
        """How many tasks the cluster runs at once, with the nodes that it has just now."""
        import ray

        return max(1, int(ray.cluster_resources().get(self.kind, 0)))

    def run_all(
        self, runs: list[Run], device: str = "auto", on_row: Callable[[Row], None] = lambda row: None
    ) -> Iterator[tuple[Run, Exception | bool]]:
        """Execute runs, as many at once as the cluster has GPUs, or CPUs where it has none; then disconnect.

        Yields each run that ended with what `work` returned or raised. Stopped from outside, it leaves every run interrupted.
        """
        import ray

        waiting, active = list(runs), {}  # future -> run
        with contextlib.ExitStack() as at_last:
            at_last.callback(ray.shutdown)
            pool = at_last.enter_context(ThreadPoolExecutor(max(1, len(runs))))
            try:
                while waiting or active:
                    while waiting and len(active) < self.capacity():
                        run = waiting.pop(0)
                        job = pool.submit(work, run, device, on_row, executor=self.execute, queue=False)
                        active[job] = run
                    ended, _ = wait(active, timeout=1.0, return_when=FIRST_COMPLETED)
                    for job in ended:
                        yield active.pop(job), _outcome(job)
            except BaseException:
                self.stopping.set()
                raise

    def execute(
        self,
        spec: RunSpec,
        device: str,
        *,
        weights: bytes | None = None,
        checkpoint: bytes | None = None,
        done: Container[int] = (),
    ) -> Iterator[dict | Row]:
        """Execute a spec on the nodes: training by one task, certification by as many as there are shards.

        Every image has a noise stream of its own, so the certificates do not depend on the sharding.
        """
        if self.shards == 1 or spec.certification is None:
            yield from self._merged([Part(spec, weights, checkpoint, set(done))], device)
            return
        if weights is None:
            training = Part(replace(spec, certification=None), None, checkpoint, set())
            yield from self._merged([training], device)
            weights = training.weights
        chosen = spec.certification.chosen(find_dataset(spec.dataset).test_images)
        left = [idx for idx in chosen if idx not in done]
        shares = [left[k :: self.shards] for k in range(min(self.shards, len(left)))]
        yield from self._merged([Part(spec, weights, None, set(chosen) - set(share)) for share in shares], device)

    def _merged(self, parts: list[Part], device: str) -> Iterator[dict | Row]:
        """The rows of all parts as they come; circumstances only where they are not those of the row before."""
        import ray
        from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

        streams, known = [(self._start(part, device), part) for part in parts], None
        try:
            while streams:
                ready, _ = ray.wait([stream for stream, _ in streams], timeout=1.0)
                if self.stopping.is_set():
                    raise KeyboardInterrupt
                for stream, part in [pair for pair in streams if pair[0] in ready]:
                    try:
                        row = ray.get(next(stream))
                    except StopIteration:
                        streams.remove((stream, part))
                        continue
                    except (RayTaskError, RuntimeEnvSetupError) as error:
                        raise RuntimeError(f"on a node: {getattr(error, 'cause', None) or error}") from None
                    except RayError as error:
                        streams.remove((stream, part))
                        self._lost(part, error)
                        streams.append((self._start(part, device), part))
                        continue
                    if not isinstance(row, dict) or row != known:
                        known = row if isinstance(row, dict) else known
                        yield from part.take(row)
        finally:
            for stream, _ in streams:  # nobody takes their rows any more
                with contextlib.suppress(Exception):
                    ray.cancel(stream)

    def _start(self, part: Part, device: str):
        part.epoch = None
        return self.task.remote(part.spec, device, weights=part.weights, checkpoint=part.checkpoint, done=part.done)

    def _lost(self, part: Part, error: Exception) -> None:
        part.losses += 1
        reason = str(error).strip().splitlines()[0]
        if part.losses >= LOSSES:
            raise RuntimeError(f"its node was lost {LOSSES} times in a row without a row; last: {reason}") from None
        print(f"{part.spec.run_id} goes on elsewhere from its last row: {reason}")


def _must_answer(address: str) -> None:
    """Raise RunError where nothing listens at the address: ray itself would ask again for minutes."""
    if address == "auto":  # as ray.init looks for it
        last = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "ray_current_cluster")
        address = os.environ.get("RAY_ADDRESS") or (last.read_text().strip() if last.exists() else "")
        if not address:
            return  # it looks among the processes, too, and says at once that there is none
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, reason) -> RunError:
    return RunError(
        f"no Ray cluster answers at {address!r} ({' '.join(str(reason).split())}). `ray start --head` starts one on "
        "this machine, which --address auto finds; docs/cluster.md says more"
    )


def _outcome(job: Future) -> Exception | bool:
    try:
        return job.result()
    except Exception as error:
        return error
