"""Average certified radius: beside the published values, and against certified accuracy at 0."""

import json
from collections import Counter
from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import GREY, colour, lambda_path, run_labels, seeds, symbols, title
from backend.statistics import half_width, pareto
from backend.training.methods import place

LINE = 46  # characters of a note above a panel
FAR = 0.8  # of the best accuracy: what lies below it is outside the first view along λ
AXES = ["certified_accuracy_0", "acr"]
SOURCES = {
    "same terms": ("published networks, at this n on these images", "square-open"),
    "rebuttal": ("paper (authors' response)", "diamond-open"),
    "released": ("paper (released logs)", "square-open"),
    "cat-rs": ("logs of CAT-RS", "circle-open"),
}


def beside_published(runs: pd.DataFrame, published: pd.DataFrame, sigma: float) -> go.Figure:
    """ACR of each run of one σ (filled, with the 95 % interval over images) beside published means over seeds (hollow, with ± sd).

    published: rows with `source`, one of SOURCES. Collapsed runs are outside the first view, and are named in it.
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
    traces += [_entry("runs of this store" + (f", {recipe}" if len(kinds) > 1 else ""), kinds[recipe]) for recipe in here.recipe.unique()]  # fmt: skip
    layout = _panel(sigma, 330, {"title": {"text": "ACR"}}, [title(m) for m in reversed(known)])
    collapsed = here.missing_classes > 0
    if collapsed.any() and not collapsed.all():
        seen = here[~collapsed]
        half = half_width(seen.acr_se, seen.images)
        sd = there.acr_sd.fillna(0)
        layout["xaxis"]["range"] = _span(pd.concat([seen.acr - half, seen.acr + half, there.acr - sd, there.acr + sd]))
        out = [f"{_shortly(labels[run.run_id], sigma)}, ACR {run.acr:.2f}" for run in here[collapsed].itertuples()]
        # Flush right: beside the names of methods is little room.
        _name_outside(layout, [f"collapsed: {name}" for name in out], "right")
    return go.Figure(traces, layout)


def _entry(name: str, symbol: str) -> dict:
    """An entry of the legend alone, for marks that have the colour of what stands beside them."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [None],
        "y": [None],
        "name": name,
        "marker": {"symbol": symbol, "size": 11, "color": GREY},
    }


def _panel(sigma: float, height: int, xaxis: dict, places: list[str] = ()) -> dict:
    """The layout of one σ's panel; places: what stands along y, the lowest first, where that is no number."""
    return {
        "title": {"text": f"σ = {sigma:g}", "font": {"size": 15}}, "xaxis": xaxis, "height": height,
        "yaxis": {"automargin": True} | ({"type": "category", "categoryorder": "array", "categoryarray": places} if places else {}),
        "legend": {"orientation": "h", "y": -max(0.3, 75 / (height - 170)), "yanchor": "top"},  # below the axis, in a low panel too
        "margin": {"l": 10, "r": 10, "t": 40, "b": 10},
    }  # fmt: skip


def gains(rows: pd.DataFrame) -> go.Figure:
    """How much ACR each row's method has over its baseline, with its 95 % interval, beside a published gain (hollow).

    rows: of `reproduction.gains_over_seeds`, one σ, with `label`, `published_gain` and its `published_source`, one of SOURCES. Of several
    seeds each is a stroke.
    """
    rows = rows[::-1]
    theirs = rows[rows.published_gain.notna()]
    seeds = [(gain, row.label) for row in rows.itertuples() if len(row.seed_gains) > 1 for gain in row.seed_gains]
    traces = [
        _entry("runs of this store", "circle"),
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
        _panel(rows.sigma.iloc[0], 200 + 22 * len(rows), xaxis, list(dict.fromkeys(rows.label))) | {"shapes": [zero]},
    )


def against_accuracy(runs: pd.DataFrame, sigma: float, published: pd.DataFrame) -> go.Figure:
    """Certified accuracy at r = 0 against ACR at one σ; runs that differ in λ alone are joined, from Gaussian; and the Pareto front.

    runs: rows of `queries.over_seeds`; published: rows of `queries.published_groups` that make a path along λ, maybe none.
    Collapsed runs and others far below would make one spot of the rest: they are outside the first view, and are named in it.
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
    """The layout around what has not collapsed and is not far below the others, ours and published; the rest is named in it."""
    collapsed = runs.missing_classes > 0
    best = runs.certified_accuracy_0[~collapsed | collapsed.all()].max()
    below = collapsed | (runs.certified_accuracy_0 < FAR * best)
    seen = runs if below.all() else runs[~below]
    far = released.certified_accuracy_0 < FAR * seen.certified_accuracy_0.max()
    published = released.loc[~far, AXES]
    whiskers = [seen[AXES] + sign * seen[[f"{axis}_sd" for axis in AXES]].fillna(0).to_numpy() for sign in (-1, 1)]
    seen = pd.concat([*whiskers, published])
    xaxis = {"title": {"text": "certified accuracy at r = 0"}, "tickformat": ".1%", "nticks": 6}
    xaxis["range"] = _span(seen.certified_accuracy_0)
    layout = _panel(sigma, 500, xaxis) | {"yaxis": {"title": {"text": "ACR"}, "range": _span(seen.acr)}}
    outside = [
        f"{'collapsed' if collapsed[run.Index] else 'far below'}: {_shortly(labels[run.run_id], sigma)}, ACR {run.acr:.2f}"
        for run in runs[below].itertuples()
    ] * (not below.all())
    if far.any():
        outside.append("published, far below: " + ", ".join(map(_place, released.lam[far])))
    _name_outside(layout, outside, "left")
    return layout


def _name_outside(layout: dict, notes: list[str], edge: str) -> None:
    """Make room above a panel for what lies outside its first view, maybe nothing. edge: left or right, where the lines are flush."""
    if lines := [line for note in notes for line in wrap(note, LINE)]:
        place = {"x": int(edge == "right"), "xanchor": edge, "y": 1, "yanchor": "bottom"}
        words = {"text": "<br>".join(lines), "align": edge, "showarrow": False, "font": {"color": GREY}}
        layout["annotations"] = [words | place | {"xref": "paper", "yref": "paper"}]
        layout["margin"] = layout["margin"] | {"t": 25 + 16 * len(lines)}
        layout["height"] += 16 * len(lines)


def _shortly(label: str, sigma: float) -> str:
    """A run's name without what its panel says: σ, that it is of Gaussian + Consistency, as the numbers are, and that it collapsed."""
    return (
        label.replace(f", σ = {sigma:g}", "")
        .replace(", training collapsed", "")
        .removeprefix(f"{title('consistency')}, ")
    )


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


def _span(values: pd.Series) -> list[float]:
    """From a little below the least to a little above the greatest; room for the marks where all are equal."""
    room = max(0.1 * (values.max() - values.min()), 0.005)
    return [values.min() - room, values.max() + room]


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
