"""How a network votes on noisy copies of one image."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from app.figures.palette import BLUE, GREY, VERMILION

LONGEST = 24  # letters of a class's name below its bar
NAMED = 12  # bars that have their name below them, at most, and the selected one


def votes(counts: Sequence[int], classes: Sequence[str], top: int, p_lower: float) -> go.Figure:
    """The share of votes of each class, and the lower bound of the selected one's probability. counts: (K,)."""
    done, names = max(1, sum(counts)), [escape(name) for name in classes]  # Plotly takes tags for what they mean
    # A thousand names would keep the browser busy for half a minute.
    shown = sorted({*range(0, len(classes), -(-len(classes) // NAMED)), top})
    short = [names[c] if len(classes[c]) <= LONGEST else escape(classes[c][: LONGEST - 1]) + "…" for c in shown]
    figure = go.Figure(
        {
            "type": "bar",
            "x": list(range(len(classes))),
            "y": [count / done for count in counts],
            "marker": {"color": [BLUE if c == top else GREY for c in range(len(classes))]},
            "customdata": list(counts),
            "hovertext": names,
            "hovertemplate": "%{hovertext}: %{customdata:,} votes, %{y:.2%}<extra></extra>",
        }
    )
    figure.add_shape(
        {
            "type": "line", "xref": "x", "x0": top - 0.45, "x1": top + 0.45, "y0": p_lower, "y1": p_lower,
            "line": {"color": VERMILION, "width": 3},
        }
    )  # fmt: skip
    figure.add_hline(y=0.5, line={"color": GREY, "dash": "dot", "width": 1})
    figure.update_layout(
        xaxis={"tickvals": shown, "ticktext": short, "title": {"text": "class"}},
        yaxis={"range": [0, 1], "tickformat": ".0%", "title": {"text": "share of votes"}},
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        height=260,
        showlegend=False,
    )
    return figure
