"""Ours beside the published networks, cell by cell, and whether another training seed could explain the difference."""

import json
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from backend.recipes import departures, usual_values
from backend.spec import PRECISIONS
from backend.statistics import reproduction
from backend.store import queries
from backend.training.methods import METHODS

CELL = ["architecture", "method", "sigma"]
OURS = [*CELL, "recipe", "epochs"]
TRAINING = ["architecture", "recipe", "epochs"]
VERDICTS = {1: "above", 0: "not told apart", -1: "below"}
# Sources of published figures that hold networks of several methods; the nearest to ours first.
LOGS = ("same terms", "released", "cat-rs")
BASELINES = ("gaussian", "stability", "macer", "smoothadv")
PAIRS = [*((baseline, "consistency") for baseline in BASELINES), ("smoothadv", "smoothadv_consistency")]


def usual(runs: pd.DataFrame) -> pd.Series:
    """Which rows of `queries.runs` are as their recipe has them for the data set and σ: `are_usual` (bool, by row).

    Where a method has no such run at a σ, all its runs there count, and so with imported ones: something of it is shown.
    """
    fits = are_usual(runs)
    return fits | ~fits.groupby([runs[name] for name in ("source", *OURS)]).transform("any")


def are_usual(runs: pd.DataFrame, free: Sequence[str] = ()) -> pd.Series:
    """Which rows of `queries.runs` have the hyper-parameters that their recipe takes, but for the `free` ones, and are `in_one_precision` (bool, by row)."""
    fits = pd.Series([_is_usual(run, free) for run in runs.itertuples()], index=runs.index, dtype=bool)
    return fits & in_one_precision(runs)


def in_one_precision(runs: pd.DataFrame) -> pd.Series:
    """Which rows of `queries.runs` were trained in float32, and all of a cell and training that has none (bool, by row): others are not seeds of it."""
    plain = runs.train_precision == PRECISIONS[0]
    return plain | ~plain.groupby([runs[name] for name in ("source", *OURS)]).transform("any")


def _is_usual(run, free: Sequence[str]) -> bool:
    hyper = json.loads(run.hyper)
    if run.method not in METHODS:
        return True
    wanted = usual_values(run.method, run.dataset, run.sigma, run.recipe, int(run.epochs))
    return all(hyper[name] == value for name, value in wanted.items() if name in hyper and name not in free)


def not_collapsed(runs: pd.DataFrame, alike: Sequence[str]) -> pd.DataFrame:
    """The runs whose training did not collapse, and those of a group, equal in the columns `alike`, in which all did; left_out: how many did not stay, of the group.

    A network that answers with few classes or one says nothing of what the others trade; that it came to that is told beside them.
    """
    collapsed = runs.missing_classes > 0
    groups = collapsed.groupby([runs[name] for name in alike], dropna=False)
    stay = ~collapsed | groups.transform("all")
    return runs.assign(left_out=groups.transform("sum").where(~collapsed, 0))[stay]


def cells(runs: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Our runs on one data set (rows of `queries.runs`, those trained here) beside published groups on the same terms (`queries.published_groups`).

    A row per architecture, method and σ that both have with the hyper-parameters of their recipe, and recipe and epochs of ours: ours (mean
    ACR over seeds that did not collapse), our_seeds, collapsed (how many did and are left out), theirs, their_sd, their_seeds, difference, half (of
    the 95 % interval: what other seeds and samples make of it), verdict: reproduced, above or below; where one seed was published it says so, and half is missing.
    """
    found = []
    ours = runs[runs.source == "trained"]
    for (*cell, recipe, epochs), mine in ours[are_usual(ours)].groupby(OURS, sort=False) if len(ours) else ():
        _, method, sigma = cell
        dataset = mine.dataset.iloc[0]
        there = published[(published[CELL] == cell).all(axis=1)]
        there = where(there, partial(_is_the_papers, method, dataset, sigma))
        if there.empty:
            continue
        their = there.sort_values("seeds").iloc[-1]
        # A network may have been certified, or its weights kept, in several ways.
        seeds = not_collapsed(mine, OURS).groupby("seed").acr.mean()
        difference, half = reproduction(seeds.to_numpy(), their.acr, their.acr_sd, int(their.seeds))
        verdict = "reproduced" if abs(difference) <= half else "above" if difference > 0 else "below"
        if their.seeds < 2:
            half, verdict = np.nan, "one published seed"
        found.append(
            (*cell, recipe, epochs, seeds.mean(), len(seeds), mine.seed.nunique() - len(seeds), their.acr, their.acr_sd, int(their.seeds),
             difference, half, verdict)
        )  # fmt: skip
    columns = [*OURS, "ours", "our_seeds", "collapsed", "theirs", "their_sd", "their_seeds", "difference", "half", "verdict"]  # fmt: skip
    return pd.DataFrame(found, columns=columns)


def _is_the_papers(method: str, dataset: str, sigma: float, hyper: dict) -> bool:
    return not departures(method, dataset, sigma, hyper)


def gains_over_seeds(gains: pd.DataFrame, cell: list[str]) -> pd.DataFrame:
    """Rows of `queries.acr_gains` that agree in the columns `cell`, seeds of one comparison, as one. collapsed: at which seeds a training
    collapsed, {method: seeds}; left_out: whether those are not compared, which they are where no seed has two that learned.

    gain, half (of its 95 % interval) and verdict (above, below, or not told apart) are of the means over seeds, image
    by image: `queries.paired`. seed_gains: the gain of each, in order of size. accuracy, accuracy_low, accuracy_high: the same difference in
    certified accuracy at 0 with such an interval; accuracy_told: −1, 0 or 1, by McNemar's test and its accuracy_p where one seed makes that possible.
    """
    # Of one seed once: a network's weights may have been rounded in several ways.
    once = gains.sort_values("run_id").drop_duplicates([*cell, "seed"])
    found = []
    for place, every in once.groupby(cell, dropna=False):
        sides = (("method", "missing_classes"), ("baseline", "baseline_missing_classes"))
        collapsed = {
            method: sorted(some.seed)
            for side, name in sides for method, some in every[every[name] > 0].groupby(side)
        }  # fmt: skip
        learned = every[every[[name for _, name in sides]].max(axis=1) == 0]
        left_out = 0 < len(learned) < len(every)
        rows = learned if left_out else every
        p = queries.paired(rows.baseline_id.to_list(), rows.run_id.to_list())
        found.append(
            (*place, p.acr, (p.acr_high - p.acr_low) / 2, VERDICTS[p.acr_told], sorted(rows.gain), collapsed, left_out, rows.lam.iloc[0],
             p.images, p.accuracy, p.accuracy_low, p.accuracy_high, p.accuracy_p, p.accuracy_told)
        )  # fmt: skip
    measures = ["gain", "half", "verdict", "seed_gains", "collapsed", "left_out", "lam", "images", "accuracy", "accuracy_low", "accuracy_high", "accuracy_p", "accuracy_told"]  # fmt: skip
    return pd.DataFrame(found, columns=[*cell, *measures])


def path_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Consistency's runs trained here (of `queries.runs`) that differ from the usual one in λ alone; of one seed and λ one, for weights may be rounded in several ways, and no seed that collapsed where another did not."""
    path = runs[(runs.source == "trained") & (runs.method == "consistency") & are_usual(runs, free=("lam",))]
    once = path.sort_values("run_id").drop_duplicates([*TRAINING, "sigma", "lam", "seed"])
    return not_collapsed(once, [*TRAINING, "sigma", "lam"])


BREAKDOWN = 0.1  # of the images
PARTS = ("up to the recipe's λ", "beyond it")


def along_path(path: pd.DataFrame) -> pd.DataFrame:
    """What a larger λ does: from the least to the usual λ, and from there to the largest at which training did not break down.

    That it did where the network hardly ever answers a class, at more seeds than not, or is right of BREAKDOWN fewer images than at the usual λ: no trade-off. Else no λ
    is chosen by its results. A row a training, σ and part of PARTS of a `path_of`: TRAINING, sigma, part, least, most, broken (the λ beyond the
    usual at which it did), seeds (of each of both), left_out (seeds of both that collapsed), images, and of `queries.paired` at r = 0, most less least at equal seeds: acr, accuracy, each
    with _low, _high and _told, and accuracy_p.
    """
    found = []
    for place, rows in path.groupby([*TRAINING, "sigma"]):
        by_lam = (
            rows.groupby("lam")
            .agg(
                missing=("missing_classes", "max"),
                accuracy=("certified_accuracy_0", "mean"),
                left=("left_out", "max"),
                seeds=("seed", "size"),
            )
            .fillna(0)
        )
        usual_lams = rows.lam[are_usual(rows)].unique()
        if len(usual_lams) != 1:
            continue
        at = usual_lams[0]
        learned = (by_lam.missing == 0) & (by_lam.left <= by_lam.seeds)
        whole = by_lam.index[learned & (by_lam.accuracy >= by_lam.accuracy[at] - BREAKDOWN)]
        broken = sorted(set(by_lam.index[by_lam.index > at]) - set(whole))
        for part, among in zip(PARTS, (whole[whole <= at], whole[whole >= at]), strict=True):
            if at not in among or len(among) < 2:
                continue
            ends = [rows.run_id[rows.lam == lam].to_list() for lam in (among.min(), among.max())]
            ends = queries.at_equal_seeds(*ends, rows.set_index("run_id").seed)
            if len(ends[0]) != len(ends[1]):  # they share no seed
                continue
            p = queries.paired(*ends)
            found.append(
                (*place, part, among.min(), among.max(), broken if part == PARTS[1] else [], len(ends[0]),
                 int(by_lam.left[[among.min(), among.max()]].sum()), p.images, p.acr, p.acr_low, p.acr_high, p.acr_told,
                 p.accuracy, p.accuracy_low, p.accuracy_high, p.accuracy_told, p.accuracy_p)
            )  # fmt: skip
    measures = ["acr", "acr_low", "acr_high", "acr_told", "accuracy", "accuracy_low", "accuracy_high", "accuracy_told", "accuracy_p"]  # fmt: skip
    return pd.DataFrame(
        found, columns=[*TRAINING, "sigma", "part", "least", "most", "broken", "seeds", "left_out", "images", *measures]
    )


def published_gain(published: pd.DataFrame, row) -> tuple[float, str] | tuple[None, None]:
    """The gain of a row of `queries.acr_gains` between published networks of one source at the same σ and, where it is told, λ, and that source, the first of LOGS.

    published: of `queries.published_groups` or `queries.published`. (None, None) where no source has both, or has several of one.
    """
    if row.method == "consistency" and form_of(json.loads(row.hyper))[:2] != form_of({})[:2]:
        return None, None  # an ablation of ours
    at = published[(published.sigma == row.sigma) & (published.architecture == row.architecture)]
    for source in LOGS:
        theirs = without_ablations(at[at.source == source])
        ours = theirs[(theirs.method == row.method) & (theirs.lam.isna() | (theirs.lam == row.lam))]
        base = theirs[theirs.method == row.baseline]
        if len(ours) == len(base) == 1:
            return float(ours.acr.iloc[0] - base.acr.iloc[0]), source
    return None, None


def without_ablations(published: pd.DataFrame) -> pd.DataFrame:
    """Those of published groups that have as many seeds as any of their architecture, method and σ: ablations have fewer."""
    return published[published.seeds == published.groupby(CELL).seeds.transform("max")]


def along_lambda(published: pd.DataFrame) -> pd.DataFrame:
    """Those of published groups that make a path along λ: Gaussian, and Consistency at the paper's m, η and form of the loss."""
    plain = where(published, is_plain)
    return plain[plain.method.isin(["gaussian", "consistency"])]


def form_of(hyper: dict) -> tuple[int, str, float]:
    """Consistency's m, form of the loss and η; what a published log does not say is the paper's."""
    return hyper.get("m", 2), hyper.get("form", "default"), hyper.get("eta", 0.5)


def is_plain(hyper: dict) -> bool:
    """Whether they are the paper's."""
    return form_of(hyper) == form_of({})


def where(rows: pd.DataFrame, says: Callable[[dict], bool]) -> pd.DataFrame:
    """The rows, maybe none, whose hyper-parameters are as `says` wants them."""
    return rows[np.array([says(json.loads(text)) for text in rows.hyper], dtype=bool)]
