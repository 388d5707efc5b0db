"""The claim on the page Trade-offs: Consistency over the baselines, in figures and in a sentence."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from app.widgets.verdicts import answer, cost, terms, versus
from backend.home import PRECOMPUTED, runs_root
from backend.jobs.worker import work
from backend.plan import plan
from backend.reproduction import cells, usual
from backend.run import Run, find_run
from backend.store import queries
from backend.store.publish import publish
from tests.app import CONSISTENCY, GAUSSIAN, digits, imitate, page, words


def learned(rows):
    """The columns of rows none of which collapsed."""
    return {"collapsed": [{}] * len(rows), "left_out": False}


def test_trade_offs_states_the_claim_with_its_uncertainty(published):
    app = page("trade_offs").run()
    assert not app.exception
    text = words(app)
    assert "Consistency is **above** Gaussian" in text
    assert "n = 10,000, n0 = 100, α = 0.001, 500 test images (every 20)" in text
    assert "on the same terms" in text
    assert "Consistency is **above** Gaussian (gains in each of " in text  # seeds, of the recipe `paper`
    runs = queries.runs().query("dataset == 'mnist'")
    gains = queries.acr_gains(runs[usual(runs)].run_id, [("smoothadv", "consistency")])
    below = gains[(gains.sigma == 0.5) & (gains.recipe == "paper")]
    assert queries.paired(below.baseline_id.to_list(), below.run_id.to_list()).acr_high < 0
    assert "**below** SmoothAdv (one seed)" in text
    assert "**not told apart from** SmoothAdv (5 seeds)" in text
    assert "**not told apart from** SmoothAdv (4 seeds; without seed 4, at which SmoothAdv collapsed)" in text
    assert (
        "**not above** SmoothAdv (below at σ = 0.5 and 1, one seed; not told apart at σ = 0.25, one seed) at any σ."
        in text
    )
    assert (
        "Its certified accuracy at r = 0 less that of Gaussian: +0.2 points (-0.3 to +0.7, not told apart) at σ = 0.25"
        in text
    )
    assert "of three seeds or more that of the training seed too" in text
    table = cells(runs, queries.published_groups("mnist", 10_000, 100, 0.001, "test/every 20"))
    shown = app.dataframe[0].value
    assert shown.verdict.to_list() == table.sort_values(["recipe", "sigma"], kind="stable").verdict.to_list()
    for recipe, verdicts in table.groupby("recipe").verdict:
        assert f"below in {(verdicts == 'below').sum()} of {len(verdicts)} cells by the recipe `{recipe}`" in text


def test_garments_stand_beside_the_networks_that_are_published_of_them(published):
    """At other terms than theirs, and says so; hyper-parameters that depart are those of MNIST's experiment."""
    app = page("trade_offs", dataset="fashion_mnist").run()
    assert not app.exception
    text = words(app)
    assert "is **above** Gaussian" in text
    assert "Gaussian, Stability (one seed) and MACER (one seed, at σ = 1 MACER collapsed) at every σ" in text
    assert "MACER (one seed; MACER collapsed at seed 0)" in text  # it hardly ever answers one class
    assert "In every comparison: both trained for 8 epochs." in text
    assert "recipe `quick` (8 epochs), means over up to 5 seeds" in text
    assert (
        "networks released with CAT-RS (Jeong et al., AAAI 2023), one seed each, whose λ is not told, at their own n"
        in text
    )
    assert "on the same terms" not in text
    (chart,) = [
        c
        for c in app.get("plotly_chart")
        if c.proto.alt.startswith("ACR of Consistency less that of each baseline at σ = 0.25")
    ]
    hollow = {
        y: x
        for t in json.loads(chart.proto.spec)["data"]
        if t["name"] == "published networks"
        for x, y in zip(t["x"], t["y"], strict=True)
    }
    assert hollow["Gaussian"] == pytest.approx(0.7436 - 0.6701)
    assert "(paper: " not in text


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ({("gaussian", 0.25, 90): "above", ("gaussian", 0.5, 90): "above"}, "**above** Gaussian at every σ."),
        (
            {("gaussian", 0.25, 90): "below", ("gaussian", 0.5, 90): "not told apart"},
            "**not above** Gaussian (below at σ = 0.25; not told apart at σ = 0.5) at any σ.",
        ),
        (
            {("gaussian", 0.25, 90): "above", ("gaussian", 0.5, 90): "below"},
            "**above** Gaussian (below at σ = 0.5) at σ = 0.25 alone.",
        ),
        (
            {("gaussian", 0.5, 90): "above", ("macer", 0.5, 90): "above", ("stability", 0.5, 90): "below"},
            "**above** Gaussian and MACER at σ = 0.5, **below** Stability at σ = 0.5.",
        ),
        (
            {("gaussian", 0.25, 90): "not told apart", ("gaussian", 0.5, 90): "above", ("gaussian", 0.25, 8): "above"},
            "**above** Gaussian at σ = 0.5 alone.",  # by the longest training
        ),
        (
            {("gaussian", s, 90): "above" for s in (0.25, 0.5, 1)} | {("macer", s, 90): "above" for s in (0.25, 0.5)},
            "**above** Gaussian at every σ, **above** MACER at σ = 0.25 and 0.5.",
        ),
        (
            {
                ("gaussian", 0.25, 90): "above",
                ("gaussian", 0.5, 8): "not told apart",
                ("gaussian", 1, 8): "not told apart",
            },
            "**above** Gaussian (at σ = 0.5 and 1 both trained for 8 epochs) at σ = 0.25 alone.",
        ),
        (
            {("gaussian", 0.5, 90): "above", ("smoothadv", 0.5, 8): "below"},
            "**above** Gaussian at σ = 0.5, **below** SmoothAdv (both trained for 8 epochs) at σ = 0.5.",
        ),
        (
            {("gaussian", s, 8): "above" for s in (0.25, 0.5)}
            | {("smoothadv", 0.25, 8): "not told apart", ("smoothadv", 0.5, 8): "below"},
            "**above** Gaussian at every σ, **not above** SmoothAdv (below at σ = 0.5; not told apart at σ = 0.25) at any σ. In every comparison: both trained for 8 epochs.",
        ),
    ],
)
def test_the_claim_in_a_sentence(verdicts, said):
    rows = [(*key, "consistency", verdict) for key, verdict in verdicts.items()]
    rows = pd.DataFrame(rows, columns=["baseline", "sigma", "epochs", "method", "verdict"])
    rows = rows.assign(
        source="trained", architecture="lenet", seed_gains=[[0.1, 0.2, 0.3]] * len(rows), **learned(rows)
    )
    told = partial(answer, whole=90)
    assert told(rows) == f"Measured here: the ACR of Gaussian + Consistency is {said}"
    assert told(rows.assign(source="published")) == f"By the imported logs: the ACR of Gaussian + Consistency is {said}"
    assert told(rows.assign(method="smoothadv_consistency")) == ""  # says nothing of it
    other = rows.assign(architecture="resnet20", verdict="below", epochs=1)
    first, second = told(pd.concat([rows, other])).split(" Measured here with resnet20: ")
    assert first == f"Measured here with lenet: the ACR of Gaussian + Consistency is {said}"
    assert "**above" not in second


def test_what_it_costs_is_said_of_the_runs_that_the_answer_is_of():
    """By network, of trained runs where there are some, of the longest; with what decides."""
    rows = [
        ("lenet", "trained", 90, -0.02, np.nan, -1), ("lenet", "trained", 8, 0.5, np.nan, 1),
        ("lenet", "published", 100, 0.5, np.nan, 1), ("resnet20", "trained", 8, 0.0, 0.254, 0),
    ]  # fmt: skip
    rows = pd.DataFrame(rows, columns=["architecture", "source", "epochs", "accuracy", "accuracy_p", "accuracy_told"])
    rows = rows.assign(accuracy_low=rows.accuracy - 0.01, accuracy_high=rows.accuracy + 0.01)
    rows = rows.assign(method="consistency", baseline="gaussian", sigma=0.5, setting="", **learned(rows))
    assert cost(rows) == (
        "With lenet its certified accuracy at r = 0 less that of Gaussian: -2.0 points (-3.0 to -1.0, told apart) at σ = 0.5. "
        "With resnet20 its certified accuracy at r = 0 less that of Gaussian: +0.0 points (-1.0 to +1.0, not told apart by McNemar's test, p = 0.3) at σ = 0.5."
    )
    assert cost(rows.head(1).assign(setting="λ = 1")).endswith("told apart) at σ = 0.5, λ = 1.")
    assert cost(rows.assign(baseline="macer")) == ""
    one = rows.head(1).assign(collapsed=[{"gaussian": [4]}], left_out=True)
    assert cost(one).endswith("told apart) at σ = 0.5; without seed 4, at which Gaussian collapsed.")


def test_runs_on_a_folder_that_is_gone_are_claimed_too(home):
    for name in (GAUSSIAN, CONSISTENCY):
        shipped = find_run(name, PRECOMPUTED)
        imitate(shipped, replace(shipped.spec, dataset="a_folder_that_is_gone"))
    publish((runs_root(),))
    app = page("trade_offs").run()
    assert not app.exception
    assert "(one seed, both trained for 8 epochs) at σ = 0.5." in words(app)


def test_one_seed_is_said_in_the_sentence():
    rows = [
        ("gaussian", 0.5, [0.1] * 3),
        ("macer", 0.5, [0.1]),
        ("stability", 0.5, [0.1]),
        ("stability", 1.0, [0.1, 0.2]),
    ]
    rows = pd.DataFrame(rows, columns=["baseline", "sigma", "seed_gains"])
    rows = rows.assign(
        source="trained", architecture="lenet", method="consistency", verdict="above", epochs=90, **learned(rows)
    )
    assert answer(rows, 90).endswith(
        "**above** Gaussian and MACER (one seed) at σ = 0.5, **above** Stability (at σ = 0.5 one seed, at σ = 1 two seeds) at every σ."
    )
    short = rows.assign(seed_gains=[[0.1]] * 4, epochs=8)
    assert answer(short, 90).endswith("Stability at every σ. In every comparison: one seed, both trained for 8 epochs.")
    collapsed = [
        {},
        {"macer": [0]},
        {"stability": [0]},
        {"stability": [0]},
    ]  # these two stand beside seeds that learned
    assert answer(rows.assign(collapsed=collapsed, left_out=[False, False, True, True]), 90).endswith(
        "**above** Gaussian and MACER (one seed, at σ = 0.5 MACER collapsed) at σ = 0.5, **above** Stability (at σ = 0.5 one seed, at σ = 1 two seeds) at every σ."
    )


def test_how_many_seeds_lose_is_said_of_a_loss():
    rows = pd.DataFrame(
        [
            ("smoothadv", "below", -0.1, [-0.2, -0.1, 0.01]),
            ("macer", "above", 0.1, [0.1, 0.2]),
            ("gaussian", "not told apart", 0.01, [0.1, -0.1]),
        ],
        columns=["baseline", "verdict", "gain", "seed_gains"],
    )
    rows = rows.assign(method="consistency", setting="", **learned(rows))
    assert versus(rows) == (
        "Consistency is **above** MACER (gains in each of 2 seeds); **not told apart from** Gaussian (2 seeds); "
        "**below** SmoothAdv (loses in 2 of 3 seeds)."
    )


@pytest.mark.parametrize(("seeds", "covers"), [(1, False), (2, False), (3, True)])
def test_what_the_bars_cover_is_said(seeds, covers):
    rows = pd.DataFrame([{
        "method": "consistency", "baseline": "gaussian", "sigma": 0.5, "lam": 5.0, "seed_gains": [0.1] * seeds, "source": "trained", "architecture": "lenet",
        "recipe": "paper", "epochs": 90, "published_source": "same terms", "published_gain": 0.1,
    }])  # fmt: skip
    said = terms(rows, "n = 10")
    assert ("and of three seeds or more that of the training seed too" in said) == covers
    assert ("not that of the training seed" in said) == (not covers)


def test_below_by_one_of_two_settings_is_said():
    """Above at one σ, and at the other below with one λ of two."""
    rows = pd.DataFrame({
        "baseline": "gaussian", "sigma": [0.5, 1.0, 1.0], "seed_gains": [[0.1] * 3] * 3, "source": "trained", "architecture": "lenet",
        "method": "consistency", "verdict": ["above", "not told apart", "below"], "epochs": 90, "collapsed": [{}] * 3, "left_out": False,
    })  # fmt: skip
    assert answer(rows, 90).endswith("**above** Gaussian (below at σ = 1) at σ = 0.5 alone.")


def test_no_claim_rests_on_the_acr_of_runs_that_stop_on_purpose(home):
    one = Run.create(runs_root(), digits(mode="at-radius", radius=0.5))
    assert work(one, "cpu")
    publish((runs_root(),))
    app = page("trade_offs").run()
    assert not app.exception
    assert "Certified accuracy compares at r = 0.5 alone; neither ACR nor abstention does." in words(app)
    assert not app.slider  # no other radius to rank at
    assert not {h.value for h in app.header} & {
        "Does Consistency beat the baselines?",
        "Accuracy against robustness, along λ",
    }
    app = page("run", run=one.run_id).run()
    assert not app.exception
    assert [m.label for m in app.metric] == ["Certified accuracy at 0.5"]


def test_settings_that_no_recipe_has_are_told_apart_in_the_claim(home):
    """λ = 1 with two m and λ = 20: none is the recipe's, so all three stand beside Gaussian, and none is averaged with another."""
    gaussian, consistency, worse = (find_run(name, PRECOMPUTED) for name in (GAUSSIAN, CONSISTENCY, GAUSSIAN))
    imitate(gaussian, gaussian.spec)
    again = partial(
        plan, "mnist", "consistency", 0.5, weights_dtype="float16", certification=gaussian.spec.certification
    )
    for source, values in ((consistency, {"lam": 1.0}), (worse, {"lam": 1.0, "m": 4}), (worse, {"lam": 20.0})):
        imitate(source, again(values=values))
    publish((runs_root(),))
    app = page("trade_offs").run()
    assert not app.exception
    assert (
        "Consistency is **above** Gaussian at λ = 1, m = 2 (one seed); **not told apart from** Gaussian at λ = 1, m = 4 (one seed), "
        "Gaussian at λ = 20, m = 2 (one seed)."
    ) in words(app)
