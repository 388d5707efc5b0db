"""Classifiers of the plane: their regions, boundaries and certified balls."""

from math import floor

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import BLUE, GREEN, GREY, PINK, colour, translucent

CLASSES = (BLUE, "#E3B505", GREEN, PINK)  # blue, yellow, green, pink: apart for the colour-blind too
OUTCOMES = {  # name, colour and dash of the ball, symbol of the point
    "right": ("right, within its certified ball", "#000000", "solid", "circle"),
    "wrong": ("wrong, within its certified ball", "#B22222", "dash", "x"),
    "abstains": ("abstains: no ball", "#000000", "dot", "diamond-open"),
}
TURN = np.append(np.linspace(0, 2 * np.pi, 61), np.nan)  # a circle, and the lift of the pen after it


def regions(
    p: np.ndarray, margins: np.ndarray, classes: tuple[str, ...], training: pd.DataFrame, test: pd.DataFrame
) -> go.Figure:
    """Shaded: the class that leads in p (K, G, G), the stronger the surer. Lines: where margins (K, G, G) of the other classifier are zero.

    training: x, y, label. test: x, y, label, predict, radius, outcome (a key of OUTCOMES); either may be empty.
    """
    line = np.linspace(0, 1, p.shape[-1])
    figure = go.Figure()
    for c, name in enumerate(classes):
        shade = CLASSES[c]
        figure.add_trace(
            {
                "type": "heatmap", "x": line, "y": line, "z": np.where(p.argmax(0) == c, p[c], np.nan).astype(np.float32),
                "zmin": 1 / len(classes), "zmax": 1, "showscale": False, "hoverongaps": False,
                "colorscale": [[0, translucent(shade, 0.08)], [1, translucent(shade, 0.5)]],
                "hovertemplate": "class " + name + " with %{z:.1%}<extra></extra>",
            }
        )  # fmt: skip
    for margin in margins[:-1]:  # the last class meets only others
        figure.add_trace(
            {
                "type": "contour", "x": line, "y": line, "z": margin.astype(np.float32), "showscale": False, "hoverinfo": "skip",
                "contours": {"start": 0, "end": 0, "size": 1, "coloring": "none"}, "line": {"color": "#444444", "width": 2, "dash": "dash"},
                "showlegend": False,
            }
        )  # fmt: skip
    figure.add_trace(_training(training))
    for outcome in OUTCOMES:
        figure.add_traces(_tested(test[test.outcome == outcome], outcome, classes))
    return _square(figure)


def data(training: pd.DataFrame) -> go.Figure:
    """The training points alone: x, y, label."""
    return _square(go.Figure(_training(training) | {"marker": {**_training(training)["marker"], "size": 7}}))


def curves(lines: pd.DataFrame, names: dict[str, str], ceiling: float) -> go.Figure:
    """Certified accuracy against radius, a line a method, with its interval, up to the ceiling of n. lines: method, r, share, low, high."""
    figure = go.Figure()
    for (method, rows), dash in zip(lines.groupby("method", sort=False), ("solid", "dash"), strict=False):
        shade = colour(method)
        figure.add_trace(
            {
                "type": "scatter", "mode": "lines", "x": [*rows.r, *rows.r[::-1]], "y": [*rows.high, *rows.low[::-1]], "fill": "toself",
                "fillcolor": translucent(shade, 0.15), "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
            }
        )  # fmt: skip
        figure.add_trace(
            {
                "type": "scatter", "mode": "lines", "x": rows.r.to_list(), "y": rows.share.to_list(), "name": names[method],
                "line": {"color": shade, "dash": dash, "width": 2.5},
                "hovertemplate": "radius %{x:.3f}: %{y:.1%}<extra>" + names[method] + "</extra>",
            }
        )  # fmt: skip
    figure.add_vline(x=ceiling, line={"color": GREY, "width": 1})
    figure.update_layout(
        xaxis={"title": {"text": "ℓ2 radius r (sides of the plane)"}, "range": [0, 1.04 * ceiling]},
        yaxis={"title": {"text": "certified accuracy at r"}, "range": [0, 1.02], "tickformat": ".0%"},
        legend={"orientation": "h", "y": -0.25, "yanchor": "top"}, margin={"l": 10, "r": 10, "t": 10, "b": 10}, height=360,
    )  # fmt: skip
    return figure


def _training(training: pd.DataFrame) -> dict:
    return {
        "type": "scatter", "mode": "markers", "x": training.x.to_list(), "y": training.y.to_list(), "name": "training points",
        "marker": {"size": 4, "opacity": 0.7, "color": [CLASSES[label] for label in training.label]}, "hoverinfo": "skip",
        "showlegend": False,
    }  # fmt: skip


def _tested(test: pd.DataFrame, outcome: str, classes: tuple[str, ...]) -> list[dict]:
    """Test points of one outcome, in the colour of their class where one was answered, and their balls. Where there are none the legend is as high all the same."""
    name, ink, dash, symbol = OUTCOMES[outcome]
    both = {"type": "scatter", "legendgroup": outcome, "name": name}
    balls = test[test.radius > 0]
    circle = {
        **both, "mode": "lines", "showlegend": False, "hoverinfo": "skip", "line": {"color": ink, "width": 1.1, "dash": dash},
        "x": (balls.x.to_numpy()[:, None] + balls.radius.to_numpy()[:, None] * np.cos(TURN)).ravel(),
        "y": (balls.y.to_numpy()[:, None] + balls.radius.to_numpy()[:, None] * np.sin(TURN)).ravel(),
    }  # fmt: skip
    points = {
        **both, "mode": "markers", "x": test.x.to_list() or [None], "y": test.y.to_list() or [None], "showlegend": True,
        "marker": {
            "symbol": symbol, "size": 10, "color": [CLASSES[label] for label in test.label] if symbol != "diamond-open" else ink,
            "line": {"color": ink, "width": 1.5},
        },
        "text": [
            f"class {classes[row.label]}; answer: {classes[row.predict] if row.predict >= 0 else 'none'}; radius {floor(row.radius * 1000) / 1000:.3f}"  # a claim is never rounded up
            for row in test.itertuples()
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
    return [circle, points]


def _square(figure: go.Figure) -> go.Figure:
    """[0, 1]² at equal scale, on white in every theme: the ink of balls and boundaries is dark."""
    axis = {"range": [0, 1], "constrain": "domain", "showgrid": False, "zeroline": False, "dtick": 0.2}
    return figure.update_layout(
        xaxis=axis, yaxis=axis | {"scaleanchor": "x", "scaleratio": 1, "constraintoward": "top"}, plot_bgcolor="white", height=450, hovermode="closest",
        legend={
            "orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0.5, "xanchor": "center", "bgcolor": "white", "font": {"color": "#31333F"},
        },
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
    )  # fmt: skip
