"""Average certified radius beside the published values, and what one method has more than another."""

import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import GREY, colour, run_labels, symbols, title
from app.figures.sigma_panel import FAR, entry, name_outside, panel, shortly, span
from backend.statistics import half_width
from backend.training.methods import place

SOURCES = {
    "same terms": ("published networks, at this n on these images", "square-open"),
    "rebuttal": ("paper (authors' response)", "diamond-open"),
    "released": ("paper (released logs)", "square-open"),
    "cat-rs": ("logs of CAT-RS", "circle-open"),
}


def beside_published(runs: pd.DataFrame, published: pd.DataFrame, sigma: float) -> go.Figure:
    """ACR of each run of one σ (filled, with the 95 % interval over images) beside published means over seeds (hollow, with ± sd).

    published: rows with `source`, one of SOURCES. Collapsed runs far below the others would make one spot of them: they are outside the first view, and are named in it.
    """
    here, labels = runs[runs.sigma == sigma], run_labels(runs)
    there = published[published.sigma == sigma]
    known = sorted({*here.method, *there.method}, key=lambda method: (place(method), method))
    traces = [
        {
            "type": "scatter", "mode": "markers", "x": rows.acr.to_list(), "y": [title(m) for m in rows.method], "name": words,
            "error_x": {"array": rows.acr_sd.to_list(), "thickness": 1, "color": GREY},
            "marker": {"symbol": symbol, "size": 11, "color": GREY, "line": {"width": 2}},
            "text": [f"{words}, {seeds} {'seeds' if seeds > 1 else 'seed'}" for seeds in rows.seeds],
            "hovertemplate": "%{x:.4f}<extra>%{text}</extra>",
        }
        for source, (words, symbol) in SOURCES.items() if len(rows := there[there.source == source])
    ]  # fmt: skip
    kinds = symbols(runs.recipe)
    traces += [
        {
            "type": "scatter",
            "mode": "markers",
            "x": rows.acr.to_list(),
            "y": [title(m) for m in rows.method],
            "error_x": {"array": half_width(rows.acr_se, rows.images).tolist(), "thickness": 1.5, "color": GREY},
            "marker": {"size": 13, "symbol": kinds[recipe], "color": [colour(m) for m in rows.method]},
            "text": [labels[run_id] for run_id in rows.run_id],
            "hovertemplate": "%{x:.4f}<extra>%{text}</extra>",
            "showlegend": False,
        }
        for recipe, rows in here.groupby("recipe")
    ]
    traces += [entry("runs of this store" + (f", {recipe}" if len(kinds) > 1 else ""), kinds[recipe]) for recipe in here.recipe.unique()]  # fmt: skip
    layout = panel(sigma, 330, {"title": {"text": "ACR"}}, [title(m) for m in reversed(known)])
    collapsed = here.missing_classes > 0
    below = collapsed & (here.acr < FAR * here.acr[~collapsed].max())
    if below.any():
        seen = here[~below]
        half = half_width(seen.acr_se, seen.images)
        sd = there.acr_sd.fillna(0)
        layout["xaxis"]["range"] = span(pd.concat([seen.acr - half, seen.acr + half, there.acr - sd, there.acr + sd]))
        out = [f"{shortly(labels[run.run_id], sigma)}, ACR {run.acr:.2f}" for run in here[below].itertuples()]
        # Flush right: beside the names of methods is little room.
        name_outside(layout, [f"collapsed: {name}" for name in out], "right")
    return go.Figure(traces, layout)


def gains(rows: pd.DataFrame) -> go.Figure:
    """How much ACR each row's method has over its baseline, with its 95 % interval, beside a published gain (hollow).

    rows: of `reproduction.gains_over_seeds`, one σ, with `label`, `published_gain` and its `published_source`, one of SOURCES. Of several
    seeds each is a stroke.
    """
    rows = rows[::-1]
    theirs = rows[rows.published_gain.notna()]
    seeds = [(gain, row.label) for row in rows.itertuples() if len(row.seed_gains) > 1 for gain in row.seed_gains]
    traces = [
        entry("runs of this store", "circle"),
        {
            "type": "scatter", "mode": "markers", "x": theirs.published_gain.to_list(), "y": theirs.label.to_list(), "name": "published networks",
            "marker": {"symbol": [SOURCES[source][1] for source in theirs.published_source], "size": 11, "color": GREY, "line": {"width": 2}},
            "hovertemplate": "%{x:+.4f}<extra>%{y}, published networks</extra>",
        },
        {
            "type": "scatter", "mode": "markers", "x": rows.gain.to_list(), "y": rows.label.to_list(), "name": "runs of this store", "showlegend": False,
            "error_x": {"array": rows.half.to_list(), "thickness": 1.5, "color": GREY},
            "marker": {"size": 13, "color": [colour(method) for method in rows.baseline]},
            "hovertemplate": "%{x:+.4f}<extra>%{y}</extra>",
        },
        {
            "type": "scatter", "mode": "markers", "x": [gain for gain, _ in seeds], "y": [label for _, label in seeds], "name": "each seed",
            "marker": {"symbol": "line-ns-open", "size": 18, "color": GREY, "line": {"width": 1.5}},
            "hovertemplate": "%{x:+.4f}<extra>%{y}, one seed</extra>", "showlegend": bool(seeds),
        },
    ]  # fmt: skip
    zero = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": GREY, "dash": "dot", "width": 1},
    }
    xaxis = {"title": {"text": "gain in ACR"}, "tickformat": "+.3f", "nticks": 4}
    return go.Figure(
        traces,
        panel(rows.sigma.iloc[0], 200 + 22 * len(rows), xaxis, list(dict.fromkeys(rows.label))) | {"shapes": [zero]},
    )
