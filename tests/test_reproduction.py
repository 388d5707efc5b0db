"""Ours beside the published networks."""

import json

import numpy as np
import pandas as pd
import pytest

from app.widgets.verdicts import of_collapsed
from backend.home import PRECOMPUTED, runs_root
from backend.reproduction import along_path, cells, gains_over_seeds, path_of, published_gain, usual
from backend.store import queries
from backend.store.publish import publish
from tests.store import finished, reach


def table(rows):
    columns = {
        "dataset": "mnist",
        "architecture": "lenet",
        "source": "trained",
        "recipe": "paper",
        "epochs": 90,
        "seed": 0,
        "missing_classes": 0,
        "train_precision": "float32",
    }
    return pd.DataFrame([columns | row for row in rows])


def consistency(sigma, lam, acr, **rest):
    return {
        "method": "consistency",
        "sigma": sigma,
        "acr": acr,
        "hyper": json.dumps({"lam": lam, "eta": 0.5, "m": 2, "form": "default"}),
        **rest,
    }


def test_usual_is_what_the_recipe_takes_and_something_of_every_cell():
    """λ = 5 is the paper's at σ = 0.5, so λ = 20 is not usual there; at σ = 0.25 (λ = 10) nothing usual is there, and all counts."""
    runs = table(
        [
            consistency(0.5, 5.0, 1.6),
            consistency(0.5, 20.0, 1.5),
            consistency(0.25, 20.0, 0.9),
            consistency(0.25, 5.0, 0.9),
        ]
    )
    assert usual(runs).to_list() == [True, False, True, True]
    other = {"train_precision": "bfloat16"}
    both = table(
        [
            consistency(0.5, 5.0, 1.6),
            consistency(0.5, 5.0, 1.4, seed=1, **other),  # seeds of two trainings are not seeds of one
            consistency(1.0, 5.0, 1.6, **other),  # where there is no other
            consistency(1.0, 20.0, 1.6, **other),
            consistency(0.5, 5.0, 1.6, recipe="quick", epochs=8, **other),
        ]
    )
    assert usual(both).to_list() == [True, False, True, False, True]


def test_cells_by_hand():
    """Theirs 1.6 ± 0.01 over five seeds: t(4) = 2.776, so another seed lies within 2.776 · 0.01 · √1.2 = 0.0304."""
    peers = pd.DataFrame(
        [
            {
                "architecture": "lenet",
                "method": "consistency",
                "sigma": 0.5,
                "acr": 1.6,
                "acr_sd": 0.01,
                "seeds": 5,
                "hyper": "{}",
            }
        ]
    )
    for acr, verdict in ((1.63, "reproduced"), (1.631, "above"), (1.569, "below")):
        found = cells(table([consistency(0.5, 5.0, acr), consistency(0.5, 20.0, 9.0)]), peers)
        assert found.verdict.to_list() == [verdict]
        assert found.half[0] == pytest.approx(0.0304, abs=5e-5)
    several = cells(table([consistency(0.5, 5.0, 1.61, seed=0), consistency(0.5, 5.0, 1.62, seed=1)]), peers)
    assert (several.our_seeds[0], several.difference[0]) == (2, pytest.approx(0.015))
    assert several.half[0] == pytest.approx(2.776 * 0.01 * (1 / 2 + 1 / 5) ** 0.5, abs=5e-5)
    again = table([consistency(0.5, 5.0, 1.61), consistency(0.5, 5.0, 1.61, weights_dtype="float32")])
    assert cells(again, peers).our_seeds[0] == 1  # one seed, certified in two ways
    assert cells(table([consistency(1.0, 5.0, 1.6)]), peers).empty
    two = cells(table([consistency(0.5, 5.0, 1.6), consistency(0.5, 5.0, 1.4, recipe="quick", epochs=8)]), peers)
    assert dict(zip(two.recipe, two.verdict, strict=True)) == {
        "paper": "reproduced",
        "quick": "below",
    }  # never averaged


def test_a_cell_is_beside_the_papers_own_setting_and_one_seed_gives_no_verdict():
    """Published with λ = 5 in one seed and λ = 20 in five, at σ = 0.5 on MNIST, where the paper takes 5."""
    of = {"architecture": "lenet", "method": "consistency", "sigma": 0.5}
    peers = pd.DataFrame([
        {**of, "acr": 1.6, "acr_sd": float("nan"), "seeds": 1, "hyper": '{"lam": 5.0, "m": 2}'},
        {**of, "acr": 1.4, "acr_sd": 0.01, "seeds": 5, "hyper": '{"lam": 20.0, "m": 2}'},
    ])  # fmt: skip
    found = cells(table([consistency(0.5, 5.0, 0.05)]), peers)
    assert (found.theirs[0], found.verdict[0]) == (1.6, "one published seed")
    assert pd.isna(found.half[0])
    assert cells(
        table([consistency(0.5, 20.0, 1.4), consistency(0.5, 30.0, 1.4)]), peers
    ).empty  # no setting of the paper's
    two = cells(table([consistency(0.5, 5.0, 1.3, epochs=8), consistency(0.5, 5.0, 1.5, epochs=90)]), peers)
    assert dict(zip(two.epochs, two.ours, strict=True)) == {8: 1.3, 90: 1.5}


def test_a_cell_is_beside_the_group_of_most_seeds():
    """That a log says less of its hyper-parameters does not make another experiment of it."""
    of = {"architecture": "lenet", "method": "consistency", "sigma": 0.5, "acr_sd": 0.01}
    few = {**of, "acr": 1.4, "seeds": 2, "hyper": "{}"}
    most = {**of, "acr": 1.6, "seeds": 5, "hyper": '{"lam": 5.0, "m": 2}'}
    for peers in ([few, most], [most, few]):
        assert cells(table([consistency(0.5, 5.0, 1.6)]), pd.DataFrame(peers)).theirs.to_list() == [1.6]


def test_a_published_gain_is_taken_at_the_same_lambda_from_all_seeds():
    peers = pd.DataFrame(
        [("gaussian", 0.5, float("nan"), 1.5, 5), ("consistency", 0.5, 5.0, 1.6, 5), ("consistency", 0.5, 20.0, 1.7, 1)],
        columns=["method", "sigma", "lam", "acr", "seeds"],
    ).assign(architecture="lenet", source="cat-rs")  # fmt: skip
    row = pd.Series(
        {
            "architecture": "lenet",
            "method": "consistency",
            "baseline": "gaussian",
            "sigma": 0.5,
            "lam": 5.0,
            "hyper": '{"m": 2}',
        }
    )
    assert published_gain(peers, row) == (pytest.approx(0.1), "cat-rs")
    nearer = peers.assign(source="same terms", acr=peers.acr * 2)
    assert published_gain(pd.concat([peers, nearer]), row) == (pytest.approx(0.2), "same terms")
    assert published_gain(pd.concat([peers, nearer[nearer.method == "gaussian"]]), row) == (
        pytest.approx(0.1),
        "cat-rs",
    )
    for other in (
        row.replace({5.0: 20.0}),
        row.replace({'{"m": 2}': '{"m": 8}'}),  # they have m = 2
        row.replace({"gaussian": "macer"}),
    ):
        assert published_gain(peers, other) == (None, None)


def test_gains_of_seeds_are_one_row_that_keeps_each(home):
    """The interval is that of the means over seeds, image by image; a seed whose weights were rounded in two ways makes no seed more."""
    votes = np.array([[900, 950, 990], [910, 940, 985]])  # of Gaussian, a row a seed
    more = np.array([[940, 960, 995], [930, 980, 990]])
    for seed in (0, 1):
        finished([(1, 1, v) for v in votes[seed]], seed=seed)
        finished([(1, 1, v) for v in more[seed]], seed=seed, method="consistency")
    finished([(1, 1, 900)] * 3, seed=1, weights_dtype="float16")
    finished([(1, 1, 999)] * 3, seed=1, weights_dtype="float16", method="consistency")
    publish((runs_root(),))
    runs = queries.runs()
    gains = queries.acr_gains(runs.run_id, [("gaussian", "consistency")])
    assert len(gains) == 3
    plain = gains[gains.run_id.isin(runs.run_id[runs.weights_dtype == "float32"])]
    (over,) = gains_over_seeds(plain, ["baseline", "sigma"]).itertuples()
    by_image = (np.vectorize(reach)(more) - np.vectorize(reach)(votes)).mean(0)
    assert over.gain == pytest.approx(by_image.mean())
    assert over.half == pytest.approx(
        4.3027 * by_image.std(ddof=1) / 3**0.5, rel=1e-4
    )  # Student, two degrees of freedom
    assert over.verdict == ("above" if over.gain > over.half else "not told apart")
    assert over.seed_gains == sorted(plain.gain)
    (all_of_them,) = gains_over_seeds(gains, ["baseline", "sigma"]).itertuples()
    assert len(all_of_them.seed_gains) == 2


def test_verdicts_of_three_seeds_hold_for_other_seeds_too(home):
    """All images gain nearly alike, so that the images leave no doubt, and the seeds do not."""
    for seed, votes in enumerate((951, 953, 990)):
        finished([(1, 1, 950)] * 3, seed=seed)
        finished([(1, 1, votes + more) for more in range(3)], seed=seed, method="consistency")
    publish((runs_root(),))
    gains = queries.acr_gains(queries.runs().run_id, [("gaussian", "consistency")])
    (over,) = gains_over_seeds(gains, ["baseline"]).itertuples()
    assert (over.verdict, over.accuracy, over.accuracy_told) == ("not told apart", 0, 0)
    assert over.half == pytest.approx(4.3027 * np.std(over.seed_gains, ddof=1) / 3**0.5, rel=0.01)
    (two,) = gains_over_seeds(gains[gains.seed < 2], ["baseline"]).itertuples()
    assert two.verdict == "above"  # two do not tell: the words beside it say that they are two


def test_seeds_that_collapsed_are_left_out_and_named(home):
    """Of either of the two; where every seed did, they are what there is."""
    votes = {"gaussian": (900, 920, 940, 960), "consistency": (950, 955, 960, 965)}
    lost = {("gaussian", 1), ("gaussian", 3), ("consistency", 2), ("consistency", 3)}
    for method, some in votes.items():
        for seed, v in enumerate(some):
            finished([(1, 1, v), (2, 2, v + 1)], seed=seed, method=method, missing=9 * ((method, seed) in lost))
    finished([(1, 1, 1000), (2, 1, 1000)], sigma=1.0, missing=9)
    finished([(1, 1, 990), (2, 2, 990)], sigma=1.0, method="consistency")
    publish((runs_root(),))
    gains = queries.acr_gains(queries.runs().run_id, [("gaussian", "consistency")])
    over = gains_over_seeds(gains, ["baseline", "sigma", "hyper"]).set_index("sigma")
    (left,) = over.seed_gains[0.5]
    assert left == pytest.approx((reach(950) + reach(951) - reach(900) - reach(901)) / 2)
    assert over.gain[0.5] == pytest.approx(left)
    assert over.collapsed[0.5] == {"consistency": [2, 3], "gaussian": [1, 3]}
    assert of_collapsed(over.loc[0.5]) == [
        "without seeds 2 and 3, at which Gaussian + Consistency collapsed", "without seeds 1 and 3, at which Gaussian collapsed",
    ]  # fmt: skip
    assert (len(over.seed_gains[1.0]), over.collapsed[1.0], over.left_out[1.0]) == (1, {"gaussian": [0]}, False)
    assert of_collapsed(over.loc[1.0]) == [
        "Gaussian collapsed at seed 0"
    ]  # compared all the same: nothing else is there
    (row,) = gains_over_seeds(gains[gains.seed.isin([1, 2]) & (gains.sigma == 0.5)], ["baseline"]).itertuples()
    assert of_collapsed(row) == [
        "Gaussian + Consistency collapsed at seed 2",
        "Gaussian collapsed at seed 1",
    ]  # no seed has two that learned


def test_cells_are_of_the_seeds_that_learned(home):
    peers = pd.DataFrame(
        [
            {
                "architecture": "lenet",
                "method": "consistency",
                "sigma": 0.5,
                "hyper": "{}",
                "seeds": 5,
                "acr": 1.6,
                "acr_sd": 0.01,
            }
        ]
    )
    ours = table([consistency(0.5, 5.0, 1.6, missing_classes=0), consistency(0.5, 5.0, 0.2, seed=1, missing_classes=9)])
    (cell,) = cells(ours, peers).itertuples()
    assert (cell.ours, cell.our_seeds, cell.collapsed, cell.verdict) == (1.6, 1, 1, "reproduced")
    (cell,) = cells(ours[ours.seed == 1], peers).itertuples()  # nothing else is there
    assert (cell.ours, cell.our_seeds, cell.collapsed, cell.verdict) == (0.2, 1, 0, "below")


def test_what_a_larger_lambda_does_by_hand(published):
    """At σ = 1, by the paper's recipe, λ = 5 answers nine images wrongly that λ = 0 answers rightly, and none the other way round."""
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'paper' and method == 'consistency' and sigma == 1")
    moves = along_path(path_of(runs))
    assert moves.part.to_list() == ["up to the recipe's λ", "beyond it"]
    assert moves[["least", "most", "seeds"]].values.tolist() == [[0, 5, 1], [5, 20, 1]]
    assert moves.broken.to_list() == [[], [25.0, 30.0]]  # at 25 every class is answered, and 72 % of the images rightly
    up, beyond = moves.itertuples()
    rows = [
        pd.read_csv(path / "certificates.tsv.gz", sep="\t").sort_values("idx")
        for lam in (0, 5) for path in PRECOMPUTED.glob(f"mnist-lenet-consistency-s1-l{lam}-seed0-*")
        if json.loads((path / "spec.json").read_text())["recipe"]["name"] == "paper"
    ]  # fmt: skip
    right = [table.correct.to_numpy() == 1 for table in rows]
    assert ((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()) == (9, 0)
    assert up.accuracy == pytest.approx(-9 / 500)
    assert up.accuracy_p == pytest.approx(2 * 0.5**9)
    acr = [float((table.radius * table.correct).mean()) for table in rows]
    assert up.acr == pytest.approx(acr[1] - acr[0])
    assert (up.acr_told, up.accuracy_told, beyond.acr_told, beyond.accuracy_told) == (1, -1, -1, 0)
    assert along_path(path_of(runs[runs.lam != 5])).empty  # without the recipe's own λ there are no two parts
    assert along_path(path_of(runs[runs.lam >= 5])).part.to_list() == ["beyond it"]
    assert along_path(path_of(runs[runs.lam.isin([5, 25, 30])])).empty
    assert along_path(
        path_of(runs[(runs.lam == 5) & (runs.seed > 0) | (runs.lam == 0)])
    ).empty  # no seed that both have
