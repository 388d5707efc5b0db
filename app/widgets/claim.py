"""The paper's claim: what Consistency gains over each baseline."""

import json
from collections.abc import Callable

import pandas as pd
import streamlit as st

from app.figures.acr import gains
from app.figures.palette import title
from app.widgets.figure import draw
from app.widgets.verdicts import answer, cost, telling, terms, trained, versus
from backend.recipes import in_words, whole_training
from backend.reproduction import PAIRS, gains_over_seeds, published_gain
from backend.store import queries
from backend.training.methods import place


def claim(common: pd.DataFrame, published: pd.DataFrame, setting: str, once: Callable) -> None:
    """Consistency's gain in ACR over each baseline, image by image, beside the published gain, at the same λ where it is told.

    setting: the terms of these runs in words; once: keeps what a name stands for.
    """
    rows = once("gains", lambda: _gains_of(common, published))
    st.header("Does Consistency beat the baselines?")
    if not (len(rows) and (rows.method == "consistency").any()):
        st.caption(
            "That wants a run of Gaussian + Consistency and one of a baseline, at equal σ, seed and training, among what is chosen above."
        )
        return
    st.markdown(answer(rows, whole_training(common.dataset.iloc[0])))
    st.markdown(cost(rows))
    sigmas = sorted(rows.sigma.unique())
    for column, sigma in zip(st.columns(len(sigmas)), sigmas, strict=True):
        here = rows[rows.sigma == sigma]
        with column:
            draw(
                once(("gains", sigma), lambda here=here: gains(here)), f"gain {sigma:.12g}",
                f"ACR of Consistency less that of each baseline at σ = {sigma:g}, with intervals", here.rename(columns={"half": "half_of_95_interval"}),
                setting,
            )  # fmt: skip
            alike = ["source", "architecture", "recipe", "epochs"]
            for _, alone in here[here.method == "consistency"].groupby(alike):
                whose = ", ".join(trained(alone.iloc[0], rows))
                st.markdown((f"{whose[0].upper()}{whose[1:]}: " if whose else "") + versus(alone))
    st.caption(terms(rows, setting))


def _apart(rows: pd.DataFrame) -> list[str]:
    """The hyper-parameters in which rows of one comparison differ, in words; "" for one alone."""
    names = {"lam": "λ", "baseline lam": "λ of the baseline"}
    known = [
        json.loads(row.hyper) | {f"baseline {name}": value for name, value in json.loads(row.baseline_hyper).items()}
        for row in rows.itertuples()
    ]
    telling = [name for name in set().union(*known) if any(one.get(name) != known[0].get(name) for one in known)]
    telling.sort(key=lambda name: (name not in names, name))
    return [
        ", ".join(f"{names.get(name, name)} = {in_words(one[name])}" for name in telling if name in one)
        for one in known
    ]


def _gains_of(common: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Consistency's gain over each baseline, mean over seeds, with what published networks gain, and whose they are; maybe no row."""
    rows = queries.acr_gains(common.run_id, PAIRS)
    if rows.empty:
        return rows
    cell = ["sigma", "method", "baseline", "source", "architecture", "recipe", "epochs"]
    rows = gains_over_seeds(rows, [*cell, "hyper", "baseline_hyper"])
    rows["setting"] = ""
    for _, several in rows.groupby(cell):  # where nothing is as its recipe has it, all settings are shown
        rows.loc[several.index, "setting"] = _apart(several)
    rows["label"] = rows.baseline.map(title).where(
        rows.method == "consistency", "on top of SmoothAdv"
    )  # every other row is of Consistency over Gaussian augmentation
    rows["label"] += rows.setting.where(rows.setting == "", ", " + rows.setting)
    for name in telling(rows):
        rows["label"] += ", " + rows[name].astype(str) + (" epochs" if name == "epochs" else "")
    theirs = [published_gain(published, row) for row in rows.itertuples()]
    rows["published_gain"] = [gain for gain, _ in theirs]
    rows["published_source"] = [source for _, source in theirs]
    rows["place"] = rows.baseline.map(place)
    return rows.sort_values(["method", "recipe", "place"]).drop(
        columns=["hyper", "baseline_hyper", "place"]
    )  # Consistency alone first
