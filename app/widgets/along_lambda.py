"""What λ costs and buys: certified accuracy at 0 against ACR."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from app.figures.along_lambda import against_accuracy
from app.figures.sigma_panel import about_outside
from app.widgets.figure import draw
from app.widgets.glossary import TERMS
from app.widgets.verdicts import along, move, trained
from backend.reproduction import along_path, path_of
from backend.statistics import half_width, share_band
from backend.store import queries


def _over_images(settings: pd.DataFrame) -> str:
    """How far the choice of images may move one ACR, and one accuracy, in words."""
    halves = half_width(settings.acr_se, settings.images).groupby(settings.sigma).median()
    low, high = share_band((settings.certified_accuracy_0 * settings.images).to_numpy(), settings.images.to_numpy())
    points = pd.Series(100 * (high - low) / 2, settings.index).groupby(settings.sigma).median()
    said = ", ".join(
        f"± {half:.3f} and ± {points[sigma]:.1f} points at σ = {sigma:g}" for sigma, half in halves.dropna().items()
    )
    return (
        f"Another choice of images may move an ACR and an accuracy by about {said} (95 %), mostly those of all points together."
        if said
        else ""
    )


def show_along_lambda(shown: pd.DataFrame, their_path: pd.DataFrame, setting: str, once: Callable) -> None:
    """A panel a σ of what is shown, seeds together. their_path: `reproduction.along_lambda`, maybe no row; setting, once: see `claim`."""
    settings = once("settings of all", lambda: queries.over_seeds(shown.run_id))
    if len(settings) < 2:  # one point goes along nothing
        return
    st.header("Accuracy against robustness, along λ", help=TERMS["Pareto front"])
    columns = [
        "method",
        "recipe",
        "sigma",
        "lam",
        "hyper",
        "seeds",
        "certified_accuracy_0",
        "certified_accuracy_0_sd",
        "acr",
        "acr_se",
        "acr_sd",
    ]
    sigmas = sorted(settings.sigma.unique())
    path = once("path", lambda: path_of(shown))
    moves = once("along the path", lambda: along_path(path))
    if said := along(moves, path):
        st.markdown(said)
    figures = {
        sigma: once(("trade-off", sigma), lambda sigma=sigma: against_accuracy(settings, sigma, their_path))
        for sigma in sigmas
    }
    for column, sigma in zip(st.columns(len(sigmas)), sigmas, strict=True):
        with column:
            draw(
                figures[sigma], f"trade-off {sigma:.12g}",
                f"ACR against certified accuracy at r = 0 at σ = {sigma:g}, one point a setting", settings.loc[settings.sigma == sigma, columns], setting,
            )  # fmt: skip
            for row in moves[moves.sigma == sigma].itertuples():
                st.markdown("".join(f"{word}, " for word in trained(row, moves)) + move(row))
    st.caption(
        f"Up is more robust, right is more accurate: {setting}; several seeds are one point, their mean, with whiskers of ± sd. {_over_images(settings)} The numbers are λ of Gaussian + Consistency; another m or form of the loss has none, and is named where the mouse rests on it. "
        "No other run here beats one on the wide grey front in both; by how little, see those intervals. The path starts at plain Gaussian training; at λ = 0 Consistency still averages over m "
        "noises and weighs the entropy. "
        + ("" if their_path.empty else "Hollow: the paper's released networks along λ, on the same terms. ")
        + about_outside(figures.values())
        + "ACR never stands alone: easy images dominate it. More λ: `python -m backend sweep --methods consistency --lams 1 5 10 20`, or the **Runs** page."
    )
