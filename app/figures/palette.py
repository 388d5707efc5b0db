"""One colour and one title a method, one line style a σ. Okabe and Ito's colours, which the colour-blind tell apart."""

import json
from collections import Counter
from zlib import crc32

import pandas as pd

from backend.spec import WHOLE
from backend.training.methods import METHODS

BLUE, VERMILION, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#808080"
COLOURS = {
    "gaussian": BLUE,
    "consistency": VERMILION,
    "stability": "#E69F00",
    "smoothadv": GREEN,
    "macer": PINK,
    "smoothadv_consistency": "#56B4E9",
    "smoothmix": "#F0E442",
    "stability_consistency": "#8C6D00",
    "macer_consistency": "#882255",
}
SPARE = ("#44AA99", "#AA4499", "#999933", "#117733", "#7F5539")  # for methods of anybody's; the first four are Tol's
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "diamond", "triangle-up", "square")


def colour(method: str) -> str:
    """A method's own; those added to METHODS have each another of the spare ones, and one of imported logs has one by its name."""
    added = [name for name in METHODS if name not in COLOURS]
    place = added.index(method) if method in added else crc32(method.encode())
    return COLOURS.get(method, SPARE[place % len(SPARE)])


def translucent(shade: str, opacity: float) -> str:
    """#rrggbb with an opacity in [0, 1], as plotly reads it."""
    red, green, blue = (int(shade[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


ELSEWHERE = {"catrs": "CAT-RS"}  # methods that are published, and not trained here


def title(method: str) -> str:
    return METHODS[method].title if method in METHODS else ELSEWHERE.get(method, method)


def symbols(recipes) -> dict[str, str]:
    """A marker for each recipe."""
    return {recipe: SYMBOLS[i % len(SYMBOLS)] for i, recipe in enumerate(sorted(set(recipes), reverse=True))}


def dashes(sigmas) -> dict[float, str]:
    """A line style for each σ; those of the paper always have the same."""
    usual = {0.25: DASHES[0], 0.5: DASHES[1], 1.0: DASHES[2]}
    others = sorted(set(sigmas) - usual.keys())
    return usual | {s: DASHES[3 + i % 3] for i, s in enumerate(others)}


def run_labels(runs: pd.DataFrame) -> dict[str, str]:
    """Each run in words, {run_id: words}: method, σ, λ, and whatever else tells runs of the same method, σ and λ apart; and the recipe,
    if there are several. Rows of `queries.over_seeds` say how many seeds they stand for."""
    facts = {run.run_id: _facts(run) for run in runs.itertuples()}
    usual = {"method": title, "sigma": "σ = {:g}".format, "lam": "λ = {:g}".format}
    groups: dict[tuple, list[dict]] = {}
    for f in facts.values():
        groups.setdefault(tuple(f.get(name) for name in usual), []).append(f)
    apart = {
        key: {name for name in set().union(*group) if len({other.get(name) for other in group}) > 1} - usual.keys()
        for key, group in groups.items()
    }
    everywhere = {"recipe"} if runs.recipe.nunique() > 1 else set()
    if runs.groupby("recipe").epochs.nunique().max() == 1:  # the recipe tells them
        apart = {key: telling - {"epochs"} for key, telling in apart.items()}
    labels = {}
    for run_id, f in facts.items():
        # That a training collapsed is said whatever stands beside it.
        telling = apart[tuple(f.get(name) for name in usual)] | everywhere | {"training"}
        words = [say(f[name]) for name, say in usual.items() if f.get(name) is not None]
        labels[run_id] = ", ".join(words + [f"{name} {value}" for name, value in f.items() if name in telling])
    if "seeds" in runs:
        labels = {
            run_id: labels[run_id] + seeds(number) for run_id, number in zip(runs.run_id, runs.seeds, strict=True)
        }
    # A folder of elsewhere may differ in what no words tell: an id always does.
    often = Counter(labels.values())
    return {run_id: words + (f", {run_id[-8:]}" if often[words] > 1 else "") for run_id, words in labels.items()}


def seeds(number: int) -> str:
    """What follows a name that stands for several seeds."""
    return f" ({number} seeds)" if number > 1 else ""


def _facts(run) -> dict:
    named = (
        "method", "sigma", "architecture", "source", "recipe", "epochs", "seed", "train_precision", "weights_dtype", "precision", "mode",
    )  # fmt: skip
    facts = {name: getattr(run, name) for name in named if name != "seed" or not hasattr(run, "seeds")}
    missing = getattr(run, "missing_classes", None)
    facts |= {"training": "collapsed"} if pd.notna(missing) and missing > 0 else {}
    digits = getattr(run, "radius_digits", None)
    facts |= {"radii of": f"{digits:.0f} digits"} if pd.notna(digits) and digits < WHOLE else {}
    # A folder of elsewhere may call a hyper-parameter what it likes.
    return facts | json.loads(run.hyper) | facts


def lambda_path(run) -> tuple:
    """What is equal for the runs of one path along λ: everything but method, λ and seed; Gaussian has no other hyper-parameters."""
    facts = _facts(run)
    return tuple(
        (name, value)
        for name, value in facts.items()
        if name not in ("method", "lam", "seed", "eta", "m", "form", "training")
    )
