"""Average certified radius: beside the published values, and against clean accuracy."""

import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import GREY, colour, dashes, run_label, title

ORDER = ("gaussian", "stability", "macer", "smoothadv", "consistency", "smoothadv_consistency")


def beside_published(runs: pd.DataFrame, published: pd.DataFrame, sigma: float) -> go.Figure:
    """ACR of each run of one σ (filled) beside the published mean over seeds (hollow, with ± sd)."""
    here = runs[runs.sigma == sigma]
    there = published[published.sigma == sigma]
    known = [m for m in ORDER if m in {*here.method, *there.method}]
    known += sorted({*here.method} - {*known})
    figure = go.Figure()
    for source, symbol in (("rebuttal", "diamond-open"), ("released", "square-open")):
        rows = there[there.source == source]
        figure.add_trace(
            {
                "type": "scatter",
                "mode": "markers",
                "x": rows.acr.to_list(),
                "y": [title(m) for m in rows.method],
                "error_x": {"array": rows.acr_sd.to_list(), "thickness": 1, "color": GREY},
                "marker": {"symbol": symbol, "size": 11, "color": GREY, "line": {"width": 2}},
                "name": {"rebuttal": "paper (authors' response)", "released": "paper (released logs)"}[source],
                "hovertemplate": "%{x:.4f}<extra>" + source + ", five seeds</extra>",
            }
        )
    figure.add_trace(
        {
            "type": "scatter",
            "mode": "markers",
            "x": here.acr.to_list(),
            "y": [title(m) for m in here.method],
            "marker": {"size": 13, "color": [colour(m) for m in here.method]},
            "text": [run_label(run) for run in here.itertuples()],
            "name": "Certscope",
            "hovertemplate": "%{x:.4f}<extra>%{text}</extra>",
        }
    )
    figure.update_layout(
        title={"text": f"σ = {sigma:g}", "font": {"size": 15}},
        xaxis={"title": {"text": "ACR"}},
        yaxis={"categoryorder": "array", "categoryarray": [title(m) for m in reversed(known)], "automargin": True},
        legend={"orientation": "h", "y": -0.3, "yanchor": "top"},
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        height=330,
    )
    return figure


def against_clean_accuracy(runs: pd.DataFrame) -> go.Figure:
    """Certified accuracy at r = 0 against ACR; runs of one σ and seed are joined along λ, from Gaussian."""
    styles = dashes(runs.sigma)
    figure = go.Figure()
    for (sigma, _), family in runs[runs.method.isin(["gaussian", "consistency"])].groupby(["sigma", "seed"]):
        path = family.assign(lam=family.lam.fillna(0)).sort_values("lam")
        figure.add_trace(
            {
                "type": "scatter",
                "mode": "lines",
                "x": path.certified_accuracy_0.to_list(),
                "y": path.acr.to_list(),
                "line": {"color": GREY, "dash": styles[sigma], "width": 1.5},
                "name": f"σ = {sigma:g}, along λ",
                "hoverinfo": "skip",
            }
        )
    for method, rows in runs.groupby("method"):
        figure.add_trace(
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": rows.certified_accuracy_0.to_list(),
                "y": rows.acr.to_list(),
                "text": rows.lam.map("λ = {:g}".format, na_action="ignore").fillna("").to_list(),
                "textposition": "top center",
                "marker": {"size": 11, "color": colour(method)},
                "customdata": [run_label(run) for run in rows.itertuples()],
                "name": title(method),
                "hovertemplate": "clean %{x:.1%}, ACR %{y:.4f}<extra>%{customdata}</extra>",
                "cliponaxis": False,
            }
        )
    figure.update_layout(
        xaxis={
            "title": {"text": "certified accuracy at r = 0"},
            "tickformat": ".1%",
            "autorangeoptions": {"clipmin": 0, "clipmax": 1.005},
        },
        yaxis={"title": {"text": "ACR"}},
        legend={"orientation": "h", "y": -0.25, "yanchor": "top"},
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        height=430,
    )
    return figure
