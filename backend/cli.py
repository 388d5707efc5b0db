"""python -m backend VERB"""

import argparse
import io
import json
import os
import re
import signal
import sys
from dataclasses import fields
from pathlib import Path

from backend.datasets import dataset_names, find_dataset
from backend.follow import check_device, check_place, execute_queued, follow_all
from backend.home import PRECOMPUTED, runs_root, settle
from backend.jobs import local
from backend.jobs.verbs import add_verbs as add_job_verbs
from backend.options import add_certification, add_device, add_place, add_training, certification_of, training_of
from backend.plan import OF_FILE, certify_again, of_file, plan, sweep
from backend.precompute import add_verb as add_precompute
from backend.reports import add_verbs
from backend.rows import Checkpoint
from backend.run import Run, RunError, find_run
from backend.spec import PRECISIONS, RunSpec
from backend.training.methods import METHODS


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns the exit status: 0, 1 where something failed (said in one line), 130 after Ctrl-C, 141 where nobody reads on."""
    _be_heard()
    try:
        options = parser().parse_args(arguments)
        settle()
        status = options.verb(options) or 0
        sys.stdout.flush()  # here, where a reader that has left is met
        return status
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last row.", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:  # on a machine that only trains and certifies
        print(
            f"certscope: this wants {error.name}, which is not installed here: pip install -r requirements.txt",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # `… | head` has seen enough; what was being computed has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains when it flushes
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(
            f"certscope: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""), file=sys.stderr
        )
        return 1
    except (RuntimeError, ValueError, argparse.ArgumentError) as error:  # the last: a hyper-parameter called as a flag
        print(f"certscope: {error}", file=sys.stderr)
        return 1


def _be_heard() -> None:
    """Let any terminal do: one whose encoding has no σ, and none, where a stream was closed."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            # Not closed here: it is the stream for as long as the process lives.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def parser() -> argparse.ArgumentParser:
    """The verbs with their options; each sets `verb`, a function of the parsed options."""
    top = argparse.ArgumentParser(
        prog="python -m backend", description="Train, certify and publish smoothed classifiers."
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function, summary: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=summary)
        sub.set_defaults(verb=function)
        return sub

    for name, function, summary in (
        ("train", _train, "Train one base classifier."),
        ("run", _run, "Train one base classifier and certify it."),
    ):
        sub = verb(name, function, summary)
        sub.add_argument("--method", default="gaussian", help=", ".join(METHODS) + " (default: gaussian)")
        sub.add_argument("--sigma", type=float, default=0.5, help="sd of the noise, images in [0, 1] (default 0.5)")
        sub.add_argument("--seed", type=int, default=0, help="of weights, batches and noise (default 0)")
        add_training(sub, lam=True)
        add_place(sub)
        if name == "run":
            add_certification(sub)
    _add_sweep(verb)
    sub = verb("methods", _methods, "List the training methods with their hyper-parameters, defaults and ranges.")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub = verb("certify", _certify, "Certify the weights of a run in another way, or those of a file.")
    sub.add_argument("weights", help="the id of a run with weights (`runs` lists all), or a .safetensors file")
    group = sub.add_argument_group("of a file")
    group.add_argument("--dataset", help=", ".join(dataset_names()))
    group.add_argument("--architecture", help="default: the data set's")
    group.add_argument("--sigma", type=float, help="sd of the noise, images in [0, 1]; best that of its training")
    group.add_argument("--method", help="a word that names it in tables and plots (default: the file's name)")
    add_certification(sub)
    add_place(sub)
    add_verbs(verb)
    add_precompute(verb)
    add_job_verbs(verb)
    sub = verb(
        "verify", _verify, "Check a certificate against its counts and, where its network is here, against samples."
    )
    sub.add_argument("file", help="a certificate as downloaded from the dashboard (docs/certificate.md)")
    add_device(sub)
    verb("worker", lambda _: local.work_off_queue(), "Start to work off the queue, in the background.")
    sub = verb("execute", execute_queued, "Execute one queued run (started by the worker).")
    sub.add_argument("run_id")
    sub.add_argument("run_lock", type=int, help="file descriptor of the run's lock")
    sub.add_argument("slot_lock", type=int, help="file descriptor of the slot's lock")
    sub.add_argument("worker", type=int, help="pid of the worker")
    return top


def _add_sweep(verb) -> None:
    sub = verb("sweep", _sweep, "Train and certify a grid of runs; finished ones are left alone.")
    known = ", ".join(METHODS) + " (default: gaussian consistency)"
    sub.add_argument("--methods", nargs="+", default=["gaussian", "consistency"], metavar="METHOD", help=known)
    sub.add_argument(
        "--sigmas", nargs="+", type=float, default=[0.25, 0.5, 1.0], metavar="SIGMA", help="default: 0.25 0.5 1"
    )
    sub.add_argument(
        "--lams", nargs="+", type=float, default=[], metavar="LAM", help="default: the paper's at each sigma"
    )
    sub.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="default: 0")
    sub.add_argument("--dry-run", action="store_true", help="print the runs and stop")
    add_training(sub, lam=False)
    add_certification(sub)
    add_place(sub)


def _train(options) -> int:
    spec = plan(method=options.method, sigma=options.sigma, seed=options.seed, **training_of(options))
    return follow_all([spec], options)


def _run(options) -> int:
    given = training_of(options) | {"certification": certification_of(options, options.dataset)}
    spec = plan(method=options.method, sigma=options.sigma, seed=options.seed, **given)
    return follow_all([spec], options)


def _methods(options) -> None:
    for name, method in METHODS.items():
        known = [{"name": f.name, "default": f.default} | dict(f.metadata) for f in fields(method)]
        if options.json:
            facts = {"method": name, "title": method.title, "paper": method.paper, "hyper": known}
            print(json.dumps(facts, ensure_ascii=False))
            continue
        print(f"{name}: {method.title} ({method.paper})\n    {' '.join(method.__doc__.split())}")
        for h in known:
            allowed = f"{h['low']} to {h['high']}" if not h["choices"] else ", ".join(map(str, h["choices"]))
            default = f"{h['default']:.6g}" if isinstance(h["default"], float) else h["default"]
            of = f" of {h['of_epochs']} epochs, fewer in shorter trainings" if h["of_epochs"] else ""
            print(f"    --{h['name'].replace('_', '-')} {default}{of} ({allowed}): {h['doc']}")


def _certify(options) -> int:
    if options.weights.endswith(".safetensors"):
        return follow_all([_bring(Path(options.weights), options)], options)
    if given := [name for name in OF_FILE if getattr(options, name) is not None]:
        raise ValueError(f"--{given[0]} is said of a .safetensors file: the run {options.weights} has its own")
    source = find_run(options.weights, runs_root(), PRECOMPUTED)
    if source.weights() is None and source.spec.source == "brought":
        raise RunError(
            f"the weights of {source.run_id} are gone: certify their file, wherever that is, which puts them back"
        )
    if source.weights() is None and source.state()["state"] == "finished":
        raise RunError(
            f"{source.run_id} has no weights here: of the shipped runs one network a method and σ has; train it anew, or certify another"
        )
    again = certify_again(source.spec, source.run_id, certification_of(options, source.spec.dataset), options.precision)
    return follow_all([again], options)


def _bring(file: Path, options) -> RunSpec:
    """Make the folder of a run that certifies a file's weights, with them in it."""
    from backend.classifier.weights import from_elsewhere

    if lacking := [name for name in ("dataset", "sigma") if getattr(options, name) is None]:
        raise ValueError(f"a .safetensors file does not say its --{' and --'.join(lacking)}: give it")
    check_place(options)
    check_device(options)
    dataset = find_dataset(options.dataset)
    architecture = options.architecture or dataset.architectures[0]
    method = options.method or re.sub(r"[^a-z0-9]+", "_", file.stem.lower())[:40].strip("_") or "own"
    weights = from_elsewhere(file, architecture, dataset)
    certification, precision = certification_of(options, dataset.name), options.precision or PRECISIONS[0]
    spec = of_file(weights, dataset.name, architecture, options.sigma, method, certification, precision)
    run = Run.create(runs_root(), spec)
    if run.weights() != weights:  # also where they were exchanged, or are gone
        with run.held():
            run.append(Checkpoint(0, weights, final=True))
    return spec


def _sweep(options) -> int:
    specs = sweep(
        options.methods,
        options.sigmas,
        options.lams,
        options.seeds,
        certification=certification_of(options, options.dataset),
        **training_of(options),
    )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("torchrun trains one run at a time: use `train` or `run`, not `sweep`")
    check_place(options)
    if options.dry_run:
        for number, spec in enumerate(specs, 1):
            print(f"[{number}/{len(specs)}] {spec.run_id}")
        return 0
    return follow_all(specs, options)


def _verify(options) -> int:
    from backend.verify import MOST_BYTES, read, verify

    with open(options.file, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    verdict = verify(
        read(content),
        lambda run_id: find_run(run_id, runs_root(), PRECOMPUTED),
        options.device,
    )
    print(f"{verdict.word}: {verdict.reason}")
    return 1 if verdict.word == "refuted" else 0
