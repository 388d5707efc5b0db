"""Execute one run folder's spec, from wherever an earlier execution left off."""

import contextlib
import hashlib
import subprocess
from collections.abc import Callable, Container, Iterator
from dataclasses import replace

from backend.datasets import check_trained_on, find_dataset, training_version
from backend.files import place_of
from backend.home import CHECKOUT, PRECOMPUTED, runs_root
from backend.plan import name_of_file
from backend.process import identity
from backend.rows import Checkpoint, Row
from backend.run import Run, RunError, all_runs
from backend.spec import RunSpec

Executor = Callable[..., Iterator[dict | Row]]  # `here`, or what does the same elsewhere


def here(
    spec: RunSpec,
    device: str,
    *,
    weights: bytes | None = None,
    checkpoint: bytes | None = None,
    done: Container[int] = (),
) -> Iterator[dict | Row]:
    """Execute a spec in this process: yields the circumstances of the rows that follow, then the rows."""
    from backend.pipeline import choose_device, circumstances, execute

    torch_device, versions = choose_device(device), {"images": find_dataset(spec.dataset).version}
    if weights is None:
        versions["training_images"] = training_version(spec.dataset)
    dataset = find_dataset(spec.dataset)
    if dataset.version:  # a folder, whose classes may have other names tomorrow
        versions["classes"], versions["shape"] = list(dataset.classes), list(dataset.shape)
    yield circumstances(torch_device) | {name: version for name, version in versions.items() if version}
    yield from execute(spec, torch_device, weights=weights, checkpoint=checkpoint, done=done)


def work(
    run: Run,
    device: str = "auto",
    on_row: Callable[[Row], None] = lambda row: None,
    *,
    executor: Executor = here,
    lock: int | None = None,
    **facts,
) -> bool:
    """Bring a run to its end: append each row to its folder and hand it to on_row. Returns whether it ran.

    Does nothing for a finished run. lock: the run's, where it was inherited; facts: what else state.json says while it
    runs. Raises RunError where another process holds it, and whatever stopped the execution, after writing it down.
    """
    with run.held(inherited=lock):
        if run.state(mine=True)["state"] == "finished":
            return False
        run.set_state("running", **identity(), device=device, **facts)
        try:
            _execute(run, device, on_row, executor)
        except (KeyboardInterrupt, BrokenPipeError):  # of whom it printed to: the run itself is sound
            run.set_state("interrupted")
            raise
        except Exception as error:  # whatever it was, whoever looks at the run must read it
            run.set_state("failed", error=f"{error}" or type(error).__name__)
            raise
        run.finish()
    return True


def accompany(run: Run, device: str) -> None:
    """Train beside the first of several processes that torchrun started: compute, and write nothing."""
    from backend.pipeline import choose_device, execute

    if run.weights() is None and run.spec.weights_of is None:
        spec = replace(run.spec, certification=None)
        for _ in execute(spec, choose_device(device), checkpoint=run.checkpoint()):
            pass


def _execute(run: Run, device: str, on_row: Callable[[Row], None], executor: Executor) -> None:
    from backend.pipeline import checkpoint_epoch

    run.refuse_links()
    spec = run.spec
    weights, checkpoint = run.weights(), run.checkpoint()
    if weights is None and run.count()[1]:
        rows = place_of(run.certificates_file)
        raise RunError(
            f"{rows} speaks of a network whose {run.weights_file.name} is gone: bring that back, or delete {rows.name} to begin anew"
        )
    told, named = run.environment().get("weights_sha256"), {}  # named: the weights, as soon as they are there
    if weights is None and spec.weights_of is not None:
        weights = _weights_of(spec.weights_of)
        if how := _how_it_ended(spec.weights_of, weights):
            run.set_environment(run.environment() | how)
        run.append(Checkpoint(spec.recipe.epochs, weights, final=True))
    if weights is not None:
        named = {"weights_sha256": run.weights_sha256()}
        _refuse_others(run, named["weights_sha256"], told)
    try:
        epochs = spec.recipe.epochs if weights else checkpoint_epoch(checkpoint)
    except ValueError as error:
        raise RunError(f"{run.checkpoint_file} is damaged ({error}): delete it, and training begins anew") from error
    done = run.resume_point(epochs)
    ours, under_way = {"commit": _commit(), "seed": spec.seed}, False
    for row in executor(spec, device, weights=weights, checkpoint=checkpoint, done=done):
        if isinstance(row, dict):
            before = run.environment()
            _refuse_other_images(run, before, row, under_way)
            under_way = True
            trained = before if "classes" in before else _environment_of(spec.weights_of)
            check_trained_on(spec.dataset, row, trained)
            # Once it has its weights nobody looks at its training again.
            trained_on = {name: before[name] for name in ("training_images", "missing_classes") if name in before}
            run.set_environment(trained_on | row | ours | named)
        else:
            run.append(row)
            if isinstance(row, Checkpoint) and row.final:
                named = {"weights_sha256": run.weights_sha256()}
                run.set_environment(run.environment() | named)
            on_row(row)


def _refuse_others(run: Run, digest: str, told: str | None) -> None:
    """Raise RunError where a run's weights are not those that its environment.json tells of, or not of the file that its spec names."""
    other_file = run.spec.source == "brought" and name_of_file(digest) != run.spec.weights_of
    if other_file or told not in (None, digest):
        names = run.spec.weights_of if other_file else run.environment_file.name
        raise RunError(
            f"{run.weights_file} is not the network that {names} names: bring that back, or delete the run and start it again"
        )


def _refuse_other_images(run: Run, before: dict, now: dict, under_way: bool) -> None:
    """Raise RunError where a folder's images are not those that a run's epochs, or its certificates, rest on; or, under way,
    those that another node found.
    """
    epochs, certified = (1, 1) if under_way else run.count()
    trained = now.get("training_images")  # not there once it has its weights
    for which, rows, other in (
        ("training", epochs, trained and before.get("training_images", trained) != trained),
        ("test", certified, before.get("images") != now.get("images")),
    ):
        if rows and other:
            raise RunError(
                f"the {which} images of {run.spec.dataset} are not those that its earlier rows rest on: bring those back, or start another seed"
            )


def _how_it_ended(source: str, weights: bytes) -> dict:
    """How many classes these weights of that run hardly ever answered when their training ended, where it says so: who certifies them has no epochs that do."""
    digest = hashlib.sha256(weights).hexdigest()
    for root in (runs_root(), PRECOMPUTED):
        with contextlib.suppress(RunError, OSError):
            told = (run := Run(root / source)).environment().get("weights_sha256", digest)
            if told == digest and (epochs := run.epochs()):
                return {"missing_classes": int(epochs[-1].get("missing_classes", 0))}
    return {}


def _environment_of(source: str | None) -> dict:
    """What a folder's run, which was trained on a folder of images, says of those; {} where it is not known."""
    for root in (runs_root(), PRECOMPUTED) if source else ():
        with contextlib.suppress(RunError, OSError):
            if "classes" in (told := Run(root / source).environment()):
                return told
    return {}


def _weights_of(source: str) -> bytes:
    """The weights that were trained by that run: from its folder, here or as it ships, or from one that certified them since.

    Raises RunError where none has them, where those in its folder are not its own, and where several certified different ones under its name
    and its folder does not say which are its own.
    """
    roots, others, known = (runs_root(), PRECOMPUTED), [], set()  # known: the SHA-256 that its folders name
    for run in (Run(root / source) for root in roots):
        with contextlib.suppress(RunError, OSError):
            digest, told = run.weights_sha256(), run.environment().get("weights_sha256")
            if digest is not None and told in (None, digest):
                return run.weights()
            known |= {told} - {None}
            others += [run] * (digest is not None)
    if others:
        raise RunError(
            f"{others[0].weights_file} is not the network that {source} trained, by the SHA-256 in its folder: bring that back, or delete it and train it again"
        )
    holders = {}
    for run in (run for root in roots for run in all_runs(root)):
        with contextlib.suppress(RunError, OSError):
            if run.weights_file.exists() and run.spec.weights_of == source:
                holders.setdefault(run.weights_sha256(), run)
    if of_file := source.startswith(name_of_file("")):
        known = {digest for digest in holders if name_of_file(digest) == source}
    holders = {digest: run for digest, run in holders.items() if digest in known or not (known or of_file)}
    if len(holders) > 1:
        raise RunError(
            f"{' and '.join(run.run_id for run in holders.values())} hold different weights, all called those of {source}: bring that run's folder back, or delete the others"
        )
    for run in holders.values():
        return run.weights()
    if of_file:
        raise RunError(f"{source} has no weights here; certify their file, wherever that is, which puts them back")
    raise RunError(f"{source} has no weights here; train it first, by the command on its page")


def _commit() -> str | None:
    """The checkout's git commit, with a + where the code differs from it; None outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", CHECKOUT, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "backend") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
