"""ACR beside the published values, on the shipped runs."""

import pandas as pd
import pytest
from scipy.stats import sem, t

from app.figures.acr import beside_published
from backend.store import queries
from tests.app.test_along_lambda import TERMS, notes


def test_bars_are_the_interval_over_images_and_the_published_spread(published):
    """Student's 95 % of the mean of the images' gains, from the rows; of published seeds ± one sd."""
    run_id = "mnist-lenet-gaussian-s0.5-seed0-06682b8c"
    rows = queries.certificates(run_id)
    gains = rows.radius.where(rows.predict == rows.label, 0.0)
    low, high = t.interval(0.95, len(gains) - 1, gains.mean(), sem(gains))
    there = queries.published_groups(*TERMS).query("sigma == 0.5 and method == 'gaussian'")
    figure = beside_published(queries.run(run_id), there, 0.5)
    theirs, ours = (trace for trace in figure.data if list(trace.x) != [None])
    assert ours.error_x.array[0] == pytest.approx((high - low) / 2)
    assert theirs.error_x.array[0] == pytest.approx(there.acr_sd.iloc[0])


def test_a_collapsed_seed_leaves_the_others_their_room_beside_the_published(published):
    """SmoothAdv's seed 4 answers one class; where nothing else is there, it is in view."""
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'quick' and sigma == 0.5 and method == 'smoothadv'")
    there = queries.published_groups(*TERMS)
    figure = beside_published(runs, there, 0.5)
    assert notes(figure) == ["collapsed: SmoothAdv, seed 4, ACR 0.18"]
    low, high = figure.layout.xaxis.range
    others = runs[runs.seed != 4].acr
    assert 1.2 < low < others.min() < others.max() < there[there.sigma == 0.5].acr.max() < high
    alone = beside_published(runs[runs.seed == 4], there, 0.5)
    assert alone.layout.xaxis.range is None
    assert not notes(alone)


def test_recipes_have_a_marker_each_beside_the_published(published):
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'quick' and sigma == 0.5 and method == 'gaussian'")
    both = pd.concat([runs, runs.assign(recipe="paper", epochs=90, run_id="longer-" + runs.run_id)])
    nothing = queries.published("mnist").head(0)
    beside = {trace.name: trace.marker.symbol for trace in beside_published(both, nothing, 0.5).data if trace.name}
    assert beside == {"runs of this store, quick": "circle", "runs of this store, paper": "diamond"}
