"""The figures of certified accuracy against radius, and of bounds against samples."""

from math import inf

import pandas as pd
import pytest

from app.figures.bounds import Track, bounds
from app.figures.curves import certified_accuracy
from app.figures.palette import COLOURS, GREY, colour, run_labels
from backend.reproduction import usual
from backend.store import queries
from backend.training.methods import METHODS


def drawn(sigma: float, *recipes: str) -> dict:
    """The table's lines at one σ: {method and recipe: trace}."""
    runs = queries.runs().query("dataset == 'mnist' and sigma == @sigma and recipe in @recipes")
    groups = queries.over_seeds(runs[usual(runs)].run_id)
    groups = groups[groups.missing_classes == 0]
    figure = certified_accuracy(groups, queries.group_curves(runs.run_id.to_list()), run_labels(groups))
    return dict(zip(zip(groups.method, groups.recipe, strict=True), figure.data, strict=True))


def test_methods_of_anybody_have_a_colour_each_and_none_of_ours(monkeypatch):
    for name in ("logit_pairing", "another"):
        monkeypatch.setitem(METHODS, name, METHODS["gaussian"])
    added, ours = {colour("logit_pairing"), colour("another")}, set(COLOURS.values()) | {GREY}
    assert len(added) == 2
    assert not (added | {colour("catrs")}) & ours
    assert [colour(name) for name in COLOURS] == list(COLOURS.values())


def test_a_recipe_is_as_pale_in_every_panel(published):
    """Rows come in another order where a recipe has more seeds: the opacity must not."""
    for sigma in (0.25, 0.5, 1.0):
        lines = drawn(sigma, "paper", "quick")
        assert {lines[method, "paper"].opacity for method in ("gaussian", "consistency", "stability")} == {1.0}
        assert {line.opacity for (_, recipe), line in lines.items() if recipe == "quick"} == {1 - 0.75 / 2}
    assert {line.opacity for line in drawn(0.5, "quick").values()} == {1.0}


def test_a_seed_that_collapsed_is_a_pale_line_beside_the_others(published):
    runs = queries.runs().query("dataset == 'mnist' and sigma == 0.5 and recipe == 'quick' and method == 'smoothadv'")
    groups = queries.over_seeds(runs.run_id).sort_values("acr")  # the one that collapsed first
    lines = {
        trace.name: trace
        for trace in certified_accuracy(groups, queries.group_curves(runs.run_id), run_labels(groups)).data
    }
    learned, collapsed = lines["SmoothAdv, σ = 0.5 (4 seeds)"], lines["SmoothAdv, σ = 0.5, training collapsed"]
    assert (learned.y[0], collapsed.y[0]) == (
        pytest.approx(runs.certified_accuracy_0[runs.seed < 4].mean()),
        pytest.approx(0.114),
    )
    assert learned.opacity > collapsed.opacity


def test_a_line_claims_nothing_between_its_radii_and_ends_at_the_ceiling(published):
    line = drawn(0.25, "paper")["consistency", "paper"]
    (most,) = queries.runs().query("dataset == 'mnist' and sigma == 0.25 and recipe == 'paper'").ceiling.unique()
    assert line.line.shape == "vh"  # from one radius on the share that the next has
    assert line.x[-2:] == (most, most)
    assert line.y[-2] > 0.8
    assert line.y[-1] == 0  # beyond
    assert line.text[-1] == "0.7996"  # rounded down


def test_a_band_has_the_steps_of_its_line(published):
    (run,) = (
        queries.runs()
        .query("dataset == 'mnist' and method == 'gaussian' and sigma == 0.5 and recipe == 'paper' and seed == 0")
        .itertuples()
    )
    rows = queries.runs().query("run_id == @run.run_id")
    points = queries.curves([run.run_id]).rename(columns={"run_id": "group_id"})
    share = points.certified_accuracy
    band, line = certified_accuracy(rows, points.assign(low=share - 0.01, high=share + 0.01), run_labels(rows)).data
    assert len(band.x) == 2 * (2 * len(points) - 1)
    upper = dict(zip(band.x[1 : 2 * len(points) - 1 : 2], band.y[1 : 2 * len(points) - 1 : 2], strict=True))
    for right, y in zip(line.x[1 : len(points) - 1], line.y[2 : len(points)], strict=True):
        assert upper[right] == pytest.approx(min(1, y + 0.01))  # right of a radius the line is at the next one's share


def test_the_least_upper_bound_so_far_is_drawn():
    """At each look another share of α is spent: a bound may be above an earlier one, and both hold."""
    track = Track("a", "#000000")
    for samples, upper in ((64, inf), (96, 3.6), (144, 3.7), (216, 3.4), (324, inf)):
        track.add(samples, 0.5, upper)
    assert track.upper == [None, 3.6, 3.6, 3.4, 3.4]
    _, dotted = bounds([track], 1000).data
    assert pd.isna(dotted.y[0])
    assert list(dotted.y[1:]) == [3.6, 3.6, 3.4, 3.4]
