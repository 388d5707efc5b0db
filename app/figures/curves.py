"""Certified accuracy against radius."""

from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import GREY, colour, dashes, title, translucent
from app.figures.rounding import round_down


def certified_accuracy(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    labels: dict[str, str],
    published: pd.DataFrame | None = None,
    envelope: pd.DataFrame | None = None,
) -> go.Figure:
    """A line a group of seeds (their mean, with a band where curves have low and high), and at each σ the ceiling: the largest radius that n votes out of n can certify.

    runs: rows of `queries.runs`, one a group; curves: `queries.group_curves`; published: `queries.published_curves` of the
    same σ, drawn thin; envelope: `queries.envelope`, drawn wide and pale behind; labels: `run_labels`.
    """
    styles = dashes(runs.sigma) if runs.sigma.nunique() > 1 else dict.fromkeys(runs.sigma, "solid")
    points = dict(tuple(curves.groupby("group_id")))
    traces = [] if envelope is None else [_best(method, line) for method, line in envelope.groupby("method")]
    opacity, most = _opacity(runs), dict(zip(runs.sigma, runs.ceiling, strict=True))
    for run in runs.itertuples():
        line = points[run.run_id]
        if "low" in line:
            traces.append(_band(line, colour(run.method)))
        if line.r.iloc[-1] == run.ceiling:  # beyond it nothing is certified
            line = pd.concat([line, line.tail(1).assign(certified_accuracy=0.0)])
        shown = _line(line, labels[run.run_id], colour(run.method), styles[run.sigma])
        traces.append(shown | {"opacity": opacity[run.run_id]})
    which, named = ["architecture", "method", "sigma", "lam", "hyper"], set(runs.method)
    theirs = () if published is None else published.groupby(which, dropna=False)
    for (_, method, sigma, lam, _), line in theirs:
        within = line[line.r <= most[sigma]]
        # Of a method that has a line above, in the colour of that; of another one its own entry in the legend, once.
        traces.append(_published(within, method, sigma, lam, styles[sigma]) | {"showlegend": method not in named})
        named.add(method)
    if len(theirs):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [None],
                "y": [None],
                "name": "published networks",
                "legendgroup": "published",
                "line": {"color": GREY, "width": 1},
            }
        )
    ceilings = sorted({(run.sigma, run.ceiling) for run in runs.itertuples()})
    layout = {
        "shapes": [
            {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": {"color": GREY, "dash": styles[sigma], "width": 1}}
            for sigma, at in ceilings
        ],
        "annotations": [
            {"x": at, "y": 1, "yanchor": "bottom", "text": f"ceiling, σ = {sigma:g}" if len(ceilings) == 1 else f"σ = {sigma:g}", "xanchor": "right", "showarrow": False, "font": {"size": 11, "color": GREY}}
            for sigma, at in ceilings
        ],
        "xaxis": {"title": {"text": "ℓ2 radius r (pixels in [0, 1])"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "certified accuracy at r"}, "range": [0, 1.06], "tickformat": ".0%"},
        "legend": {"orientation": "h", "y": -0.22, "yanchor": "top"}, "margin": {"l": 10, "r": 10, "t": 20, "b": 10},
        "height": 310 + 29 * min(16, max(6, sum(trace.get("showlegend", True) for trace in traces))),  # a longer legend takes nothing from the plot
        "hovermode": "closest",
    }  # fmt: skip
    return go.Figure(traces, layout)


def _opacity(runs: pd.DataFrame) -> dict[str, float]:
    """Of one colour and dash, a recipe is as pale in every figure of the same recipes: the longest stands out; of one recipe the later are the paler, those that collapsed the palest."""
    runs = runs.assign(collapsed=runs.missing_classes > 0).sort_values("collapsed", kind="stable")
    recipe = pd.Series(list(zip(-runs.epochs, runs.recipe, strict=True)), index=runs.index)
    place = recipe.map({one: number for number, one in enumerate(sorted(set(recipe)))})
    alike = runs.groupby(["method", "sigma", place])
    place = (place + alike.cumcount() / alike.run_id.transform("size")) / recipe.nunique()
    return dict(zip(runs.run_id, 1 - 0.75 * place, strict=True))


def _line(line: pd.DataFrame, label: str, shade: str, dash: str) -> dict:
    """A step at every radius: between two it claims what the larger one does."""
    return {
        "type": "scatter", "mode": "lines", "x": line.r.to_list(), "y": line.certified_accuracy.to_list(), "name": label,
        "line": {"color": shade, "dash": dash, "width": 2.5, "shape": "vh"},
        "text": [round_down(r, 4) for r in line.r], "hovertemplate": f"radius %{{text}}: %{{y:.1%}}<extra>{label}</extra>",
    }  # fmt: skip


def _published(line: pd.DataFrame, method: str, sigma: float, lam: float, dash: str) -> dict:
    """Thin; all published lines appear and disappear together."""
    label = f"published: {title(method)}, σ = {sigma:g}" + ("" if pd.isna(lam) else f", λ = {lam:g}")
    return _line(line, label, colour(method), dash) | {
        "name": f"published: {title(method)}", "legendgroup": "published", "opacity": 0.75,
        "line": {"color": colour(method), "dash": dash, "width": 1, "shape": "vh"},
    }  # fmt: skip


def _band(line: pd.DataFrame, shade: str) -> dict:
    """Between the columns low and high, in the steps of the line."""
    r, low, high = (np.repeat(values.to_numpy(), 2) for values in (line.r, line.low.clip(0, 1), line.high.clip(0, 1)))
    r, low, high = r[:-1], low[1:], high[1:]
    return {
        "type": "scatter", "mode": "lines", "line": {"width": 0}, "fill": "toself", "hoverinfo": "skip", "showlegend": False,
        "fillcolor": translucent(shade, 0.2), "x": [*r, *r[::-1]], "y": [*high, *low[::-1]],
    }  # fmt: skip


def ranking(ranked: pd.DataFrame) -> go.Figure:
    """Certified accuracy at one radius, a bar a row with its interval, the best on top. ranked: method, certified_accuracy, low, high, label; the best first."""
    rows = ranked[::-1]
    lines = [wrap(label, 30) for label in rows.label]
    bars = {
        "type": "bar", "orientation": "h", "x": rows.certified_accuracy.to_list(),
        "y": ["<br>".join(words) for words in lines],
        "marker": {"color": [colour(method) for method in rows.method]},
        "error_x": {
            "array": (rows.high - rows.certified_accuracy).to_list(), "thickness": 1.5, "color": GREY,
            "arrayminus": (rows.certified_accuracy - rows.low).to_list(),
        },
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"range": [0, 1.02], "tickformat": ".0%", "title": {"text": "certified accuracy at r"}},
        "yaxis": {"automargin": True}, "bargap": 0.45, "margin": {"l": 10, "r": 10, "t": 10, "b": 10}, "height": 90 + len(rows) * (12 + 17 * max(map(len, lines), default=1)),
    }  # fmt: skip
    return go.Figure([bars], layout)


def _best(method: str, line: pd.DataFrame) -> dict:
    """The best of a method's runs at every radius, wide and pale."""
    return {
        "type": "scatter", "mode": "lines", "x": line.r.to_list(), "y": line.certified_accuracy.to_list(),
        "name": f"{title(method)}, best σ", "line": {"color": colour(method), "width": 9, "shape": "vh"}, "opacity": 0.3,
        "text": [f"{sigma:g}" for sigma in line.sigma],
        "hovertemplate": "radius %{x:.2f}: %{y:.1%} at σ = %{text}<extra>" + title(method) + ", best σ</extra>",
    }  # fmt: skip
