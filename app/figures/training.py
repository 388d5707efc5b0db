"""How a training run went."""

from itertools import cycle

import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import BLUE, GREEN, GREY, PINK, VERMILION, colour
from backend.rows import EPOCH_COLUMNS


def losses(epochs: list[dict]) -> go.Figure:
    """Loss terms and accuracy under noise per epoch; epochs: rows of `Run.epochs`, at least one."""
    terms = [name for name in epochs[0] if name not in EPOCH_COLUMNS]
    terms += ["loss"] if len(terms) > 1 else []
    x = [int(row["epoch"]) for row in epochs]
    mode = "lines" if len(x) > 1 else "markers"
    figure = go.Figure()
    for name, shade in zip(terms, cycle((BLUE, VERMILION, GREEN, PINK))):
        figure.add_trace(
            {
                "type": "scatter",
                "x": x,
                "y": [row[name] for row in epochs],
                "mode": mode,
                "name": "loss, their sum" if name == "loss" else name.replace("_", " "),
                "line": {"color": shade, "width": 3 if name == "loss" else 2},
            }
        )
    figure.add_trace(
        {
            "type": "scatter",
            "x": x,
            "y": [row["accuracy"] for row in epochs],
            "name": "accuracy under noise",
            "yaxis": "y2",
            "mode": mode,
            "line": {"dash": "dot", "color": GREY},
        }
    )
    figure.update_layout(
        xaxis={"title": {"text": "epoch"}},
        yaxis={"title": {"text": "loss"}, "rangemode": "tozero"},
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.05],
            "dtick": 0.25,
            "tickformat": ".0%",
            "showgrid": False,
            "title": {"text": "accuracy under noise"},
        },
        legend={"orientation": "h", "y": -0.35, "yanchor": "top"},
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        height=320,
    )
    return figure


def beside(epochs: pd.DataFrame, quantity: str, words: str) -> go.Figure:
    """A quantity per epoch, a line a run. epochs: run, method, epoch and the quantity; of one method the later are the paler."""
    figure, seen = go.Figure(), []
    for (run, method), rows in epochs.groupby(["run", "method"], sort=False):
        figure.add_trace(
            {
                "type": "scatter", "x": rows.epoch.to_list(), "y": rows[quantity].to_list(), "name": run,
                "mode": "lines" if len(rows) > 1 else "markers", "line": {"color": colour(method), "width": 2},
                "opacity": max(0.3, 1 - 0.3 * seen.count(method)),
            }
        )  # fmt: skip
        seen.append(method)
    figure.update_layout(
        xaxis={"title": {"text": "epoch"}}, yaxis={"title": {"text": words}, "tickformat": ".0%" if quantity == "accuracy" else ""},
        showlegend=True, legend={"orientation": "h", "y": -0.3, "yanchor": "top"}, margin={"l": 10, "r": 10, "t": 20, "b": 10},
        height=340 + 20 * len(seen),
    )  # fmt: skip
    return figure
