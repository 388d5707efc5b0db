"""What votes certify: radius against p_A and against n, and where an average radius comes from."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app.figures.palette import BLUE, GREY, VERMILION, colour

NINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
LAYOUT = {
    "margin": {"l": 10, "r": 10, "t": 20, "b": 10}, "legend": {"orientation": "h", "y": -0.25, "yanchor": "top"}, "height": 380,
}  # fmt: skip


def radius_by_p(
    p: Sequence[float], exact: Sequence[float], certified: Sequence[float], ceiling: float, chosen: tuple[float, float], n: int
) -> go.Figure:  # fmt: skip
    """Radius against p_A: the exact one, what n samples certify of it, their ceiling, and the chosen point (p, radius).

    The axis shows how rare the other votes are: each ten times rarer is as wide.
    """
    lines = [
        ("exact radius, if p_A were known", exact, {"color": GREY, "dash": "dot"}),
        (f"certified by {n:,} samples", certified, {"color": BLUE, "width": 3}),
        ("ceiling", [ceiling] * len(p), {"color": VERMILION, "dash": "dash"}),
    ]
    figure = go.Figure(
        [
            {
                "type": "scatter", "mode": "lines", "x": [1 - v for v in p], "y": list(y), "name": name, "line": line,
                "customdata": list(p), "hovertemplate": "p_A = %{customdata:.5f}: %{y:.3f}<extra></extra>",
            }
            for name, y, line in lines
        ]
    )  # fmt: skip
    figure.add_trace(
        {
            "type": "scatter", "mode": "markers", "x": [1 - chosen[0]], "y": [chosen[1]], "name": "chosen",
            "marker": {"size": 13, "color": BLUE}, "hovertemplate": "%{y:.3f}<extra>chosen</extra>",
        }
    )  # fmt: skip
    return figure.update_layout(
        xaxis={
            "type": "log", "autorange": "reversed", "title": {"text": "p_A"}, "tickvals": [1 - v for v in NINES],
            "ticktext": [f"{v:g}" for v in NINES],
        },
        yaxis={"title": {"text": "ℓ2 radius"}, "rangemode": "tozero"}, **LAYOUT,
    )  # fmt: skip


def samples_by_radius(points: Sequence[tuple[float, int]], exact: float, chosen: tuple[float, int] | None) -> go.Figure:
    """Samples against the radius that they are to certify: points (r, n), the exact radius as a wall, and the chosen point."""
    figure = go.Figure(
        {
            "type": "scatter", "mode": "lines", "x": [r for r, _ in points], "y": [n for _, n in points], "name": "samples needed",
            "line": {"color": BLUE, "width": 3}, "hovertemplate": "radius %{x:.3f}: n = %{y:,}<extra></extra>",
        }
    )  # fmt: skip
    if chosen:
        figure.add_trace(
            {
                "type": "scatter", "mode": "markers", "x": [chosen[0]], "y": [chosen[1]], "name": "chosen",
                "marker": {"size": 13, "color": BLUE}, "hovertemplate": "n = %{y:,}<extra>chosen</extra>",
            }
        )  # fmt: skip
    figure.add_vline(
        x=exact, line={"color": GREY, "dash": "dot"}, annotation={"text": "exact radius", "xanchor": "right"}
    )
    return figure.update_layout(
        xaxis={"title": {"text": "radius to certify"}, "range": [0, exact * 1.08]},
        yaxis={"type": "log", "dtick": 1, "title": {"text": "samples n"}}, **LAYOUT,
    )  # fmt: skip


def contributions(shares: Mapping[str, Sequence[float]], methods: Sequence[str]) -> go.Figure:
    """The share of ACR that the easiest images make up, one line a run: {name: cumulative shares, the largest radius first}."""
    figure = go.Figure(
        [
            {
                "type": "scatter", "mode": "lines", "x": [(i + 1) / len(share) for i in range(len(share))], "y": list(share),
                "name": name, "line": {"color": colour(method)},
                "hovertemplate": "the easiest %{x:.0%} of the images: %{y:.0%} of ACR<extra></extra>",
            }
            for (name, share), method in zip(shares.items(), methods, strict=True)
        ]
    )  # fmt: skip
    figure.add_trace(
        {
            "type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "name": "if all images counted alike", "hoverinfo": "skip",
            "line": {"color": GREY, "dash": "dot"},
        }
    )  # fmt: skip
    return figure.update_layout(
        xaxis={"title": {"text": "share of the images, the largest radius first"}, "tickformat": ".0%"},
        yaxis={"title": {"text": "share of ACR"}, "tickformat": ".0%"}, **LAYOUT,
    )  # fmt: skip
