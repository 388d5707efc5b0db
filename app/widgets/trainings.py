"""How several runs were trained, one beside the other."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.figures.training import beside
from app.widgets.attempt import plain
from app.widgets.figure import draw
from app.widgets.glossary import TERMS
from backend.run import Run, RunError


@st.cache_data(max_entries=500, show_spinner=False)
def _epochs(folder: str, fingerprint: str) -> pd.DataFrame:
    """Epoch, loss and accuracy under noise of a run; fingerprint: another where its files are others. Raises RunError."""
    rows = [(row["epoch"], row["loss"], row["accuracy"]) for row in Run(folder).epochs()]
    return pd.DataFrame(rows, columns=["epoch", "loss", "accuracy"])


def show_trainings(groups: dict[str, Sequence[str]], methods: list[str]) -> None:
    """Loss and accuracy under noise per epoch of each group {name: folders of its seeds}, means over the seeds that were trained here."""
    lines = []
    for (name, folders), method in zip(groups.items(), methods, strict=True):
        try:
            seeds = [_epochs(folder, Run(folder).fingerprint()) for folder in folders]
        except (RunError, OSError) as error:
            st.error(plain(str(error)), icon=":material/broken_image:")
            continue
        mean = pd.concat(seeds).groupby("epoch", as_index=False).mean()
        lines.append(mean.assign(run=name, method=method))
    table = pd.concat(lines) if lines else pd.DataFrame({"epoch": []})
    if table.empty:
        return
    st.header("How they were trained")
    for column, (name, words) in zip(
        st.columns(2), {"accuracy": "accuracy under noise", "loss": "loss"}.items(), strict=True
    ):
        with column:
            draw(beside(table, name, words), f"training {name}", f"{words} per epoch of every run", table)
    st.caption(
        f"Means over the seeds that are compared. {TERMS['accuracy under noise']} Each method has a loss of its own: their levels do not compare."
    )
