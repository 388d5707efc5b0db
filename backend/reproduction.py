"""Ours beside the published networks, cell by cell, and whether another training seed could explain the difference."""

import json

import pandas as pd

from backend.plan import usual_values
from backend.statistics import reproduction
from backend.training.methods import METHODS

CELL = ["architecture", "method", "sigma"]


def usual(runs: pd.DataFrame) -> pd.Series:
    """Which rows of `queries.runs` have the hyper-parameters that their recipe takes for the data set and σ (bool, by row).

    Where a method has no such run at a σ, all its runs there count: something of it is shown.
    """
    fits = pd.Series([_is_usual(run) for run in runs.itertuples()], index=runs.index, dtype=bool)
    return fits | ~fits.groupby([runs[name] for name in CELL]).transform("any")


def _is_usual(run) -> bool:
    hyper = json.loads(run.hyper)
    if run.method not in METHODS:
        return True
    wanted = usual_values(run.method, run.dataset, run.sigma, run.recipe, int(run.epochs))
    return all(hyper[name] == value for name, value in wanted.items() if name in hyper)


def cells(runs: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Our runs (rows of `queries.runs`, those trained here) beside published groups on the same terms (`queries.published_groups`).

    A row per architecture, method and σ that both have: ours (mean ACR over seeds), our_seeds, theirs, their_sd, their_seeds,
    difference, half (of the 95 % interval: what seeds alone make of it), verdict: reproduced, above or below.
    """
    found = []
    ours = runs[runs.source == "trained"]
    for cell, mine in ours[usual(ours)].groupby(CELL, sort=False) if len(ours) else ():
        there = published[(published[CELL] == list(cell)).all(axis=1)]
        if there.empty:
            continue
        their = there.sort_values("seeds").iloc[-1]  # not an ablation of one seed
        difference, half = reproduction(mine.acr.to_numpy(), their.acr, their.acr_sd, int(their.seeds))
        verdict = "reproduced" if abs(difference) <= half else "above" if difference > 0 else "below"
        found.append(
            (*cell, mine.acr.mean(), len(mine), their.acr, their.acr_sd, int(their.seeds), difference, half, verdict)
        )
    columns = [*CELL, "ours", "our_seeds", "theirs", "their_sd", "their_seeds", "difference", "half", "verdict"]
    return pd.DataFrame(found, columns=columns)
