"""What docs/reproduction.md says of the store's runs: ours beside the published networks, in Markdown."""

import json

import pandas as pd

from backend.recipes import departures, in_words, recipe_for, usual_values
from backend.reproduction import (
    CELL,
    OURS,
    PAIRS,
    TRAINING,
    along_path,
    are_usual,
    cells,
    form_of,
    gains_over_seeds,
    in_one_precision,
    not_collapsed,
    path_of,
    published_gain,
    where,
)  # fmt: skip
from backend.store import queries
from backend.training.methods import METHODS, place


def report(dataset: str) -> str:
    """What the certified runs of the store, on its most common terms, say of the published values of a data set: Markdown.

    Cell by cell beside the released logs on the same terms and beside the authors' table, or, without such logs, beside what is
    published; then the gains of Consistency, then the path along λ. Raises ValueError where there are no such runs.
    """
    runs = queries.runs()
    runs = runs[
        (runs.dataset == dataset) & (runs.source == "trained") & (runs["mode"] == "fixed") & runs.images.notna()
    ]
    if runs.empty:
        raise ValueError(f"the store holds no certified run on {dataset}")
    n, n0, alpha, image_set = runs.groupby(["n", "n0", "alpha", "image_set"]).size().idxmax()
    runs = runs[(runs.n == n) & (runs.n0 == n0) & (runs.alpha == alpha) & (runs.image_set == image_set)]
    peers = queries.published_groups(dataset, int(n), int(n0), float(alpha), image_set)
    of_each = [_of_one(these, peers[peers.architecture == name]) for name, these in runs.groupby("architecture")]
    return "\n\n".join(of_each) + "\n"


def _of_one(runs: pd.DataFrame, peers: pd.DataFrame) -> str:
    """The report on one architecture, and its published groups on the same terms."""
    one = runs.iloc[0]
    published = queries.published(one.dataset)
    published = published[published.architecture == one.architecture]
    parts = [
        f"{one.dataset}, {one.architecture}: {queries.terms(one)}.",
        _beside_table(runs, published) if peers.empty else _cells_table(runs, peers, published),
        "## Consistency over the baselines\n\n" + _gains_table(runs, published if peers.empty else peers),
    ]
    path = _path(runs)
    if not peers.empty or path.duplicated([*TRAINING, "sigma"]).any():
        parts.append("## The path along λ\n\n" + _path_table(path, peers))
        if len(moves := along_path(path_of(runs))):
            parts.append("### What a larger λ does\n\n" + _moves_table(moves))
    if ablations := _ablations(runs, peers):
        parts.append("## Other m, other forms of the loss\n\n" + ablations)
    return "\n\n".join(parts)


def _cells_table(runs: pd.DataFrame, peers: pd.DataFrame, published: pd.DataFrame) -> str:
    hyper = runs[are_usual(runs)].drop_duplicates(OURS).set_index(OURS, drop=False)
    authors = published[published.source == "rebuttal"].set_index(CELL)
    rows = []
    for cell in cells(runs, peers).sort_values(["sigma", "method", "recipe"], key=_in_order).itertuples():
        key = (cell.architecture, cell.method, cell.sigma)
        run = hyper.loc[(*key, cell.recipe, cell.epochs)]
        changes = departures(cell.method, run.dataset, run.sigma, json.loads(run.hyper))
        whole = recipe_for("paper", run.dataset).epochs
        why = ", ".join(
            [
                *([f"{run.epochs} epochs, not {whole}"] if run.epochs != whole else ()),
                *(f"{name} = {in_words(a)}, not {in_words(b)}" for name, (a, b) in changes.items()),
                *([f"{cell.collapsed} more of ours collapsed"] if cell.collapsed else ()),
            ]
        )
        table = f"{authors.acr[key]:.4f} ± {authors.acr_sd[key]:.4f}" if key in authors.index else ""
        rows.append(
            (f"{cell.sigma:g}", _title(cell.method), cell.recipe, _with_seeds(cell.ours, cell.our_seeds), _plus_minus(cell.theirs, cell.their_sd),
             _plus_minus(cell.difference, cell.half, "+"), f"**{cell.verdict}**", why if cell.verdict != "reproduced" or cell.collapsed else "", table)
        )  # fmt: skip
    head = ("σ", "method", "recipe", "ours", "released networks, same terms", "difference", "verdict", "what differs", "authors' table, n = 100 000, 10 000 images")  # fmt: skip
    return _markdown(head, rows)


def _beside_table(runs: pd.DataFrame, published: pd.DataFrame) -> str:
    """Means over seeds beside what papers report at another n, on other images: no verdict follows."""
    cell = [*OURS, "lam"]
    ours = (
        not_collapsed(runs[are_usual(runs)], cell)
        .groupby([*cell, "seed"], dropna=False)[["acr", "certified_accuracy_0", "missing_classes", "left_out"]]
        .mean()
    )
    ours = ours.reset_index().groupby(cell, dropna=False, as_index=False).agg(
        acr=("acr", "mean"), accuracy=("certified_accuracy_0", "mean"), missing=("missing_classes", "max"), left_out=("left_out", "max"), seeds=("seed", "nunique")
    )  # fmt: skip
    rows = []
    for one in ours.sort_values(["sigma", "method", "recipe", "epochs"], key=_in_order).itertuples():
        at = published[(published.method == one.method) & (published.sigma == one.sigma)]
        said = [
            f"{their.acr:.4f} (" + (f"{their.certified_accuracy_0:.1%}; " if pd.notna(their.certified_accuracy_0) else "")
            + f"{their.source}, n = {their.n:,}, {their.images:,} images)"
            for their in at[at.lam.isna() | (at.lam == one.lam)].itertuples()
        ]  # fmt: skip
        rows.append(
            (f"{one.sigma:g}", _title(one.method), f"{one.recipe}, {one.epochs} epochs", _with_seeds(one.acr, one.seeds),
             f"{one.accuracy:.1%}", "; ".join(said), _collapse(one.missing, one.left_out))
        )  # fmt: skip
    return _markdown(("σ", "method", "recipe", "ACR", "certified accuracy at 0", "published: ACR (accuracy)", ""), rows)


def _plus_minus(value: float, half: float, sign: str = "") -> str:
    return f"{value:{sign}.4f}" + (f" ± {half:.4f}" if pd.notna(half) else "")


def _with_seeds(mean: float, seeds: int) -> str:
    return f"{mean:.4f}" + (f" ({seeds} seeds)" if seeds > 1 else "")


def _gains_table(runs: pd.DataFrame, peers: pd.DataFrame) -> str:
    gains = queries.acr_gains(runs[are_usual(runs)].run_id, PAIRS)
    gains = gains_over_seeds(gains, ["architecture", "sigma", "method", "baseline", "recipe", "epochs", "hyper"])
    rows = []
    for row in gains.sort_values(["sigma", "method", "baseline"], key=_in_order).itertuples():
        theirs, source = published_gain(peers, row)
        whose = "" if source == "same terms" else f" ({source}, at its own n)"
        rows.append(
            (
                f"{row.sigma:g}",
                _title(row.method),
                _title(row.baseline),
                row.recipe,
                f"{row.gain:+z.4f} ± {row.half:.4f}",
                f"**{row.verdict}**",
                _seeds(row),
                "" if theirs is None else f"{theirs:+z.4f}{whose}",
                _points(row),
            )
        )
    head = ("σ", "method", "over", "recipe", "gain in ACR, 95 % interval", "verdict", "seeds", "gain of the published networks", "certified accuracy at 0, points (95 %)")  # fmt: skip
    return _markdown(head, rows)


def _seeds(row) -> str:
    """How many seeds a row of `gains_over_seeds` is of, and from … to … what each gains; and which collapsed."""
    each = row.seed_gains
    said = [f"{len(each)}: {each[0]:+z.4f} to {each[-1]:+z.4f}" if len(each) > 1 else "1"]
    for name, seeds in row.collapsed.items():
        at = f"{_title(name)} collapsed at {', '.join(map(str, seeds))}"
        said.append(f"{at}, left out" if row.left_out else at)
    return "; ".join(said)


def _points(row) -> str:
    """A row's difference in certified accuracy at 0, with its interval; of one seed McNemar's test decides what is told apart, and p is there."""
    decided = "" if pd.isna(row.accuracy_p) else f"; p = {row.accuracy_p:.1g}"
    said = f"{100 * row.accuracy:+z.1f} ({100 * row.accuracy_low:+z.1f} to {100 * row.accuracy_high:+z.1f}{decided})"
    return f"{said}, **told apart**" if row.accuracy_told else said


def _path(runs: pd.DataFrame) -> pd.DataFrame:
    """`path_of` runs, seeds together, by training, σ and λ."""
    return (
        path_of(runs)
        .groupby([*TRAINING, "sigma", "lam"], as_index=False)
        .agg(
            {
                "acr": "mean",
                "certified_accuracy_0": "mean",
                "missing_classes": "max",
                "left_out": "max",
                "seed": "nunique",
                "hyper": "first",
            }
        )
    )


def _path_table(path: pd.DataFrame, peers: pd.DataFrame) -> str:
    """A `_path`, beside the released networks at the same λ and m."""
    rows = []
    for run in path.sort_values([*TRAINING, "sigma", "lam"]).itertuples():
        at = peers[(peers.method == "consistency") & (peers.sigma == run.sigma) & (peers.lam == run.lam)]
        wanted = form_of(json.loads(run.hyper))
        at = where(at, lambda their, wanted=wanted: form_of(their) == wanted).sort_values("seeds")
        theirs = f"{at.acr.iloc[-1]:.4f} ({at.certified_accuracy_0.iloc[-1]:.1%})" if len(at) else ""
        rows.append(
            (
                run.recipe,
                f"{run.sigma:g}",
                f"{run.lam:g}",
                _with_seeds(run.acr, run.seed),
                f"{run.certified_accuracy_0:.1%}",
                theirs,
                _collapse(run.missing_classes, run.left_out),
            )
        )
    return _markdown(("recipe", "σ", "λ", "ACR", "certified accuracy at 0", "released networks, same terms", ""), rows)


def _moves_table(moves: pd.DataFrame) -> str:
    rows = [
        (
            row.recipe,
            f"{row.sigma:g}",
            f"{row.least:g} to {row.most:g}",
            f"{row.acr:+z.4f} ({row.acr_low:+z.4f} to {row.acr_high:+z.4f})"
            + (", **told apart**" if row.acr_told else ""),
            _points(row),
            ", ".join([f"{lam:g}" for lam in row.broken] + [f"{row.left_out} seeds of these λ"] * bool(row.left_out)),
        )
        for row in moves.itertuples()
    ]
    head = ("recipe", "σ", "λ", "ACR, 95 % interval", "certified accuracy at 0, points (95 %)", "left out, broken down: λ")  # fmt: skip
    return _markdown(head, rows)


def _ablations(runs: pd.DataFrame, peers: pd.DataFrame) -> str:
    """Consistency's runs with another m, form or η, beside the plain one of the same training, σ and λ; "" without any."""
    runs = runs[(runs.method == "consistency") & in_one_precision(runs)]
    setting = [*TRAINING, "sigma", "lam", "hyper"]
    runs = not_collapsed(runs, setting)
    usual = are_usual(runs, free=("lam",))
    plain = runs[usual].groupby([*TRAINING, "sigma", "lam"]).acr.mean()
    others = runs[~usual]
    forms = others.groupby(setting, as_index=False).agg(
        {"acr": "mean", "certified_accuracy_0": "mean", "missing_classes": "max", "left_out": "max", "seed": "nunique"}
    )
    rows = []
    for run in forms.itertuples():
        hyper = json.loads(run.hyper)
        eta = usual_values("consistency", runs.dataset.iloc[0], run.sigma, run.recipe, run.epochs)["eta"]
        beside = plain.get((run.architecture, run.recipe, run.epochs, run.sigma, run.lam))
        at = peers[(peers.method == "consistency") & (peers.sigma == run.sigma) & (peers.lam == run.lam)]
        wanted = form_of(hyper)
        at = where(at, lambda their, wanted=wanted: form_of(their) == wanted)
        rows.append(
            (run.recipe, f"{run.sigma:g}", f"{run.lam:g}", str(hyper["m"]), hyper["form"] + (f", η = {hyper['eta']:g}" if hyper["eta"] != eta else ""), _with_seeds(run.acr, run.seed), f"{run.certified_accuracy_0:.1%}",
             "" if beside is None else f"{beside:.4f}", f"{at.acr.iloc[-1]:.4f}" if len(at) else "",
             _collapse(run.missing_classes, run.left_out))
        )  # fmt: skip
    head = ("recipe", "σ", "λ", "m", "form", "ACR", "certified accuracy at 0", "ACR at m = 2, form default", "released networks, same terms", "")  # fmt: skip
    return _markdown(head, rows) if rows else ""


def _collapse(missing_classes: float, left_out: float) -> str:
    """That a training collapsed, or how many more seeds did and are left out; in words, maybe none."""
    if missing_classes > 0:
        return f"collapsed: {missing_classes:.0f} {'class' if missing_classes == 1 else 'classes'} hardly ever answered"
    return f"{left_out:.0f} more collapsed" if left_out else ""


def _title(method: str) -> str:
    return METHODS[method].title if method in METHODS else method


def _in_order(column: pd.Series) -> pd.Series:
    return column.map(place) if column.name in ("method", "baseline") else column


def _markdown(head: tuple, rows: list[tuple]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))
