"""The trade-off: average certified radius against certified accuracy at 0, along λ."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import GREY, colour, lambda_path, run_labels, seeds, symbols, title
from app.figures.sigma_panel import FAR, name_outside, panel, shortly, span
from backend.statistics import half_width, pareto

AXES = ["certified_accuracy_0", "acr"]


def against_accuracy(runs: pd.DataFrame, sigma: float, published: pd.DataFrame) -> go.Figure:
    """Certified accuracy at r = 0 against ACR at one σ; runs that differ in λ alone are joined, from Gaussian; and the Pareto front.

    runs: rows of `queries.over_seeds`; published: rows of `queries.published_groups` that make a path along λ, maybe none.
    Runs far below would make one spot of the others: they are outside the first view, and are named in it.
    """
    labels, kinds, usual, runs = run_labels(runs), symbols(runs.recipe), _usual_form(runs), runs[runs.sigma == sigma]
    released = published[published.sigma == sigma].sort_values("lam", na_position="first")
    front = runs[pareto(runs.certified_accuracy_0.to_numpy(), runs.acr.to_numpy())].sort_values("certified_accuracy_0")
    traces = [
        {
            "type": "scatter", "mode": "lines", "x": front.certified_accuracy_0.to_list(), "y": front.acr.to_list(),
            "line": {"color": GREY, "width": 6}, "opacity": 0.45, "name": "Pareto front", "hoverinfo": "skip", "showlegend": len(front) > 1,
        },
        *_released(released),
        *(
            {
                "type": "scatter", "mode": "lines", "x": [run.certified_accuracy_0 for run in path], "y": [run.acr for run in path],
                "line": {"color": colour("consistency"), "width": 1.5}, "name": "along λ", "hoverinfo": "skip",
                "legendgroup": "along λ", "showlegend": number == 0,
            }
            for number, path in enumerate(_paths(runs, usual))
        ),
        *(
            {
                "type": "scatter", "mode": "markers", "x": rows.certified_accuracy_0.to_list(), "y": rows.acr.to_list(),
                "marker": {"size": 11, "symbol": kinds[recipe], "color": colour(method)}, "cliponaxis": False,
                "name": title(method) + (f", {recipe}" if len(kinds) > 1 else ""),
                **{
                    f"error_{axis}": {"array": rows[f"{name}_sd"].fillna(0).to_list(), "thickness": 1, "width": 0, "color": GREY}
                    for axis, name in (("x", "certified_accuracy_0"), ("y", "acr"))
                },
                "customdata": [[labels[run.run_id], half_width(run.acr_se, run.images)] for run in rows.itertuples()],
                "hovertemplate": "certified accuracy at 0 %{x:.1%}, ACR %{y:.4f} ± %{customdata[1]:.4f}<extra>%{customdata[0]}</extra>",
            }
            for (method, recipe), rows in runs.groupby(["method", "recipe"])
        ),
    ]  # fmt: skip
    layout = _view(sigma, runs, released, labels)
    entries = sum(trace.get("showlegend", True) for trace in traces)
    layout["height"] += 24 * max(0, entries - 5)  # a longer legend takes nothing from the plot
    usually = [run.run_id for run in runs.itertuples() if run.method == "consistency" and _form(run) == usual]
    numbered = runs[runs.run_id.isin(usually) & runs.lam.notna()].sort_values("lam")
    layout["annotations"] = [
        *layout.get("annotations", []),
        *_numbers(numbered, runs, layout["xaxis"]["range"], layout["yaxis"]["range"]),
    ]
    return go.Figure(traces, layout)


def _numbers(numbered: pd.DataFrame, runs: pd.DataFrame, across: list[float], up: list[float]) -> list[dict]:
    """λ beside each of the points, on a leader that shows whose it is: each where marks and numbers leave most room.

    across, up: the ranges of the axes. What lies outside them has none.
    """
    side = 300  # pixels of a panel, about

    def place_of(rows: pd.DataFrame) -> np.ndarray:  # (N, 2), in pixels, up is positive
        x, y = (
            (rows[name] - low) / (high - low) for name, (low, high) in (("certified_accuracy_0", across), ("acr", up))
        )
        return side * np.column_stack([x, y])

    marks = place_of(runs)
    taken, said = [mark for mark in marks if np.isfinite(mark).all()], []
    around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    for run, at in zip(numbered.itertuples(), place_of(numbered), strict=True):
        if not ((at >= 0) & (at <= side)).all():
            continue
        places = at + np.concatenate([far * np.column_stack([np.cos(around), np.sin(around)]) for far in (22, 36)])
        room = np.linalg.norm(places[:, None] - np.array(taken)[None], axis=2).min(1)
        room[((places < 0) | (places > side - 8)).any(1)] = 0
        best = places[
            int((room.clip(max=24) - [0.01 * i for i in range(len(places))]).argmax())
        ]  # near where it is as good
        taken.append(best)
        said.append({
            "x": run.certified_accuracy_0, "y": run.acr, "ax": best[0] - at[0], "ay": at[1] - best[1], "text": f"{run.lam:g}",
            "showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": GREY, "standoff": 5,
        })  # fmt: skip
    return said


def _view(sigma: float, runs: pd.DataFrame, released: pd.DataFrame, labels: dict[str, str]) -> dict:
    """The layout around what is not far below the others, ours and published; the rest is named in it."""
    collapsed = runs.missing_classes > 0
    best = runs.certified_accuracy_0[~collapsed | collapsed.all()].max()
    below = runs.certified_accuracy_0 < FAR * best
    seen = runs[~below]
    far = released.certified_accuracy_0 < FAR * seen.certified_accuracy_0.max()
    published = released.loc[~far, AXES]
    whiskers = [seen[AXES] + sign * seen[[f"{axis}_sd" for axis in AXES]].fillna(0).to_numpy() for sign in (-1, 1)]
    seen = pd.concat([*whiskers, published])
    xaxis = {"title": {"text": "certified accuracy at r = 0"}, "tickformat": ".1%", "nticks": 6}
    xaxis["range"] = span(seen.certified_accuracy_0)
    layout = panel(sigma, 500, xaxis) | {"yaxis": {"title": {"text": "ACR"}, "range": span(seen.acr)}}
    outside = [
        f"{'collapsed' if collapsed[run.Index] else 'far below'}: {shortly(labels[run.run_id], sigma)}, ACR {run.acr:.2f}"
        for run in runs[below].itertuples()
    ]
    if far.any():
        outside.append("published, far below: " + ", ".join(map(_place, released.lam[far])))
    name_outside(layout, outside, "left")
    return layout


def _released(published: pd.DataFrame) -> list[dict]:
    """The published networks along λ, joined from Gaussian on, a trace an architecture."""
    several = published.architecture.nunique() > 1
    traces = []
    for architecture, path in published.groupby("architecture"):
        whose = f"published, {architecture}" if several else "published"
        traces.append({
            "type": "scatter", "mode": "lines+markers", "x": path.certified_accuracy_0.to_list(), "y": path.acr.to_list(),
            "line": {"color": GREY, "width": 1, "dash": "dot"}, "marker": {"symbol": "square-open", "size": 10, "color": GREY},
            "name": whose.replace("published", "published networks"),
            "text": [f"{whose}, {_place(lam)}" + seeds(n) for lam, n in zip(path.lam, path.seeds, strict=True)],
            "hovertemplate": "certified accuracy at 0 %{x:.1%}, ACR %{y:.4f}<extra>%{text}</extra>",
        })  # fmt: skip
    return traces


def _place(lam: float) -> str:
    """Where on a path along λ; Gaussian, its start, has none."""
    return f"λ = {lam:g}" if pd.notna(lam) else title("gaussian")


def _paths(runs: pd.DataFrame, usual: tuple) -> list[list]:
    """Consistency's runs that differ in λ alone, from Gaussian's at the same settings on, in the order of λ; a lone ablation is no path."""
    along: dict[tuple, dict] = {}
    runs = runs.sort_values(["lam", "missing_classes"])  # of seeds at one λ those that did not collapse
    for run in runs[runs.method == "consistency"].itertuples():
        along.setdefault((lambda_path(run), _form(run)), {}).setdefault(run.lam, run)
    starts = {lambda_path(run): run for run in runs[runs.method == "gaussian"][::-1].itertuples()}
    return [
        [starts[path], *some.values()]
        for (path, form), some in along.items()
        if path in starts and (len(some) > 1 or form == usual)
    ]


def _form(run) -> tuple:
    """The hyper-parameters of a Consistency run but for λ."""
    return tuple((name, str(value)) for name, value in json.loads(run.hyper).items() if name != "lam")


def _usual_form(runs: pd.DataFrame) -> tuple:
    """That of most Consistency runs; () where there are none."""
    forms = Counter(_form(run) for run in runs[runs.method == "consistency"].itertuples())
    return forms.most_common(1)[0][0] if forms else ()
