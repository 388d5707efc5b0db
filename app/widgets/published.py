"""Runs beside what the papers report."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from app.figures.acr import beside_published
from app.figures.palette import title
from app.figures.sigma_panel import about_outside
from app.widgets.figure import draw
from app.widgets.glossary import TERMS
from backend.recipes import on_another

VERDICTS = ("reproduced", "above", "below", "one published seed")


def beside_the_papers(
    shown: pd.DataFrame,
    common: pd.DataFrame,
    published: pd.DataFrame,
    peers: pd.DataFrame,
    setting: str,
    once: Callable,
) -> None:
    """ACR of each method, a panel a σ, beside what the papers report: their networks on the same terms (peers) where there are any."""
    whose = "what others report" if on_another(shown.dataset.iloc[0]) else "the paper's"
    st.header(f"Average certified radius beside {whose}", help=TERMS["ACR"])
    sigmas = sorted(shown.sigma.unique())
    figures = {
        sigma: once(("acr", sigma), lambda sigma=sigma: beside_published(common, published, sigma)) for sigma in sigmas
    }
    for column, sigma in zip(st.columns(len(sigmas)), sigmas, strict=True):
        with column:
            here = common[common.sigma == sigma]
            draw(
                figures[sigma], f"acr {sigma:.12g}", f"ACR of each method at σ = {sigma:g} beside {whose}",
                pd.concat([here[["method", "recipe", "sigma", "lam", "seed", "acr", "acr_se"]], published[published.sigma == sigma]]), setting,
            )  # fmt: skip
    st.caption(
        f"Filled: runs of this store, {setting}, one point a run, with the 95 % interval over the choice of images (not of the seed). "
        + about_outside(figures.values())
        + (
            "Hollow: the paper's released networks **on the same terms**, mean ± sd of a run"
            + (
                f": their logs of n = 100,000, cut down to the same {shown.iloc[0].images:,.0f} images and, on average over the choice, to {shown.iloc[0].n:,.0f} of the samples of each."
                if peers.recomputed.any()
                else ", from their logs."
            )
            if not peers.empty
            else "Hollow: what papers report. Where n or images differ, so do the ceilings, and the levels are **not** comparable one to one. "
            + " ".join(
                f"*{source}*, n = {rows.n.iloc[0]:,.0f} on {rows.images.iloc[0]:,.0f} images: {rows.reference.iloc[0]}."
                for source, rows in published.groupby("source")
            )
        )
    )


def reproduced(table: pd.DataFrame) -> None:
    """Cell by cell, whether the published values are reproduced. table: from reproduction.cells, maybe without a row."""
    if table.empty:
        return
    table = table.sort_values(["recipe", "epochs", "sigma"], kind="stable")
    said = []
    for (recipe, epochs), rows in table.groupby(["recipe", "epochs"]):
        counted = rows.verdict.value_counts()
        words = ", ".join(f"{word} in {counted[word]}" for word in VERDICTS if word in counted)
        said.append(f"{words} of {len(rows)} cells by the recipe `{recipe}` ({epochs} epochs)")
    st.markdown(f"**Are the published values reproduced?** They are {'; '.join(said)}.{_otherwise(table)}")
    method = table.method.map(title)
    if len(said) > 1:
        method += ", " + table.recipe
        if len(said) > table.recipe.nunique():  # the recipe does not tell them
            method += ", " + table.epochs.astype(str) + " epochs"
    table = table.assign(method=method)
    four = st.column_config.NumberColumn(format="%.4f")
    signed = st.column_config.NumberColumn(format="%+.4f")
    # The verdict first: it is what a telephone shows.
    shown = ["verdict", "method", "sigma", *table.loc[:, "difference":"half"], *table.loc[:, "ours":"their_seeds"]]
    if not table.collapsed.any():
        shown.remove("collapsed")
    st.dataframe(
        table[shown],
        hide_index=True, placeholder="–", alt="ours beside the published networks, cell by cell",
        column_config={"sigma": "σ", "difference": signed, "half": st.column_config.NumberColumn("±", format="%.4f"), "ours": four, "theirs": four,
                       "their_sd": st.column_config.NumberColumn("their sd", format="%.4f"), "our_seeds": "our seeds", "collapsed": st.column_config.NumberColumn("left out", help="seeds of ours whose training collapsed"), "their_seeds": "their seeds"},
    )  # fmt: skip
    st.caption(
        "Both on the same terms. *Reproduced*: the difference lies within ±, the 95 % interval of what other training seeds and other samples would make "
        "of it if ours vary as theirs do. All recipes are here: each row stands beside the published network alone. *Below* is what a shorter recipe costs, or a weaker attack (see how these networks were trained). "
        "Of so many intervals of 95 % one in twenty misses by chance."
    )


def _otherwise(table: pd.DataFrame) -> str:
    """The cells of the longest training that are above or below, and by how much, in words; "" where there are none."""
    most = table[(table.epochs == table.epochs.max()) & table.verdict.isin(["above", "below"])]
    names = [
        title(row.method) + (f" with {row.architecture}" if table.architecture.nunique() > 1 else "")
        for row in most.itertuples()
    ]
    said = [
        f"{name} at σ = {row.sigma:g} is {row.verdict}, by {abs(row.difference):.4f} ± {row.half:.4f} (`{row.recipe}`, {row.our_seeds} {'seed' if row.our_seeds == 1 else 'seeds'} of ours)"
        for name, row in zip(names, most.itertuples(), strict=True)
    ]
    return f" Of those trained longest: {'; '.join(said)}." if said else ""
