"""Choosing runs that may be compared: one data set, one n, one α, one set of images."""

import contextlib

import pandas as pd
import streamlit as st

from app.figures.palette import title
from app.widgets.glossary import TERMS
from backend.datasets import DATASETS
from backend.store import queries

SETTINGS = ["mode", "n", "n0", "alpha", "image_set"]  # equal where two runs may be compared


@st.fragment(run_every=5)
def look_again(snapshot: tuple) -> None:
    """Draw the whole page anew when runs were published or deleted since it was drawn from that snapshot."""
    with contextlib.suppress(queries.StoreError):  # what is shown stands until there is a store again
        if queries.mark() != snapshot:
            st.rerun()


def choose_comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Filters for data set, settings, σ and method, kept in the URL; returns the chosen certified runs (maybe none)."""
    certified = runs[runs.images.notna()]
    if certified.empty:
        return certified
    first, second, third = st.columns([1, 2.4, 1.6])
    names = sorted(certified.dataset.unique(), key=lambda name: (name != "mnist", name))
    about = "; ".join(f"{name}: {DATASETS[name].note}" for name in names if name in DATASETS)
    dataset = first.selectbox("Data set", names, key="dataset", bind="query-params", help=about)
    certified = certified[certified.dataset == dataset]
    settings = certified.groupby(SETTINGS).size().sort_values(ascending=False)
    labels = {settings_label(*key, certified): key for key in settings.index}
    chosen = second.selectbox(
        "Certified with", list(labels), key="settings", bind="query-params",
        help="Only runs certified in the same mode with the same n and α on the same images are drawn together: ACR grows with n.",
    )  # fmt: skip
    for column, value in zip(SETTINGS, labels[chosen], strict=True):
        certified = certified[certified[column] == value]
    sigmas = [f"{sigma:g}" for sigma in sorted(certified.sigma.unique())]
    wanted = third.pills(
        "Noise σ", sigmas, selection_mode="multi", default=sigmas, key="sigma", bind="query-params",
        help=TERMS["σ"],
    )  # fmt: skip
    methods = sorted(certified.method.unique())
    kept = st.pills(
        "Method", methods, selection_mode="multi", default=methods, format_func=title, key="method", bind="query-params"
    )
    certified = _of_recipes(certified)
    return certified[certified.sigma.map(lambda s: f"{s:g}" in wanted) & certified.method.isin(kept)]


def _of_recipes(certified: pd.DataFrame) -> pd.DataFrame:
    """A filter where runs were trained by several recipes, at first the one of most runs: a longer training is no better method."""
    trained = certified[certified.source == "trained"]
    recipes = trained.recipe.value_counts()
    if len(recipes) < 2:
        return certified
    epochs = {
        name: " or ".join(map(str, sorted(some))) for name, some in trained.groupby("recipe").epochs.unique().items()
    }
    wanted = st.pills(
        "Recipe", sorted(recipes.index), selection_mode="multi", default=recipes.index[:1].tolist(), key="recipe", bind="query-params",
        help=f"{TERMS['recipe']} Here {', '.join(f'`{name}`: {some} epochs' for name, some in epochs.items())}. Methods compare within one recipe.",
    )  # fmt: skip
    return certified[certified.recipe.isin(wanted) | (certified.source != "trained")]


def settings_label(mode: str, n: int, n0: int, alpha: float, image_set: str, runs: pd.DataFrame) -> str:
    """Mode, n, α and the images in words."""
    images = int(runs[(runs.n == n) & (runs.image_set == image_set)].images.iloc[0])
    every = image_set.removeprefix("test/every ").replace("/first", ", first")
    at_most = "" if mode == "fixed" else f"{mode}, at most "
    return f"{at_most}n = {int(n):,}, n0 = {int(n0):,}, α = {alpha:g}, {images:,} test images (every {every})"
