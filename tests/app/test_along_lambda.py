"""The trade-off along λ, on the shipped runs."""

import pandas as pd
import pytest

from app.figures.along_lambda import against_accuracy
from app.figures.palette import run_labels
from backend.reproduction import along_lambda
from backend.store import queries

TERMS = ("mnist", 10_000, 100, 0.001, "test/every 20")


def drawn(runs: pd.DataFrame, sigma: float):
    """The figure of these runs beside nothing published."""
    return against_accuracy(queries.over_seeds(runs.run_id), sigma, queries.published_groups(*TERMS).head(0))


def numbers(figure) -> dict[str, tuple[float, float]]:
    """The λ that are written, with the point that each leads to."""
    return {note.text: (note.x, note.y) for note in figure.layout.annotations if note.showarrow}


def notes(figure) -> list[str]:
    """What is named above the panel."""
    return [line for note in figure.layout.annotations if not note.showarrow for line in note.text.split("<br>")]


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_the_path_goes_along_lambda_and_nothing_beats_the_front(published, sigma):
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'quick' and sigma == @sigma and seed == 0")
    ablation = runs.hyper.str.contains('"m": [48]|"form": "(?:xent|kl|mse)"', regex=True) & (
        runs.method == "consistency"
    )
    runs = runs[~ablation]
    figure = drawn(runs, sigma)
    traces = {trace.name: trace for trace in figure.data}
    path = runs[runs.method.isin(["gaussian", "consistency"])].fillna({"lam": -1}).sort_values("lam")
    assert list(traces["along λ"].y) == path.acr.to_list()
    (left, right), (low, high) = figure.layout.xaxis.range, figure.layout.yaxis.range
    seen = runs[
        (runs.method == "consistency") & runs.certified_accuracy_0.between(left, right) & runs.acr.between(low, high)
    ]
    assert numbers(figure) == {f"{run.lam:g}": (run.certified_accuracy_0, run.acr) for run in seen.itertuples()}
    ends = [(note.x, note.y, note.ax, note.ay) for note in figure.layout.annotations if note.showarrow]
    assert len(
        {
            (round(300 * (x - left) / (right - left) + ax), round(300 * (y - low) / (high - low) - ay))
            for x, y, ax, ay in ends
        }
    ) == len(seen)
    front = set(zip(traces["Pareto front"].x, traces["Pareto front"].y, strict=True))
    points = list(zip(runs.certified_accuracy_0, runs.acr, strict=True))
    beaten = {(x, y) for x, y in points if any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)}
    assert front == set(points) - beaten


def test_seeds_are_one_point_with_their_spread_beside_the_published_path(published):
    """Five seeds of Gaussian and of Consistency at σ = 1 by the paper's recipe; the released networks have 6 of λ = 5, one of each other λ."""
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'paper' and sigma == 1")
    theirs = along_lambda(queries.published_groups(*TERMS))
    figure = against_accuracy(queries.over_seeds(runs.run_id), 1.0, theirs)
    traces = {trace.name: trace for trace in figure.data}
    (gaussian,) = traces["Gaussian"].y
    seeds = runs[runs.method == "gaussian"]
    assert len(seeds) == 5
    assert gaussian == pytest.approx(seeds.acr.mean())
    assert traces["Gaussian"].error_x.array == pytest.approx([seeds.certified_accuracy_0.std()])
    assert traces["along λ"].y[0] == gaussian
    lams = ("Gaussian (5 seeds)", "λ = 1", "λ = 5 (6 seeds)", *(f"λ = {lam}" for lam in (15, 20, 25, 30, 50)))
    assert traces["published networks"].text == tuple(f"published, {lam}" for lam in lams)
    assert notes(figure)[-1].endswith("published, far below: λ = 25, λ = 30, λ = 50")
    low, high = figure.layout.yaxis.range
    assert low < gaussian < max(traces["published networks"].y) < high
    at_1 = theirs[(theirs.sigma == 1) & (theirs.lam == 1)]
    assert traces["published networks"].y[1] == at_1.acr.item()


def test_an_ablation_has_no_number_says_what_it_is_and_lies_on_no_path(published):
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'quick' and sigma == 0.25")
    figure = drawn(runs, 0.25)
    traces = figure.data
    (points,) = (trace for trace in traces if trace.name == "Gaussian + Consistency")
    assert (len(points.y), list(numbers(figure))) == (3, ["10"])
    (place,) = (i for i, (words, _) in enumerate(points.customdata) if words.endswith("m 4"))
    ablation = points.y[place]
    assert not any(ablation in trace.y for trace in traces if trace.name == "along λ")


def test_a_collapsed_run_is_named_and_leaves_the_others_their_room(published):
    """λ = 25 and 30 at σ = 1 answer one class, and so do the form xent and one seed each of MACER, SmoothAdv and SmoothAdv + Consistency."""
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'quick'")
    figure = drawn(runs, 1.0)
    assert figure.layout.xaxis.range[0] > 0.8
    learned = queries.over_seeds(runs[(runs.sigma == 1.0) & (runs.missing_classes == 0)].run_id)
    lowest = (learned.acr - learned.acr_sd.fillna(0)).min()  # whiskers are in view
    assert lowest - 0.08 < figure.layout.yaxis.range[0] < lowest
    assert notes(figure) == [
        "collapsed: λ = 5, form xent, m 2, ACR 0.30",
        *(f"collapsed: λ = {lam}, ACR 0.36" for lam in (25, 30)),
        "collapsed: MACER, λ = 1, ACR 0.36",
        "collapsed: SmoothAdv, ACR 0.36",
        "collapsed: SmoothAdv + Consistency, λ = 1, ACR",
        "0.36",
    ]
    assert "30" not in numbers(figure)  # outside the view
    assert not notes(drawn(runs, 0.25))


def test_networks_that_gave_up_one_class_are_in_view(published):
    """SmoothAdv's and MACER's on Fashion-MNIST at σ = 1: to hide the highest ACR would be no view of the trade-off."""
    runs = queries.runs().query("dataset == 'fashion_mnist' and sigma == 1")
    assert (runs.missing_classes > 0).sum() == 3
    figure = drawn(runs, 1.0)
    low, high = figure.layout.yaxis.range
    assert low < runs.acr.min() < runs.acr.max() < high
    assert notes(figure) == []


def test_a_run_far_below_is_named_and_leaves_the_others_their_room(published):
    """By the paper's recipe λ = 25 at σ = 1 answers every class, and 72 % of the images; λ = 30 hardly answers four classes."""
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'paper'")
    figure = drawn(runs, 1.0)
    assert figure.layout.xaxis.range[0] > 0.89
    assert notes(figure) == [
        "far below: λ = 25, ACR 1.14",
        "collapsed: λ = 30, ACR 0.75",
    ]


def test_runs_of_equal_accuracy_lie_in_the_middle(published):
    """Both of the paper's recipe at σ = 0.5 and of seed 0 answer 98.6 % of the images."""
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'paper' and seed == 0 and method != 'stability'")
    runs = runs[(runs.method == "gaussian") | (runs.lam == 5)]
    assert runs[runs.sigma == 0.5].certified_accuracy_0.to_list() == [0.986, 0.986]
    left, right = drawn(runs, 0.5).layout.xaxis.range
    assert (left + right) / 2 == pytest.approx(0.986)
    assert right - left == pytest.approx(0.01)


def test_recipes_have_a_marker_and_a_name_each(published):
    """Also where a method has runs of one of them alone."""
    runs = queries.runs().query(
        "dataset == 'mnist' and recipe == 'quick' and sigma == 0.5 and method in ('gaussian', 'macer')"
    )
    runs, none = queries.over_seeds(runs.run_id), queries.published_groups(*TERMS).head(0)

    def markers(rows: pd.DataFrame) -> dict[str, str]:
        traces = against_accuracy(rows, 0.5, none).data
        return {trace.name: trace.marker.symbol for trace in traces if trace.mode != "lines"}

    assert markers(runs) == {"Gaussian": "circle", "MACER": "circle"}
    longer = runs[runs.method == "gaussian"].assign(recipe="paper", epochs=90, run_id="longer")
    both = pd.concat([runs, longer])
    assert markers(both) == {"Gaussian, quick": "circle", "Gaussian, paper": "diamond", "MACER, quick": "circle"}
    assert all("recipe" in words for words in run_labels(both).values())
