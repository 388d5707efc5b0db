"""Ours beside the published networks, cell by cell, and whether another training seed could explain the difference."""

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from backend.plan import departures, in_words, recipe_for, usual_values
from backend.statistics import reproduction
from backend.store import queries
from backend.training.methods import METHODS

CELL = ["architecture", "method", "sigma"]
TRAINING = ["architecture", "recipe", "epochs"]
OURS = [*CELL, "recipe", "epochs"]
BASELINES = ("gaussian", "stability", "macer", "smoothadv")
PAIRS = [*((baseline, "consistency") for baseline in BASELINES), ("smoothadv", "smoothadv_consistency")]
METHODS_ORDER = (*BASELINES, "consistency", "smoothadv_consistency")


def usual(runs: pd.DataFrame) -> pd.Series:
    """Which rows of `queries.runs` have the hyper-parameters that their recipe takes for the data set and σ (bool, by row).

    Where a method has no such run at a σ, all its runs there count: something of it is shown.
    """
    fits = _are_usual(runs)
    return fits | ~fits.groupby([runs[name] for name in OURS]).transform("any")


def _are_usual(runs: pd.DataFrame) -> pd.Series:
    return pd.Series([_is_usual(run) for run in runs.itertuples()], index=runs.index, dtype=bool)


def _is_usual(run) -> bool:
    hyper = json.loads(run.hyper)
    if run.method not in METHODS:
        return True
    wanted = usual_values(run.method, run.dataset, run.sigma, run.recipe, int(run.epochs))
    return all(hyper[name] == value for name, value in wanted.items() if name in hyper)


def cells(runs: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Our runs (rows of `queries.runs`, those trained here) beside published groups on the same terms (`queries.published_groups`).

    A row per architecture, method and σ that both have with the hyper-parameters of their recipe, and recipe and epochs of ours: ours (mean
    ACR over seeds), our_seeds, theirs, their_sd, their_seeds, difference, half (of the 95 % interval: what seeds alone make of it),
    verdict: reproduced, above or below; of one published seed there is none, and half is missing.
    """
    found = []
    ours = runs[runs.source == "trained"]
    for (*cell, recipe, epochs), mine in ours[_are_usual(ours)].groupby(OURS, sort=False) if len(ours) else ():
        _, method, sigma = cell
        dataset = mine.dataset.iloc[0]
        there = published[(published[CELL] == cell).all(axis=1)]
        there = _where(there, partial(_is_the_papers, method, dataset, sigma))
        if there.empty:
            continue
        their = there.sort_values("seeds").iloc[-1]
        # A network may have been certified, or its weights kept, in several ways.
        seeds = mine.groupby("seed").acr.mean()
        difference, half = reproduction(seeds.to_numpy(), their.acr, their.acr_sd, int(their.seeds))
        verdict = "reproduced" if abs(difference) <= half else "above" if difference > 0 else "below"
        if their.seeds < 2:
            half, verdict = np.nan, "one published seed"
        found.append(
            (
                *cell,
                recipe,
                epochs,
                seeds.mean(),
                len(seeds),
                their.acr,
                their.acr_sd,
                int(their.seeds),
                difference,
                half,
                verdict,
            )
        )
    columns = [*OURS, "ours", "our_seeds", "theirs", "their_sd", "their_seeds", "difference", "half", "verdict"]
    return pd.DataFrame(found, columns=columns)


def _is_the_papers(method: str, dataset: str, sigma: float, hyper: dict) -> bool:
    return not departures(method, dataset, sigma, hyper)


def report(dataset: str) -> str:
    """What the certified runs of the store, on its most common terms, say of the published values of a data set: Markdown.

    Cell by cell beside the released logs on the same terms and beside the authors' table, then the gains of Consistency,
    then the path along λ. Raises ValueError where there are no such runs.
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
    one = runs.iloc[0]
    parts = [
        f"{dataset}, {one.architecture}: n = {one.n:,.0f}, n0 = {one.n0:.0f}, α = {one.alpha:g}, {one.images:.0f} test images ({one.image_set}).",
        _cells_table(runs, peers, queries.published(dataset)),
        "## Consistency over the baselines\n\n" + _gains_table(runs, peers),
        "## The path along λ\n\n" + _path_table(runs, peers),
    ]
    if ablations := _ablations(runs, peers):
        parts.append("## Other m, other forms of the loss\n\n" + ablations)
    return "\n\n".join(parts) + "\n"


def _cells_table(runs: pd.DataFrame, peers: pd.DataFrame, published: pd.DataFrame) -> str:
    hyper = runs[_are_usual(runs)].drop_duplicates(OURS).set_index(OURS, drop=False)
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
            ]
        )
        table = f"{authors.acr[key]:.4f} ± {authors.acr_sd[key]:.4f}" if key in authors.index else ""
        rows.append(
            (f"{cell.sigma:g}", METHODS[cell.method].title, cell.recipe, _with_seeds(cell.ours, cell.our_seeds), _plus_minus(cell.theirs, cell.their_sd),
             _plus_minus(cell.difference, cell.half, "+"), f"**{cell.verdict}**", why if cell.verdict != "reproduced" else "", table)
        )  # fmt: skip
    head = (
        "σ",
        "method",
        "recipe",
        "ours",
        "released networks, same terms",
        "difference",
        "verdict",
        "what differs",
        "authors' table, n = 100 000, 10 000 images",
    )
    return _markdown(head, rows)


def _plus_minus(value: float, half: float, sign: str = "") -> str:
    return f"{value:{sign}.4f}" + (f" ± {half:.4f}" if pd.notna(half) else "")


def _with_seeds(mean: float, seeds: int) -> str:
    return f"{mean:.4f}" + (f" ({seeds} seeds)" if seeds > 1 else "")


def over_seeds(gains: pd.DataFrame, cell: list[str]) -> pd.DataFrame:
    """Rows of `queries.acr_gains` that agree in the columns `cell`, seeds of one comparison, as one.

    gain and gain_se are means: all seeds share the test images, which the interval is over. seed_gains: the gain of each, in order of size.
    """
    means = {
        name: (name, how)
        for name, how in (("gain", "mean"), ("gain_se", "mean"), ("lam", "first"), ("images", "first"))
    }
    # First what is of one seed: a network's weights may have been rounded in several ways.
    once = gains.groupby([*cell, "seed"], as_index=False).agg(**means)
    return once.groupby(cell, as_index=False).agg(**means, seed_gains=("gain", sorted))


def _gains_table(runs: pd.DataFrame, peers: pd.DataFrame) -> str:
    gains = queries.acr_gains(runs[_are_usual(runs)].run_id, PAIRS)
    gains = over_seeds(gains, ["architecture", "sigma", "method", "baseline", "recipe", "epochs"])
    rows = []
    for row in gains.sort_values(["sigma", "method", "baseline"], key=_in_order).itertuples():
        half = 1.96 * row.gain_se
        verdict = "above" if row.gain > half else "below" if row.gain < -half else "not told apart"
        theirs, each = published_gain(peers, row), row.seed_gains
        rows.append(
            (f"{row.sigma:g}", METHODS[row.method].title, METHODS[row.baseline].title, row.recipe, f"{row.gain:+.4f} ± {half:.4f}", f"**{verdict}**",
             f"{len(each)}: {each[0]:+.4f} to {each[-1]:+.4f}" if len(each) > 1 else "1", "" if theirs is None else f"{theirs:+.4f}")
        )  # fmt: skip
    return _markdown(
        (
            "σ",
            "method",
            "over",
            "recipe",
            "gain in ACR, 95 % interval over images",
            "verdict",
            "seeds",
            "gain of the released networks",
        ),
        rows,
    )


def published_gain(published: pd.DataFrame, row) -> float | None:
    """The gain of a row of `queries.acr_gains` between published groups at the same σ and λ; None where they are not unique.

    Ablations of fewer seeds than the most that a method has there are left aside.
    """
    at = published[(published.sigma == row.sigma) & (published.architecture == row.architecture)]
    at = at[at.seeds == at.groupby("method").seeds.transform("max")]
    ours = at[(at.method == row.method) & (at.lam.isna() | (at.lam == row.lam))]
    base = at[at.method == row.baseline]
    return float(ours.acr.iloc[0] - base.acr.iloc[0]) if len(ours) == len(base) == 1 else None


def _path_table(runs: pd.DataFrame, peers: pd.DataFrame) -> str:
    """Consistency's runs that differ from the usual one in λ alone, seeds together, by recipe, beside the released ones at the same λ and m."""
    path = _where(runs[runs.method == "consistency"], _is_plain).fillna({"missing_classes": 0})
    path = path.groupby([*TRAINING, "sigma", "lam"], as_index=False).agg(
        {"acr": "mean", "certified_accuracy_0": "mean", "missing_classes": "max", "seed": "nunique"}
    )
    rows = []
    for run in path.sort_values([*TRAINING, "sigma", "lam"]).itertuples():
        at = peers[(peers.method == "consistency") & (peers.sigma == run.sigma) & (peers.lam == run.lam)]
        at = _where(at, lambda hyper: hyper.get("m", 2) == 2).sort_values("seeds")
        theirs = f"{at.acr.iloc[-1]:.4f} ({at.certified_accuracy_0.iloc[-1]:.1%})" if len(at) else ""
        rows.append(
            (
                run.recipe,
                f"{run.sigma:g}",
                f"{run.lam:g}",
                _with_seeds(run.acr, run.seed),
                f"{run.certified_accuracy_0:.1%}",
                theirs,
                _collapse(run.missing_classes),
            )
        )
    return _markdown(("recipe", "σ", "λ", "ACR", "certified accuracy at 0", "released networks, same terms", ""), rows)


def along_lambda(published: pd.DataFrame) -> pd.DataFrame:
    """Those of published groups that make a path along λ: Gaussian, and Consistency at the paper's m, η and form of the loss."""
    plain = _where(published, lambda hyper: _is_plain(hyper) and hyper.get("eta", 0.5) == 0.5)
    return plain[plain.method.isin(["gaussian", "consistency"])]


def _form(hyper: dict) -> tuple[int, str]:
    """m and the form of the loss; what a published log does not say is the paper's."""
    return hyper.get("m", 2), hyper.get("form", "default")


def _is_plain(hyper: dict) -> bool:
    return _form(hyper) == _form({})


def _ablations(runs: pd.DataFrame, peers: pd.DataFrame) -> str:
    """Consistency's runs with another m or form, beside the plain one of the same training, σ and λ; "" without any."""
    runs = runs[runs.method == "consistency"]
    plain = _where(runs, _is_plain).groupby([*TRAINING, "sigma", "lam"]).acr.mean()
    others = _where(runs, lambda hyper: not _is_plain(hyper))
    forms = others.groupby([*TRAINING, "sigma", "lam", "hyper"], as_index=False).agg(
        {"acr": "mean", "certified_accuracy_0": "mean", "missing_classes": "max", "seed": "nunique"}
    )
    rows = []
    for run in forms.itertuples():
        hyper = json.loads(run.hyper)
        beside = plain.get((run.architecture, run.recipe, run.epochs, run.sigma, run.lam))
        at = peers[(peers.method == "consistency") & (peers.sigma == run.sigma) & (peers.lam == run.lam)]
        wanted = _form(hyper)
        at = _where(at, lambda their, wanted=wanted: _form(their) == wanted)
        rows.append(
            (run.recipe, f"{run.sigma:g}", f"{run.lam:g}", str(hyper["m"]), hyper["form"], _with_seeds(run.acr, run.seed), f"{run.certified_accuracy_0:.1%}",
             "" if beside is None else f"{beside:.4f}", f"{at.acr.iloc[-1]:.4f}" if len(at) else "",
             _collapse(run.missing_classes))
        )  # fmt: skip
    head = (
        "recipe",
        "σ",
        "λ",
        "m",
        "form",
        "ACR",
        "certified accuracy at 0",
        "ACR at m = 2, form default",
        "released networks, same terms",
        "",
    )
    return _markdown(head, rows) if rows else ""


def _collapse(missing_classes: float) -> str:
    return f"collapsed: {missing_classes:.0f} classes hardly ever answered" if missing_classes > 0 else ""


def _where(rows: pd.DataFrame, says: Callable[[dict], bool]) -> pd.DataFrame:
    """The rows, maybe none, whose hyper-parameters are as `says` wants them."""
    return rows[np.array([says(json.loads(text)) for text in rows.hyper], dtype=bool)]


def _in_order(column: pd.Series) -> pd.Series:
    return (
        column.map(lambda value: METHODS_ORDER.index(value) if value in METHODS_ORDER else value)
        if column.dtype != float
        else column
    )


def _markdown(head: tuple, rows: list[tuple]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))
