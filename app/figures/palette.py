"""One colour and one title a method, one line style a σ. Okabe and Ito's colours, which the colour-blind tell apart."""

import pandas as pd

from backend.training.methods import METHODS

COLOURS = {
    "gaussian": "#0072B2",
    "consistency": "#D55E00",
    "stability": "#E69F00",
    "smoothadv": "#009E73",
    "macer": "#CC79A7",
    "smoothadv_consistency": "#56B4E9",
}
PUBLISHED_TITLES = {  # methods that appear in published tables and cannot be trained here yet
    "stability": "Stability",
    "smoothadv": "SmoothAdv",
    "macer": "MACER",
    "smoothadv_consistency": "SmoothAdv + Consistency",
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GREY = "#808080"


def colour(method: str) -> str:
    return COLOURS.get(method, GREY)


def title(method: str) -> str:
    return METHODS[method].title if method in METHODS else PUBLISHED_TITLES.get(method, method)


def dashes(sigmas) -> dict[float, str]:
    """A line style for each σ, the same whatever else is drawn."""
    usual = {0.25: DASHES[0], 0.5: DASHES[1], 1.0: DASHES[2]}
    return {s: usual.get(s, DASHES[3 + i % 2]) for i, s in enumerate(sorted(set(sigmas)))}


def run_label(run) -> str:
    """A run in words: method, σ, λ, and the seed where it is not the first."""
    lam = f", λ = {run.lam:g}" if pd.notna(run.lam) else ""
    return f"{title(run.method)}, σ = {run.sigma:g}{lam}" + (f", seed {run.seed}" if run.seed else "")
