"""How the bounds of a radius close in on it while samples arrive, and where they leave the true one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

import plotly.graph_objects as go

from app.figures.palette import BLUE, GREY, VERMILION
from app.figures.rounding import round_down, round_up

SAME, FOUND = BLUE, VERMILION


@dataclass
class Track:
    """The bounds of one network at each look: samples, lower bound of its radius on the image, and the least upper bound so far: all hold at once."""

    name: str
    colour: str
    samples: list[int] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float | None] = field(default_factory=list)

    def add(self, samples: int, lower: float, upper: float) -> None:
        """An upper bound is infinite as long as every vote is for one class: nothing is drawn there."""
        self.samples.append(samples)
        self.lower.append(lower)
        least = min([upper, *(one for one in self.upper if one is not None)])
        self.upper.append(least if isfinite(least) else None)


def bounds(tracks: Sequence[Track], n: int, target: float | None = None) -> go.Figure:
    """Lower and upper bound of each network's radius against samples, and the radius asked about, if any."""
    figure = go.Figure()
    for track in tracks:
        usual = {"type": "scatter", "x": track.samples, "mode": "lines+markers", "legendgroup": track.name}
        said = "%{x:,} samples: %{customdata}"
        figure.add_trace(
            usual | {
                "y": track.lower, "customdata": [round_down(r) for r in track.lower], "name": track.name, "line": {"color": track.colour, "width": 2.5, "shape": "hv"}, "marker": {"size": 5},
                "hovertemplate": f"at least, after {said}<extra></extra>",
            }
        )  # fmt: skip
        figure.add_trace(
            usual | {
                "y": track.upper, "customdata": ["" if r is None else round_up(r) for r in track.upper], "showlegend": False, "line": {"color": track.colour, "width": 1.2, "dash": "dot", "shape": "hv"},
                "marker": {"size": 4}, "hovertemplate": f"at most, after {said}<extra></extra>",
            }
        )  # fmt: skip
    if target is not None:
        figure.add_hline(y=target, line={"color": GREY, "dash": "dash"}, annotation_text=f"r = {target:g}")
    figure.update_layout(
        xaxis={"type": "log", "range": [1.75, len(str(n)) - 0.95], "title": {"text": "samples"}, "dtick": 1},
        yaxis={"rangemode": "tozero", "title": {"text": "radius"}},
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        height=240 + 24 * len(tracks) * (len(tracks) > 1),
        showlegend=len(tracks) > 1,
        legend={"orientation": "v", "x": 0, "y": -0.3, "yanchor": "top", "yref": "paper"},
    )
    return figure


def bracket(certified: float, found: float) -> go.Figure:
    """A line of distances: up to `certified` every image is answered alike, and at `found` one is not."""
    parts = [(0.0, certified, SAME, "same answer, certified"), (certified, found, GREY, "not known")]
    figure = go.Figure(
        [
            {
                "type": "bar", "orientation": "h", "y": [""], "base": [start], "x": [end - start], "name": name,
                "marker": {"color": shade, "opacity": 1 if shade == SAME else 0.35},
                "hovertemplate": f"{name}: {round_down(start)} to {round_down(end) if shade == SAME else round_up(end)}<extra></extra>",
            }
            for start, end, shade, name in parts
            if end > start
        ]
    )  # fmt: skip
    figure.add_trace(
        {
            "type": "scatter", "x": [found], "y": [""], "mode": "markers", "name": "another answer, found by the attack",
            "marker": {"symbol": "x", "size": 14, "color": FOUND}, "hovertemplate": f"{round_up(found)}<extra></extra>",
        }
    )  # fmt: skip
    figure.update_layout(
        barmode="overlay",
        xaxis={"rangemode": "tozero", "title": {"text": "ℓ2 distance from the image"}},
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        height=135,
        showlegend=False,
    )
    return figure
