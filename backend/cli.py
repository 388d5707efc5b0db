"""python -m backend VERB"""

import argparse
import json
import os
import sys
import time
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from backend.certification.metrics import acr
from backend.datasets import DatasetError, dataset_names, find_dataset
from backend.home import PRECOMPUTED, home, imported_root, runs_root
from backend.jobs import local
from backend.jobs.worker import accompany, work
from backend.plan import certify_again, plan, sweep
from backend.run import Certificate, Epoch, Row, Run, RunError, find_run
from backend.spec import MODES, PRECISIONS, RECIPES, WEIGHT_TYPES, Certification, RunSpec, SpecError
from backend.training.methods import METHODS

EXPORTS = ("csv", "parquet", "logs", "folders", "markdown", "latex", "figures")
MOST_BYTES = 50 * 2**20  # of a certificate


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns the exit status: 0, 1 where something failed (said in one line), 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        return options.verb(options) or 0
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last row.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"certscope: {error.strerror or error}: {error.filename or home()}", file=sys.stderr)
        return 1
    except (SpecError, RunError, DatasetError, RuntimeError, ValueError) as error:
        print(f"certscope: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
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
        sub.add_argument("--method", default="gaussian", help=", ".join(METHODS))
        sub.add_argument("--sigma", type=float, default=0.5, help="sd of the noise, images in [0, 1]")
        sub.add_argument("--seed", type=int, default=0)
        _add_training(sub, lam=True)
        _add_device(sub)
        if name == "run":
            _add_certification(sub)
    sub = verb("sweep", _sweep, "Train and certify a grid, one run after the other; finished runs are left alone.")
    known = ", ".join(METHODS) + " (default: gaussian consistency)"
    sub.add_argument("--methods", nargs="+", default=["gaussian", "consistency"], metavar="METHOD", help=known)
    sub.add_argument("--sigmas", nargs="+", type=float, default=[0.25, 0.5, 1.0], metavar="SIGMA")
    sub.add_argument(
        "--lams", nargs="+", type=float, default=[], metavar="LAM", help="default: the paper's at each sigma"
    )
    sub.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    sub.add_argument("--dry-run", action="store_true", help="print the runs and stop")
    _add_training(sub, lam=False)
    _add_certification(sub)
    _add_device(sub)
    sub = verb("methods", _methods, "List the training methods with their hyper-parameters, defaults and ranges.")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub = verb("certify", _certify, "Certify the weights of a run once more, in another way.")
    sub.add_argument("run_id")
    _add_certification(sub)
    _add_device(sub)
    verb("publish", _publish, "Bring the results store up to date with the run folders.")
    sub = verb("runs", _runs, "List the runs of the store.")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_exchange(verb)
    sub = verb(
        "verify", _verify, "Check a certificate against its counts and, where its network is here, against samples."
    )
    sub.add_argument("file", help="a certificate as downloaded from the dashboard (docs/certificate.md)")
    _add_device(sub)
    verb("worker", lambda _: local.work_off_queue(), "Work off the queue in the background (started by the dashboard).")
    sub = verb("execute", _execute_queued, "Execute one queued run (started by the worker).")
    sub.add_argument("run_id")
    sub.add_argument("slot", type=int, help="file descriptor of the slot")
    return top


def _add_exchange(verb) -> None:
    sub = verb("import", _import, "Import per-example logs in Cohen's format, a file or a whole tree.")
    sub.add_argument("path")
    sub.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="facts that the paths do not say, or that they say wrong: "
        "dataset, architecture, method, sigma, seed, n (default 100000), n0, alpha, or any hyper-parameter",
    )  # fmt: skip
    sub.add_argument(
        "--mapping", help='JSON file: {"pattern of paths": {"name": value, …}, …}; the first that fits counts'
    )
    sub.add_argument("--partial", action="store_true", help="take logs that end early, too")
    sub = verb("export", _export, "Write results of the store as tables, files or run folders.")
    sub.add_argument("kind", choices=EXPORTS, help=", ".join(EXPORTS))
    sub.add_argument("out", help="file, or folder for `logs` and `folders`")
    sub.add_argument("--runs", nargs="+", default=[], metavar="RUN_ID", help="default: all that fit the filters below")
    for name in ("source", "dataset", "architecture", "method", "sigma", "n", "image_set"):
        sub.add_argument(f"--{name.replace('_', '-')}", help=f"only runs with this {name}")
    sub.add_argument("--radii", nargs="+", type=float, default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0], metavar="R")
    sub = verb("compare", _compare, "Compare two runs image by image: the second less the first.")
    sub.add_argument("run_a")
    sub.add_argument("run_b")
    sub.add_argument("--radius", type=float, default=0.5, help="compare certified accuracy there (default 0.5)")


def _add_training(sub: argparse.ArgumentParser, lam: bool) -> None:
    sub.add_argument("--dataset", default="mnist", help=", ".join(dataset_names()))
    sub.add_argument("--architecture", help="default: the data set's")
    sub.add_argument("--recipe", default="quick", help=", ".join(RECIPES))
    sub.add_argument("--epochs", type=int, help="default: the recipe's")
    sub.add_argument(
        "--train-precision", default="float32", choices=PRECISIONS, help="bfloat16: autocast; faster on a GPU"
    )
    sub.add_argument(
        "--weights-dtype", default="float32", choices=WEIGHT_TYPES, help="what the final weights are rounded to"
    )
    known: dict[str, list] = {}  # flag -> the fields of that name of all methods
    for method in METHODS.values():
        for f in fields(method):
            known.setdefault(f.name, []).append(f)
    for name, of in known.items():
        if lam or name != "lam":
            meant = " | ".join(dict.fromkeys(f.metadata["doc"] for f in of))
            sub.add_argument(
                f"--{name.replace('_', '-')}",
                type=type(of[0].default),
                dest=f"hyper_{name}",
                help=meant.replace("%", "%%"),
            )


def _add_certification(sub: argparse.ArgumentParser) -> None:
    default = Certification()
    sub.add_argument("--n", type=int, default=default.n, help=f"samples for the bound (default {default.n})")
    sub.add_argument("--n0", type=int, default=default.n0, help=f"samples that select the class (default {default.n0})")
    sub.add_argument(
        "--alpha", type=float, default=default.alpha, help=f"probability of error (default {default.alpha})"
    )
    sub.add_argument("--every", type=int, help="every so many-th test image (default: the data set's; 20 for mnist)")
    sub.add_argument("--limit", type=int, help="at most so many images")
    sub.add_argument(
        "--mode", default=default.mode, choices=MODES, help="fixed (default) is the only one that papers use"
    )
    sub.add_argument("--radius", type=float, help="at-radius: decide about it; anytime: stop where it is certified")
    sub.add_argument("--width", type=float, help="anytime: stop where the radius is known this closely")
    sub.add_argument(
        "--float-sound", action="store_true", help="noise on the 8-bit grid: sound against rounding; slower"
    )
    sub.add_argument("--precision", choices=PRECISIONS, help="of the network (default: float32, or the source run's)")


def _add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")


def _training(options) -> dict:
    values = {k.removeprefix("hyper_"): v for k, v in vars(options).items() if k.startswith("hyper_") and v is not None}
    names = ("dataset", "architecture", "recipe", "epochs", "train_precision", "weights_dtype")
    given = {name: getattr(options, name) for name in names} | {"values": values}
    return given | ({"precision": options.precision} if getattr(options, "precision", None) else {})


def _certification(options, dataset: str) -> Certification:
    names = ("n", "n0", "alpha", "limit", "mode", "radius", "width", "float_sound")
    every = options.every if options.every is not None else find_dataset(dataset).every
    return Certification(every=every, **{name: getattr(options, name) for name in names})


def _train(options) -> None:
    _follow(plan(method=options.method, sigma=options.sigma, seed=options.seed, **_training(options)), options.device)


def _run(options) -> None:
    certification = _certification(options, options.dataset)
    spec = plan(
        method=options.method, sigma=options.sigma, seed=options.seed, certification=certification, **_training(options)
    )
    _follow(spec, options.device)


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


def _certify(options) -> None:
    source = find_run(options.run_id, runs_root(), PRECOMPUTED)
    again = certify_again(source.spec, source.run_id, _certification(options, source.spec.dataset), options.precision)
    _follow(again, options.device)


def _sweep(options) -> int:
    specs = sweep(
        options.methods,
        options.sigmas,
        options.lams,
        options.seeds,
        certification=_certification(options, options.dataset),
        **_training(options),
    )
    failed = []
    for number, spec in enumerate(specs, 1):
        print(f"[{number}/{len(specs)}] {spec.run_id}", flush=True)
        if options.dry_run:
            continue
        try:
            _follow(spec, options.device)
        except (SpecError, RunError, RuntimeError) as error:
            print(f"certscope: {error}", file=sys.stderr)
            failed.append(spec.run_id)
    if failed:
        print(f"{len(failed)} of {len(specs)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _follow(spec: RunSpec, device: str) -> None:
    """Execute a spec in its run folder, print its progress, and publish."""
    run = Run.create(runs_root(), spec)
    if os.environ.get("RANK", "0") != "0":
        accompany(run, device)
        return
    progress = Progress(spec, run)
    if not work(run, device, progress.show):
        print(f"{run.run_id} is finished already.")
        return
    progress.close()
    print(f"{run.path}")
    _publish_if_possible()


def _execute_queued(options) -> None:
    run = find_run(options.run_id, runs_root())
    progress = Progress(run.spec, run)
    try:
        if work(run, on_row=progress.show, queue=True):
            progress.close()
            _publish_if_possible()
    finally:
        os.close(options.slot)  # else the worker that is started here, in case ours has died, finds it taken
        local.start_worker()


def _publish_if_possible() -> None:
    if find_spec("duckdb"):  # a GPU box trains and certifies without it
        _publish(None)


def _publish(_) -> None:
    from backend.store.publish import publish

    report = publish()
    for name, reason in report.skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(f"Store: {report.total} runs, {report.changed} new or changed.")


def _runs(options) -> None:
    from backend.store import queries

    table = queries.runs()
    if options.json:
        for record in json.loads(table[queries.RUN_COLUMNS].to_json(orient="records", double_precision=15)):
            print(json.dumps(record))
    elif table.empty:
        print("The store is empty. `python -m backend run --dataset digits` fills it in under a minute.")
    else:
        print(
            table[["run_id", "n", "alpha", "images", "acr", "certified_accuracy_0", "abstention"]].to_string(
                index=False
            )
        )


def _import(options) -> int:
    from backend.logs import LogError, import_logs

    given = {}
    for pair in options.set:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise ValueError(f"--set wants NAME=VALUE, not {pair!r}")
        given[name] = value
    mapping = json.loads(Path(options.mapping).read_text()) if options.mapping else None
    taken, skipped = 0, 0
    for result in import_logs(Path(options.path), imported_root(), given, mapping, options.partial):
        taken += result.run is not None
        if result.run is None:
            skipped += 1
            print(f"skipped {result.file}: it {result.reason}", file=sys.stderr)
    print(f"Imported {taken} logs, skipped {skipped}.")
    _publish_if_possible()
    if not taken:
        raise LogError("nothing was imported")
    return 0


def _export(options) -> None:
    from backend.export import export
    from backend.store import queries

    runs = queries.runs()
    if unknown := set(options.runs) - set(runs.run_id):
        raise ValueError(f"the store has no run {', '.join(sorted(unknown))}")
    if options.runs:
        runs = runs[runs.run_id.isin(options.runs)]
    for name in ("source", "dataset", "architecture", "method", "sigma", "n", "image_set"):
        if (wanted := getattr(options, name)) is not None:
            runs = runs[runs[name] == (float(wanted) if name in ("sigma", "n") else wanted)]
    for path in export(options.kind, list(runs.run_id), Path(options.out), options.radii):
        print(path)


def _compare(options) -> None:
    from backend.store import queries

    p = queries.paired(options.run_a, options.run_b, options.radius)
    print(
        f"ACR {p.acr:+.4f} ({p.acr_low:+.4f} to {p.acr_high:+.4f}), p = {p.acr_p:.2g} (paired t test)\n"
        f"certified accuracy at r = {p.r:g} {p.accuracy:+.4f} ({p.accuracy_low:+.4f} to {p.accuracy_high:+.4f}), "
        f"{p.gained} images gained, {p.lost} lost, p = {p.accuracy_p:.2g} (McNemar, exact)\n"
        f"{p.images} images; 95 % intervals over the choice of images, not of the training seed"
    )


def _no_constant(name: str):
    raise ValueError(f"{name} is no number of a certificate")


def _verify(options) -> int:
    from backend.verify import verify

    with open(options.file, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{options.file} has more than {MOST_BYTES} bytes: it is no certificate")
    verdict = verify(
        json.loads(content, parse_constant=_no_constant),
        lambda run_id: find_run(run_id, runs_root(), PRECOMPUTED),
        options.device,
    )
    print(f"{verdict.word}: {verdict.reason}")
    return 1 if verdict.word == "refuted" else 0


class Progress:
    """Prints a line an epoch, and how far certification is, with rate and time left."""

    def __init__(self, spec: RunSpec, run: Run):
        self.spec = spec
        self.certificates = run.certificates()
        self.images = self.samples = 0
        self.start = self.shown = time.monotonic()
        self.width = 0

    def show(self, row: Row) -> None:
        """Take note of a row and print what it changes, at most twice a second on a terminal, every 10 s elsewhere."""
        if isinstance(row, Epoch):
            left = (self.spec.recipe.epochs - row.epoch) * row.seconds
            print(
                f"epoch {row.epoch}/{self.spec.recipe.epochs}  loss {row.loss:.4f}  accuracy under noise {row.accuracy:.4f}  "
                f"{row.images_per_second:,.0f} images/s  {duration(left)} left",
                flush=True,
            )
            self.start = time.monotonic()
        elif isinstance(row, Certificate):
            self.certificates.append(row)
            self.images += 1
            self.samples += row.n
            if time.monotonic() - self.shown > (0.5 if sys.stdout.isatty() else 10):
                self._line()

    def close(self) -> None:
        """Print where certification ended."""
        if self.images:
            self._line()
        if self.width:
            print()

    def _line(self) -> None:
        self.shown = time.monotonic()
        total, seconds = self._images(), self.shown - self.start
        rate = self.images / seconds
        text = (
            f"certified {len(self.certificates)}/{total} images  ACR so far {acr(self.certificates):.4f}  "
            f"{self.samples / seconds:,.0f} samples/s  "
            f"{duration((total - len(self.certificates)) / rate)} left"
        )
        if sys.stdout.isatty():
            print("\r" + text.ljust(self.width), end="", flush=True)
            self.width = len(text)
        else:
            print(text, flush=True)

    def _images(self) -> int:
        return len(self.spec.certification.chosen(find_dataset(self.spec.dataset).test_images))


def duration(seconds: float) -> str:
    """Seconds as 41 s, 3 min 20 s or 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
