"""What figures with a panel a σ share: the layout of one, and what is said above it of what lies outside."""

from collections.abc import Iterable
from textwrap import wrap

import pandas as pd
import plotly.graph_objects as go

from app.figures.palette import GREY, title

LINE = 46  # characters of a note above a panel
FAR = 0.8  # of the best that learned: what lies below it is outside the first view


def panel(sigma: float, height: int, xaxis: dict, places: list[str] = ()) -> dict:
    """The layout of one σ's panel; places: what stands along y, the lowest first, where that is no number."""
    return {
        "title": {"text": f"σ = {sigma:g}", "font": {"size": 15}}, "xaxis": xaxis, "height": height,
        "yaxis": {"automargin": True} | ({"type": "category", "categoryorder": "array", "categoryarray": places} if places else {}),
        "legend": {"orientation": "h", "y": -max(0.3, 75 / (height - 170)), "yanchor": "top"},  # below the axis, in a low panel too
        "margin": {"l": 10, "r": 10, "t": 40, "b": 10},
    }  # fmt: skip


def entry(name: str, symbol: str) -> dict:
    """An entry of the legend alone, for marks that have the colour of what stands beside them."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [None],
        "y": [None],
        "name": name,
        "marker": {"symbol": symbol, "size": 11, "color": GREY},
    }


def name_outside(layout: dict, notes: list[str], edge: str) -> None:
    """Make room above a panel for what lies outside its first view, maybe nothing. edge: left or right, where the lines are flush."""
    if lines := [line for note in notes for line in wrap(note, LINE)]:
        place = {"x": int(edge == "right"), "xanchor": edge, "y": 1, "yanchor": "bottom"}
        words = {"text": "<br>".join(lines), "align": edge, "showarrow": False, "font": {"color": GREY}}
        layout["annotations"] = [words | place | {"xref": "paper", "yref": "paper"}]
        layout["margin"] = layout["margin"] | {"t": 25 + 16 * len(lines)}
        layout["height"] += 16 * len(lines)


def about_outside(figures: Iterable[go.Figure]) -> str:
    """A sentence for the caption, with a space behind it, where a panel names something; else nothing."""
    notes = (note for figure in figures for note in figure.layout.annotations)
    named = any(not note.showarrow for note in notes)  # those with an arrow are numbers in the panel
    return "What is named above a panel lies outside it: a double click shows it. " if named else ""


def shortly(label: str, sigma: float) -> str:
    """A run's name without what its panel says: σ, that it is of Gaussian + Consistency, as the numbers are, and that it collapsed."""
    return (
        label.replace(f", σ = {sigma:g}", "")
        .replace(", training collapsed", "")
        .removeprefix(f"{title('consistency')}, ")
    )


def span(values: pd.Series) -> list[float]:
    """From a little below the least to a little above the greatest; room for the marks where all are equal."""
    room = max(0.1 * (values.max() - values.min()), 0.005)
    return [values.min() - room, values.max() + room]
