"""Certified accuracy against radius."""

import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import GREY, colour, dashes, run_labels


def certified_accuracy(runs: pd.DataFrame, curves: pd.DataFrame) -> go.Figure:
    """A line a run and, at each σ, the ceiling: the largest radius that n votes out of n can certify.

    runs: the rows of `queries.runs` to draw; curves: `queries.curves` of them.
    """
    styles = dashes(runs.sigma)
    points = dict(tuple(curves.groupby("run_id")))
    labels = run_labels(runs)
    figure = go.Figure()
    for run in runs.itertuples():
        line = points[run.run_id]
        figure.add_trace(
            {
                "type": "scatter",
                "mode": "lines",
                "x": line.r.to_list(),
                "y": line.certified_accuracy.to_list(),
                "name": labels[run.run_id],
                "line": {"color": colour(run.method), "dash": styles[run.sigma], "width": 2.5},
                "hovertemplate": "radius %{x:.2f}: %{y:.1%}<extra>" + labels[run.run_id] + "</extra>",
            }
        )
    for (sigma, ceiling), _ in runs.groupby(["sigma", "ceiling"]):
        figure.add_shape(
            {
                "type": "line",
                "x0": ceiling,
                "x1": ceiling,
                "y0": 0,
                "y1": 1,
                "line": {"color": GREY, "dash": styles[sigma], "width": 1},
            }
        )
        figure.add_annotation(
            x=ceiling,
            y=1,
            yanchor="bottom",
            text=f"σ = {sigma:g}",
            showarrow=False,
            font={"size": 11, "color": GREY},
        )
    figure.update_layout(
        xaxis={"title": {"text": "ℓ2 radius r (pixels in [0, 1])"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "certified accuracy at r"}, "range": [0, 1.06], "tickformat": ".0%"},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top"},
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        height=480,
        hovermode="closest",
    )
    return figure
