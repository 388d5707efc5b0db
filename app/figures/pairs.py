"""Two runs on the same images."""

from html import escape
from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import BLUE, GREY, colour

LAYOUT = {"margin": {"l": 10, "r": 10, "t": 20, "b": 10}, "legend": {"orientation": "h", "y": -0.25, "yanchor": "top"}}


def radius_against_radius(both: pd.DataFrame, names: tuple[str, str]) -> go.Figure:
    """Each image at (gain of a, gain of b): above the diagonal b certifies more. both: idx, label, gain_a, gain_b."""
    most = float(max(both.gain_a.max(), both.gain_b.max(), 0.01))
    figure = go.Figure(
        [
            {
                "type": "scatter", "mode": "lines", "x": [0, most], "y": [0, most], "hoverinfo": "skip", "showlegend": False,
                "line": {"color": GREY, "dash": "dot", "width": 1},
            },
            {
                "type": "scattergl", "mode": "markers", "x": both.gain_a.to_list(), "y": both.gain_b.to_list(), "showlegend": False,
                "marker": {"size": 6, "opacity": 0.5, "color": BLUE},
                "text": [f"image {row.idx}, class {escape(str(row.label))}" for row in both.itertuples()],
                "hovertemplate": "%{text}: %{x:.3f} and %{y:.3f}<extra></extra>",
            },
        ]
    )  # fmt: skip
    a, b = ("<br>".join(wrap(f"radius by {name}", 45)) for name in names)
    return figure.update_layout(xaxis={"title": {"text": a}}, yaxis={"title": {"text": b}}, height=430, **LAYOUT)


def acr_by_samples(curves: dict[str, dict[int, float]], methods: list[str]) -> go.Figure:
    """ACR as it would be at fewer samples: {name: {n: acr}}, one line a run; methods give the colours."""
    figure = go.Figure(
        [
            {
                "type": "scatter", "mode": "lines+markers", "x": list(points), "y": list(points.values()), "name": name,
                "line": {"color": colour(method), "dash": dash}, "hovertemplate": "n = %{x:,}: %{y:.4f}<extra></extra>",
            }
            for (name, points), method, dash in zip(curves.items(), methods, ("solid", "dash"), strict=True)
        ]
    )  # fmt: skip
    return figure.update_layout(
        xaxis={"type": "log", "dtick": 1, "title": {"text": "samples n"}},
        yaxis={"title": {"text": "ACR"}},
        height=330,
        **LAYOUT,
    )


def p_distribution(shares: dict[str, np.ndarray], methods: list[str]) -> go.Figure:
    """The share of images whose estimated p_A is below p, one step line a run: {name: p of the images}."""
    figure = go.Figure(
        [
            {
                "type": "scatter", "mode": "lines", "x": np.sort(p).tolist(), "y": ((np.arange(len(p)) + 1) / len(p)).tolist(),
                "name": name, "line": {"color": colour(method), "dash": dash, "shape": "hv"},
                "hovertemplate": "p_A up to %{x:.4f}: %{y:.1%} of the images<extra></extra>",
            }
            for (name, p), method, dash in zip(shares.items(), methods, ("solid", "dash"), strict=True)
        ]
    )  # fmt: skip
    return figure.update_layout(
        xaxis={"title": {"text": "votes for the class, as a share"}, "range": [0.5, 1.005]},
        yaxis={"title": {"text": "share of images"}, "tickformat": ".0%"}, height=330, **LAYOUT,
    )  # fmt: skip


def differences(rows: pd.DataFrame, measure: str, words: str) -> go.Figure:
    """A measure of several runs less the reference's, with intervals: rows of run, method, and the measure with _low and _high."""
    rows = rows[::-1]
    value = rows[measure]
    figure = go.Figure(
        {
            "type": "scatter", "mode": "markers", "x": value.to_list(), "y": ["<br>".join(wrap(run, 24)) for run in rows.run],
            "error_x": {"array": (rows[f"{measure}_high"] - value).to_list(), "arrayminus": (value - rows[f"{measure}_low"]).to_list(), "color": GREY, "thickness": 1.5},
            "marker": {"size": 12, "color": [colour(method) for method in rows.method]},
            "hovertemplate": "%{y}: %{x:+.4f}<extra></extra>",
        }
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot", "width": 1})
    return figure.update_layout(
        xaxis={"title": {"text": words}}, yaxis={"automargin": True}, height=110 + 44 * len(rows), margin=LAYOUT["margin"]
    )  # fmt: skip
