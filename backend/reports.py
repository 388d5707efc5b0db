"""The verbs that ask the results store, and exchange results with elsewhere."""

import argparse
import json
import sys
from importlib.util import find_spec
from math import floor
from pathlib import Path

from backend.datasets import named
from backend.home import imported_root
from backend.spec import WHOLE

EXPORTS = ("csv", "parquet", "markdown", "latex", "figures", "reproduction", "logs", "folders")
FILTERS = ("source", "dataset", "architecture", "method", "recipe", "sigma", "mode", "n", "n0", "alpha", "image_set")
NUMBERS = ("sigma", "n", "n0", "alpha")
A_MAPPING = 'a mapping is {"pattern of paths": {"name": value, …}, …}'


def add_verbs(verb) -> None:
    """Add the verbs of this file to the command line; verb(name, function, summary) gives a parser."""
    verb("publish", _publish, "Bring the results store up to date with the run folders.")
    sub = verb("runs", _runs, "List the runs of the store.")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub = verb("import", _import, "Import per-example logs in Cohen's format, a file or a whole tree.")
    sub.add_argument("path")
    sub.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="facts that the paths do not say, or that they say wrong: "
        "dataset, architecture, method, sigma, seed, n (default 100000), n0, alpha, digits (of the radii, default 3), recipe (default paper), "
        "epochs, or a hyper-parameter of the method",
    )  # fmt: skip
    sub.add_argument(
        "--mapping",
        help='JSON file: {"pattern of paths": {"name": value, …}, …}; the first that fits counts. '
        "Default: mapping.json in the folder, where `export logs` puts it",
    )
    sub.add_argument("--partial", action="store_true", help="take logs that end early, too")
    sub = verb("export", _export, "Write results of the store as tables, files or run folders.")
    sub.add_argument(
        "kind", choices=EXPORTS, help="csv: the runs; parquet: their certificates; logs: those in Cohen's format; folders: run folders; markdown, "
        "latex: a table as in papers; figures: ACR, accuracy and curve of each run in a row; reproduction: beside the published "
        "values of a data set (takes no other filter than --dataset)",
    )  # fmt: skip
    sub.add_argument("out", help="file, or folder for `logs` and `folders`")
    sub.add_argument("--runs", nargs="+", default=[], metavar="RUN_ID", help="default: all that fit the filters below")
    _add_filters(sub)
    sub.add_argument(
        "--radii",
        nargs="+",
        type=float,
        default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0],
        metavar="R",
        help="columns of the tables (default 0 to 2)",
    )
    sub = verb("show", _show, "Say what a run's certificates amount to, and how surely.")
    sub.add_argument("run_id")
    sub = verb("rank", _rank, "Rank runs that may be compared by certified accuracy at a radius.")
    sub.add_argument("--radius", type=float, default=0.5, help="rank by certified accuracy there (default 0.5)")
    _add_filters(sub)
    sub = verb("compare", _compare, "Compare two runs image by image: the second less the first.")
    sub.add_argument("run_a")
    sub.add_argument("run_b")
    sub.add_argument("--radius", type=float, default=0.5, help="compare certified accuracy there (default 0.5)")


def publish_if_possible() -> None:
    """Publish, unless this is a GPU box without duckdb. Where it fails, that is said: what was computed is in its folders."""
    if find_spec("duckdb"):
        from backend.store.publish import PublishError

        try:
            _publish(None)
        except PublishError as error:
            print(f"certscope: {error}", file=sys.stderr)


def _publish(_) -> int:
    from backend.store.publish import publish

    report = publish()
    for name, reason in report.skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(f"Store: {report.total} runs, {report.changed} new or changed.")
    return 1 if report.skipped else 0


def _runs(options) -> None:
    from backend.store import queries

    table = queries.measured(queries.runs())
    if options.json:
        for record in json.loads(table[queries.RUN_COLUMNS].to_json(orient="records", double_precision=15)):
            print(json.dumps(record))
    elif table.empty:
        print("The store is empty. `python -m backend run --dataset digits` fills it in under a minute.")
    else:
        columns = ["run_id", "source", "recipe", "mode", "n", "n0", "alpha", "image_set", *queries.MEASURES]
        print(table[columns].to_string(index=False, na_rep="–"))


def _import(options) -> int:
    from backend.log_file import LogError
    from backend.logs import import_logs

    given = {}
    for pair in options.set:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise ValueError(f"--set wants NAME=VALUE, not {pair!r}")
        given[name] = value
    beside = Path(options.path, "mapping.json")
    if not options.mapping and beside.is_file():
        options.mapping = str(beside)
    try:
        mapping = json.loads(Path(options.mapping).read_text()) if options.mapping else {}
    except ValueError as error:
        raise ValueError(f"{options.mapping} is not JSON ({error}): {A_MAPPING}") from None
    if not isinstance(mapping, dict) or not all(isinstance(facts, dict) for facts in mapping.values()):
        raise ValueError(f"{options.mapping}: {A_MAPPING}")
    taken, skipped, terms = 0, 0, {}
    for result in import_logs(Path(options.path), imported_root(), given, mapping, options.partial):
        if options.mapping and result.file.samefile(options.mapping):
            continue
        taken += result.run is not None
        if result.run is not None:
            c = result.run.spec.certification
            spec = result.run.spec
            trained = f"trained by `{spec.recipe.name}`, {spec.recipe.epochs} epochs"
            print(f"{result.run.run_id}  {result.file}")
            terms[f"n = {c.n}, n0 = {c.n0}, α = {c.alpha:g}, radii of {spec.radius_digits} digits, {trained}"] = None
        else:
            skipped += 1
            it = "" if result.reason.startswith("its ") else "it "
            print(f"skipped {result.file}: {it}{result.reason}", file=sys.stderr)
    print(f"Imported {taken} {'log' if taken == 1 else 'logs'}, skipped {skipped}.")
    if taken:
        print(
            f"Taken to be certified with {'; '.join(terms)}. If that is wrong: delete what was made of them in {imported_root()}, and "
            "--set n=… n0=… alpha=… digits=… recipe=… epochs=…"
        )
    publish_if_possible()
    if not taken:
        raise LogError("nothing was imported")
    return 0


def _add_filters(sub: argparse.ArgumentParser) -> None:
    for name in FILTERS:
        kind = float if name in NUMBERS else str
        sub.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"only runs with this {name}")


def _filtered(options):
    """The certified runs of the store that fit the filters."""
    from backend.store import queries

    runs = queries.runs()
    runs = runs[runs.images.notna()]
    for name in FILTERS:
        if (wanted := getattr(options, name)) is not None:
            runs = runs[runs[name] == wanted]
    return runs


def _export(options) -> None:
    from backend.export import export

    others = [
        f"--{name.replace('_', '-')}" for name in FILTERS if name != "dataset" and getattr(options, name) is not None
    ]
    if options.kind == "reproduction" and (others or options.runs):
        raise ValueError(f"a reproduction is of all runs on a data set: without {', '.join(others or ['--runs'])}")
    runs = _filtered(options)
    if unknown := set(options.runs) - set(runs.run_id):
        raise ValueError(f"the store has no such run among those that fit: {', '.join(sorted(unknown))}")
    for path in export(options.kind, options.runs or list(runs.run_id), Path(options.out), options.radii):
        print(path)


def _rank(options) -> None:
    from backend.statistics import comparable_radii, early_stop, share_band
    from backend.store import queries

    runs = _filtered(options)
    if runs.empty:
        raise ValueError("no certified run fits these filters: `python -m backend runs` lists them")
    if differing := [name for name in queries.SETTINGS if runs[name].nunique() > 1]:
        values = "; ".join(f"{name}: {', '.join(map(str, runs[name].unique()))}" for name in differing)
        raise ValueError(f"runs that differ in {values} cannot be ranked together: choose with the filters")
    early, (least, most) = early_stop(runs["mode"].iloc[0]), comparable_radii(runs["mode"].iloc[0])
    if early and not least <= options.radius <= most:
        raise ValueError(f"these runs cannot be ranked at r = {options.radius:g}. {early}")
    table = queries.accuracy_at(options.radius, list(runs.run_id)).merge(runs[["run_id", "source", "recipe", "epochs"]])
    table["low"], table["high"] = share_band(table.reached.to_numpy(), table.images.to_numpy())
    columns = ["run_id", "source", "recipe", "epochs", "certified_accuracy", "low", "high"]
    print(table[columns].to_string(index=False, float_format="{:.4f}".format))
    _tell_collapsed(runs.set_index("run_id"))
    one = runs.iloc[0]
    print(
        f"Certified accuracy at r = {options.radius:g}; {queries.terms(one)}. low and "
        "high: 95 % over the choice of images. The best of many, chosen on these images, looks better than it is: "
        "confirm it on others."
    )


def _show(options) -> None:
    import numpy as np

    from backend.statistics import (
        NS,
        acr_by_n,
        acr_interval,
        comparable_radii,
        early_stop,
        high_probability_accuracy,
    )  # fmt: skip
    from backend.store import queries

    runs = queries.runs().set_index("run_id")
    if options.run_id not in runs.index or runs.images.isna()[options.run_id]:
        raise ValueError(f"the store has no certified run {options.run_id!r}: `python -m backend runs` lists them")
    run, rows = runs.loc[options.run_id], queries.certificates(options.run_id)
    right = (rows.predict == rows.label).to_numpy()
    print(f"{options.run_id}: {queries.terms(run)}")
    _tell_collapsed(runs.loc[[options.run_id]])
    if early := early_stop(run["mode"]):
        least, most = comparable_radii(run["mode"])
        for r in dict.fromkeys((least, most)) if least <= most else ():
            _show_accuracy(right & (rows.radius >= r).to_numpy(), r)
        print(early)
        return
    between = (
        "{:.4f} to {:.4f}".format(*acr_interval(np.where(right, rows.radius, 0.0))) if len(rows) > 1 else "one image"
    )
    print(
        f"ACR {run.acr:.4f} ({between}); {run.at_ceiling:.1%} of the images right and at the ceiling {floor(run.ceiling * 1e4) / 1e4:.4f}"
    )
    _show_accuracy(right, 0)
    if run["mode"] == "fixed":
        sure = high_probability_accuracy(int(right.sum()), len(rows), run.alpha)
        print(f"on these images it is at least {sure:.4f} with probability 0.999 over the noise")
    print(f"abstention {run.abstention:.4f}")
    if (rows.top_count >= 0).all():
        shares = (rows.top_count / rows.n).quantile([0.05, 0.25, 0.5, 0.75, 0.95])
        print("p_A of the images, estimated, at 5, 25, 50, 75, 95 %: " + ", ".join(f"{p:.4f}" for p in shares))
        if run["mode"] == "fixed":
            at = acr_by_n(rows.top_count.to_numpy(), right, int(run.n), run.sigma, run.alpha, options.run_id, NS)
            print("ACR at fewer of its samples: " + ", ".join(f"{acr:.4f} at n = {n:,}" for n, acr in at.items()))
    classes = queries.per_class([options.run_id])
    classes["label"] = named(run.dataset, run.image_set, classes.label)
    print(classes.to_string(index=False, float_format="{:.4f}".format))
    print("Intervals are 95 % over the choice of images, not of the training seed.")


def _tell_collapsed(runs) -> None:
    """Say which of these (by run id) hardly ever answer a class: what is told of them is no trade-off."""
    for run_id, missing in runs.missing_classes.items():
        if missing > 0:
            print(
                f"{run_id}: its training collapsed, it hardly ever answers {missing:.0f} {'class' if missing == 1 else 'classes'}"
            )


def _show_accuracy(reached, r: float) -> None:
    from backend.statistics import share_band

    low, high = (float(bound) for bound in share_band(reached.sum(), len(reached)))
    print(f"certified accuracy at {r:g} {reached.mean():.4f} ({low:.4f} to {high:.4f})")


def _compare(options) -> None:
    from backend.statistics import comparable_radii, early_stop
    from backend.store import queries

    p = queries.paired([options.run_a], [options.run_b], options.radius)
    runs = queries.runs().set_index("run_id").loc[[options.run_a, options.run_b]]
    one = runs.iloc[0]
    _tell_collapsed(runs)
    digits = "; radii of imported logs have three digits" if (runs.radius_digits < WHOLE).any() else ""
    least, most = comparable_radii(one["mode"])
    if early := early_stop(one["mode"]):
        if not least <= p.r <= most:
            raise ValueError(f"these runs cannot be compared at r = {p.r:g}. {early}")
        print(early)
    else:
        print(f"ACR {p.acr:+z.4f} ({p.acr_low:+z.4f} to {p.acr_high:+z.4f}), p = {p.acr_p:.2g} (paired t test)")
    print(
        f"certified accuracy at r = {p.r:g} {p.accuracy:+z.4f} ({p.accuracy_low:+z.4f} to {p.accuracy_high:+z.4f}), "
        f"{p.gained} images gained, {p.lost} lost, p = {p.accuracy_p:.2g} (McNemar, exact)\n"
        f"{queries.terms(one)}{digits}; 95 % intervals over the choice of images, not of the training seed"
    )
