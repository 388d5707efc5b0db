"""The shipped results: one queue of runs in the order of their value, worked off and shipped.

A run is done where its folder is finished, among the user's runs or the shipped ones. Killed at any moment, or ended by its budget, the same
call goes on from the last row. Needs neither the store nor the dashboard's packages: it runs on a GPU box without network.
"""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from backend.datasets import find_dataset
from backend.home import PRECOMPUTED, runs_root
from backend.jobs.worker import work
from backend.plan import plan
from backend.progress import Progress, duration
from backend.rows import Epoch
from backend.run import Run, RunError
from backend.spec import Certification, RunSpec, SpecError, between
from backend.transport import pack, unpack

CLAIM = ("gaussian", "consistency")  # the paper's claim in its shortest form
SIX = ("gaussian", "stability", "consistency", "smoothadv", "macer", "smoothadv_consistency")
SIGMAS = (0.25, 0.5, 1.0)
LAMS = (10, 1, 20, 30, 0, 2, 15, 25)  # beside the paper's λ = 5; far apart first
ALL_IMAGES = Certification(n=100_000, every=1)  # as in the papers


@dataclass(frozen=True)
class Part:
    """Runs that answer one question together; `weights`: a network a cell travels with the repository, of seed 0 and the longest training."""

    name: str
    specs: tuple[RunSpec, ...]
    weights: bool = False


def queue(gpu: bool) -> list[Part]:
    """What is worth computing, the most valuable first: on a CPU at n = 10 000 on every 20th image, on a GPU as in the papers.

    On a CPU: six methods at three σ by the quick recipe; the path along λ; the paper's recipe for the three methods that
    it does not take hours for; more seeds of the claim's two methods; m and the loss's forms; the table on Fashion-MNIST with
    seeds of the claim; more seeds of the others; more by the paper's recipe. On a GPU first that recipe on the CPU's terms, to stand beside what ships, since it takes minutes:
    all six methods, then seeds; then on the papers' terms for everything, and seeds.
    """
    claim, *by_paper, slowest = _by_paper()
    if not gpu:
        table, path, seeds, ablations, others = _questions()
        return [table, path, claim, seeds, ablations, *_garments(), others, *by_paper, slowest]
    table, path, seeds, ablations, others = _questions(full=True, recipe="paper")
    elsewhere = _runs(SIX, dataset="fashion_mnist", full=True, recipe="paper")
    elsewhere += _runs(SIX, sigmas=(0.5,), dataset="cifar10", full=True, recipe="paper")
    return [claim, slowest, *by_paper, table, seeds, others, path, ablations, Part("data sets", elsewhere)]


def _by_paper() -> list[Part]:
    """The paper's recipe on the CPU's terms, the cheapest methods first."""
    order, paper = (0.5, 0.25, 1.0), {"recipe": "paper"}
    return [
        Part("paper", _runs(CLAIM, order, **paper) + _runs(("stability",), order, **paper), weights=True),
        _seeds("paper, seeds of the claim", CLAIM, **paper),
        Part("paper, MACER", _runs(("macer",), (0.5, 1.0, 0.25), **paper), weights=True),
        _along("paper, lambda", **paper),
        _seeds("paper, seeds of Stability and MACER", ("stability", "macer"), **paper),
        Part(
            "paper, SmoothAdv",
            tuple(spec for m in ("smoothadv", "smoothadv_consistency") for spec in _runs((m,), order, **paper)),
            weights=True,
        ),
    ]


def _garments() -> list[Part]:
    """The table on Fashion-MNIST, by the quick recipe, and more seeds of the claim. The weights of the claim at σ = 0.5 travel: all would be too large."""
    garments, others = {"dataset": "fashion_mnist"}, [method for method in SIX if method not in CLAIM]
    return [
        Part("Fashion-MNIST, the claim", _runs(CLAIM, (0.5,), **garments), weights=True),
        Part("Fashion-MNIST, the table", _runs(CLAIM, (0.25, 1.0), **garments) + _runs(others, **garments)),
        _seeds("Fashion-MNIST, seeds of the claim", CLAIM, sigmas=(0.5, 1.0, 0.25), **garments),
    ]


def _questions(**terms) -> list[Part]:
    """On some terms: the table, the path along λ, seeds of the claim, ablations, seeds of the others."""
    ablations = tuple(spec for m in (4, 8) for spec in _runs(m=m, **terms))
    ablations += tuple(spec for form in ("xent", "kl", "mse") for spec in _runs(sigmas=(0.5, 1.0), form=form, **terms))
    return [
        Part("table", _runs(SIX, **terms), weights=True),
        _along("lambda", **terms),
        _seeds("seeds of the claim", CLAIM, **terms),
        Part("ablations", ablations),
        _seeds("other seeds", [method for method in SIX if method not in CLAIM], **terms),
    ]


def _seeds(name: str, methods: Iterable[str], **terms) -> Part:
    return Part(name, tuple(spec for seed in range(1, 5) for spec in _runs(methods, seed=seed, **terms)))


def _along(name: str, **terms) -> Part:
    return Part(name, tuple(spec for lam in LAMS for spec in _runs(sigmas=(0.5, 1.0), lam=float(lam), **terms)))


def _runs(
    methods: Iterable[str] = ("consistency",), sigmas=SIGMAS, seed=0, recipe="quick", dataset="mnist", full=False, **values
) -> tuple[RunSpec, ...]:  # fmt: skip
    """Each method at each σ. full: n and images of the papers. values: hyper-parameters that differ from the recipe's."""
    certification = ALL_IMAGES if full else Certification(every=find_dataset(dataset).every)
    return tuple(
        plan(dataset, method, sigma, values=values, seed=seed, recipe=recipe, weights_dtype="float16", certification=certification)
        for sigma in sigmas for method in methods
    )  # fmt: skip


def done(spec: RunSpec) -> Run | None:
    """The finished folder of a spec, among the user's runs or the shipped ones; one whose state cannot be read is not finished."""
    for root in (runs_root(), PRECOMPUTED):
        run = Run(root / spec.run_id)
        with contextlib.suppress(RunError, OSError):
            if run.state_file.exists() and run.state()["state"] == "finished":
                return run
    return None


@dataclass(frozen=True)
class Timed:
    """What a finished run took, in seconds: in all, an epoch, and a sample; None where it has no epochs, no certificates."""

    spec: RunSpec
    devices: tuple[str, ...]
    whole: float
    epoch: float | None
    sample: float | None

    @classmethod
    def of(cls, run: Run) -> "Timed":
        """Raises RunError for a folder that cannot be read."""
        epochs, rows = [row["seconds"] for row in run.epochs()], run.certificates()
        certifying, samples = sum(c.time for c in rows), sum(c.n + c.n0 for c in rows)
        return cls(
            run.spec, tuple(run.devices()), sum(epochs) + certifying, median(epochs) if epochs else None,
            certifying / samples if samples else None,
        )  # fmt: skip


class Pace:
    """What runs will take, from what others took on the same kind of device."""

    def __init__(self, finished: Iterable[Timed], gpu: bool):
        self.epoch: dict[tuple, list[float]] = {}
        self.sample: dict[tuple, list[float]] = {}
        for run in finished:
            if {device.startswith("cpu") for device in run.devices} != {not gpu}:
                continue
            if run.epoch is not None:
                self.epoch.setdefault(_kind(run.spec), []).append(run.epoch)
            if run.sample is not None:
                self.sample.setdefault(_network(run.spec), []).append(run.sample)

    def of(self, spec: RunSpec) -> float | None:
        """Seconds; None where nothing alike is finished."""
        epoch, sample = self.epoch.get(_kind(spec)), self.sample.get(_network(spec))
        if not epoch or not sample:
            return None
        settings = spec.certification
        images = len(settings.chosen(find_dataset(spec.dataset).test_images))
        return median(epoch) * spec.recipe.epochs + median(sample) * images * (settings.n + settings.n0)


def _network(spec: RunSpec) -> tuple:
    return spec.dataset, spec.architecture, spec.precision


def _kind(spec: RunSpec) -> tuple:
    return (*_network(spec), spec.method, *(spec.hyper.get(name) for name in ("m", "steps")))


def overview(parts: list[Part], gpu: bool = False) -> str:
    """A line a part: how many runs are done, what they took, and what the rest will take as far as that is known; and a line a damaged folder."""
    finished, damaged = {}, []
    for run in filter(None, (done(spec) for part in parts for spec in part.specs)):
        try:
            finished[run.run_id] = Timed.of(run)
        except RunError as error:
            damaged.append(f"left out: {error}")
    pace = Pace(finished.values(), gpu)
    lines = []
    for part in parts:
        mine = [finished[spec.run_id] for spec in part.specs if spec.run_id in finished]
        left = [pace.of(spec) for spec in part.specs if spec.run_id not in finished]
        known = [seconds for seconds in left if seconds is not None]
        words = f"{part.name}: {len(mine)} of {len(part.specs)} runs done, which took {duration(sum(run.whole for run in mine))}"
        if left:
            words += f"; the rest: about {duration(sum(known))}" if known else "; the rest: not known"
            words += (
                f" and {len(left) - len(known)} that nothing finished tells of"
                if known and len(known) < len(left)
                else ""
            )
        lines.append(words)
    return "\n".join(lines + damaged)


def work_off(parts: list[Part], device: str, budget: float | None, shard: tuple[int, int]) -> None:
    """Do the missing runs, one after the other: of every k-th run those from the i-th (shard i/k). Prints what each takes.

    budget: seconds, after which the run in flight is left to be resumed, and none is begun. Raises KeyboardInterrupt then.
    """
    from backend.pipeline import choose_device

    gpu = choose_device(device).type == "cuda"
    end = None if budget is None else time.monotonic() + budget
    number, of = shard
    began = False  # every call does something
    specs = {spec.run_id: spec for part in parts for spec in part.specs}
    for spec in list(specs.values())[number - 1 :: of]:
        if done(spec):
            continue
        if began and end is not None and time.monotonic() > end:
            raise KeyboardInterrupt
        began = True
        print(f"{spec.run_id} ({spec.recipe.name})", flush=True)
        try:
            print(f"took {duration(_one(spec, device, end).whole)}\n{overview(parts, gpu)}", flush=True)
        except (RuntimeError, ValueError, OSError) as error:  # damaged, another's, or diverged: the others go on
            print(f"left out: {error}", flush=True)


def _one(spec: RunSpec, device: str, end: float | None) -> Timed:
    """Bring one run to its end. Raises KeyboardInterrupt after `end`, on the monotonic clock."""
    run = Run.create(runs_root(), spec)
    progress = Progress(spec, run)

    def follow(row) -> None:
        progress.show(row)
        # Not between an epoch and its checkpoint: it would have to be trained again.
        if end is not None and not isinstance(row, Epoch) and time.monotonic() > end:
            raise KeyboardInterrupt

    work(run, device, follow)
    progress.close()
    return Timed.of(run)


def finished_here(parts: list[Part]) -> list[Run]:
    """The finished runs of the queue among the user's."""
    specs = {spec.run_id: spec for part in parts for spec in part.specs}  # one may be in several parts
    return [run for run in map(done, specs.values()) if run is not None and run.path.parent == runs_root()]


def add_verb(verb) -> None:
    """Add `precompute` to the command line; verb(name, function, summary) gives a parser."""
    sub = verb("precompute", _precompute, "Work off the queue of the shipped results, the most valuable run first.")
    sub.add_argument(
        "--device",
        default="auto",
        help="auto (default), cpu, cuda or cuda:N; a GPU has another order and, in its later parts, the papers' n and images",
    )
    sub.add_argument("--budget", type=float, metavar="MINUTES", help="stop then, in the middle of a run if need be")
    sub.add_argument(
        "--shard",
        default="1/1",
        metavar="I/K",
        help="only every K-th run, from the I-th: one machine of K; processes of one machine share the queue without",
    )
    sub.add_argument("--list", action="store_true", help="say what is done and what is left, and stop")
    sub.add_argument("--pack", metavar="TAR", help="write the finished folders into a tar file, and stop")
    sub.add_argument("--unpack", metavar="TAR", help="take the folders of a tar file in, and stop")
    sub.add_argument("--ship", action="store_true", help="copy the finished folders to precomputed/, and stop")


def _precompute(options) -> None:
    if options.unpack:
        print("\n".join(unpack(Path(options.unpack))) or "nothing new: folders of these names are here already")
        return
    number, _, of = options.shard.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise SpecError(f"a shard is I/K with 1 <= I <= K, not {options.shard!r}")
    if options.budget is not None:
        between("budget", options.budget, 0)
    both = [*queue(gpu=False), *queue(gpu=True)]  # what is finished may come from another machine
    if options.pack:
        if not (packed := pack(finished_here(both), Path(options.pack))):
            raise RunError(
                f"no run of this queue is finished in {runs_root()}, and {options.pack} was not written; `export folders` takes any run"
            )
        print("\n".join(packed))
    elif options.ship:
        from backend.shipping import ship

        print("\n".join(ship(both)) or "nothing new is finished")
    else:
        from backend.pipeline import choose_device

        gpu = choose_device(options.device).type == "cuda"
        parts = queue(gpu)
        print(overview(parts, gpu), flush=True)
        if not options.list:
            budget = None if options.budget is None else options.budget * 60
            work_off(parts, options.device, budget, (int(number), int(of)))
