"""A figure with what a reader wants of it: its numbers, and itself as a file."""

import functools

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app.widgets.as_file import as_file, find_browser

FORMATS = {"SVG": "image/svg+xml", "PNG": "image/png", "PDF": "application/pdf"}
WIDTH = 900  # of a file; PNG has twice as many pixels
# On what is touched the bar would always be there, over legends; a double click undoes a zoom.
CONFIG = {"displayModeBar": False}


def draw(figure: go.Figure, key: str, alt: str, table: pd.DataFrame, terms: str = "") -> None:
    """Draw a figure, and offer its numbers as CSV and itself as SVG, PNG and PDF; nothing is made before it is asked for.

    key: unique on the page, names the files too. alt: what a screen reader says. table: the numbers. terms: how what is
    shown was certified, for who sees a file without the page.
    """
    if terms:
        table = table.assign(certified_with=terms)
    draw_alone(figure, alt, key)
    name = "certscope-" + "-".join(key.split())
    with st.popover("Download", icon=":material/download:", type="tertiary", key=f"{key} files"):
        st.download_button(
            "CSV", lambda: table.to_csv(index=False), f"{name}.csv", "text/csv",
            key=f"{key} CSV", on_click="ignore", width="stretch",
        )  # fmt: skip
        for kind, mime in FORMATS.items():
            st.download_button(
                kind, functools.partial(_rendered, figure, kind.lower(), alt, terms), f"{name}.{kind.lower()}", mime,
                key=f"{key} {kind}", on_click="ignore", width="stretch", disabled=not find_browser(),
            )  # fmt: skip
        if not find_browser():
            st.caption("Figures as files want Chrome or Chromium on the machine that serves this page.")


def draw_alone(figure: go.Figure, alt: str, key: str | None = None) -> None:
    """Draw a figure that passes, or whose numbers are had otherwise."""
    st.plotly_chart(figure, key=key, alt=alt, config=CONFIG)


def _rendered(figure: go.Figure, kind: str, alt: str, terms: str) -> bytes:
    """The file, with a title that says what the page around the figure says."""
    paper = go.Figure(figure).update_layout(template="plotly_white", font={"family": "sans-serif"})
    height = figure.layout.height or 450
    if terms:
        paper.update_layout(
            title={"text": alt[0].upper() + alt[1:].partition(", ")[0], "font": {"size": 15}, "subtitle": {"text": terms, "font": {"size": 11}}, "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 12}},
            margin={"t": (figure.layout.margin.t or 0) + 50}, height=(height := height + 50),
        )  # fmt: skip
    return as_file(paper, kind, WIDTH, height, scale=2 if kind == "png" else 1)
