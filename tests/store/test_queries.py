import json
import shutil
import statistics
from dataclasses import replace
from math import floor

import pandas as pd
import pytest

from app.figures.palette import dashes, run_labels
from backend.certification.confidence import ceiling
from backend.export import export
from backend.home import PRECOMPUTED, runs_root
from backend.plan import certify_again
from backend.run import Run
from backend.store import queries
from backend.store.snapshot import StoreError
from tests.store import ROWS, finished, publish, reach


def by_hand(runs, r):
    """Share of rows (label, predict, votes) that are right with radius >= r."""
    return sum(label == predict and reach(votes) >= r for label, predict, votes in runs) / len(runs)


def test_accuracy_at_a_radius_by_hand(home):
    """On the radii of the kept curve and between them; best first; 0 beyond the ceiling."""
    better = [(1, 1, 990), (2, 2, 990), (3, 3, 999), (5, -1, 500)]
    weak, strong = finished(ROWS), finished(better, seed=1)
    publish()
    for r in (0.0, 0.5, 0.57, 1.0, reach(990), reach(990) + 1e-6, 3.0):
        table = queries.accuracy_at(r, [weak.run_id, strong.run_id]).set_index("run_id")
        assert table.certified_accuracy[weak.run_id] == by_hand(ROWS, r)
        assert table.certified_accuracy[strong.run_id] == by_hand(better, r)
    assert queries.accuracy_at(0.5, [weak.run_id, strong.run_id]).run_id.tolist() == [strong.run_id, weak.run_id]


def test_groups_and_their_curves_by_hand(home):
    """Three seeds: mean and standard deviation (n − 1) over them, of ACR and at every radius; another λ is another group."""
    seeds = [[(1, 1, v), (2, 2, 990), (3, 4, 999), (5, -1, 500)] for v in (700, 900, 990)]
    runs = [finished(rows, method="consistency", seed=i) for i, rows in enumerate(seeds)]
    other = finished(ROWS, method="consistency", values={"lam": 7.0})
    again = Run.create(runs_root(), certify_again(runs[1].spec, runs[1].run_id, runs[1].spec.certification))
    for file in (runs[1].certificates_file, runs[1].state_file):  # the second seed, certified once more on equal terms
        shutil.copy(file, again.path)
    publish()
    assert again.run_id in queries.run_ids()
    table = queries.over_seeds([run.run_id for run in [*runs, again, other]])
    assert table.seeds.tolist() == [3, 1]
    group = table.iloc[0]
    values = [(reach(v) + reach(990)) / 4 for v in (700, 900, 990)]
    assert group.acr == pytest.approx(sum(values) / 3)
    assert group.acr_sd == pytest.approx(statistics.stdev(values))
    assert group.run_id == min(run.run_id for run in runs)
    assert list(group.run_ids) == [run.run_id for run in runs]
    assert group.certified_accuracy_0 == pytest.approx(sum(by_hand(rows, 0) for rows in seeds) / 3)
    assert pd.isna(table.iloc[1].acr_sd)
    assert table.iloc[1].lam == 7.0
    curves = queries.group_curves([run.run_id for run in [*runs, other]])
    ours = curves[curves.group_id == min(run.run_id for run in runs)].set_index("r")
    for r in (0.0, 0.2, 0.4, 0.6, 1.0):
        shares = [by_hand(rows, r) for rows in seeds]
        at = ours.iloc[round(r / 0.01)]
        assert at.certified_accuracy == pytest.approx(sum(shares) / 3)
        assert at.sd == pytest.approx(statistics.stdev(shares))


def test_another_learning_rate_is_another_group(home):
    """A recipe that does something otherwise is told from the one whose name it bears, and its log is imported under a word of its own."""
    runs = [finished(ROWS, seed=seed) for seed in range(2)]
    spec = runs[1].spec
    other = Run.create(runs_root(), replace(spec, seed=2, recipe=replace(spec.recipe, lr=0.2, drop_every=7)))
    for file in (runs[1].certificates_file, runs[1].state_file):
        shutil.copy(file, other.path)
    publish()
    table = queries.over_seeds([run.run_id for run in [*runs, other]]).set_index("recipe")
    assert table.seeds.to_dict() == {"quick": 2, "quick, lr 0.2, drop_every 7": 1}
    _, mapping = export("logs", [other.run_id], other.path.parent.parent / "logs", ())
    assert json.loads(mapping.read_text())[f"{other.run_id}.tsv"]["recipe"] == "quick_lr_0_2_drop_every_7"


def test_a_seed_that_collapsed_is_no_part_of_the_mean_of_the_others(home):
    learned = [finished([(1, 1, v), (2, 2, v)], seed=seed) for seed, v in enumerate((900, 980))]
    collapsed = finished([(1, 1, 1000), (2, 1, 1000)], seed=2, missing=9)
    publish()
    worse = finished([(1, 1, 1000), (2, 1, 1000)], seed=3, missing=2)
    publish()
    (both,) = queries.over_seeds([collapsed.run_id, worse.run_id]).itertuples()
    assert (both.seeds, both.missing_classes) == (2, 9)
    ids = [run.run_id for run in [*learned, collapsed]]
    table = queries.over_seeds(ids)
    assert sorted(map(list, table.run_ids)) == sorted([ids[:2], ids[2:]])
    mean = table.set_index("run_id").acr
    assert mean[min(ids[:2])] == pytest.approx((reach(900) + reach(980)) / 2)
    assert mean[ids[2]] == pytest.approx(reach(1000) / 2)
    at_0 = queries.group_curves(ids).query("r == 0").set_index("group_id").certified_accuracy
    assert at_0.to_dict() == {min(ids[:2]): 1.0, ids[2]: 0.5}
    names = run_labels(table)
    assert names == {min(ids[:2]): "Gaussian, σ = 0.5 (2 seeds)", ids[2]: "Gaussian, σ = 0.5, training collapsed"}
    assert run_labels(queries.over_seeds(ids[2:]))[ids[2]] == names[ids[2]]  # also where it is told apart from nothing


def test_the_envelope_of_three_sigmas_by_hand(home):
    """Small σ is better near 0, large σ far out; the envelope takes the best at every radius and names its σ."""
    runs = [
        finished([(1, 1, 1000), (2, 2, 1000), (3, 3, 1000), (4, 4, 1000)], sigma=0.25),  # all right, up to 0.61
        finished([(1, 1, 1000), (2, 2, 1000), (3, 3, 1000), (4, 5, 1000)], sigma=0.5),  # three, up to 1.23
        finished([(1, 1, 1000), (2, 2, 900), (3, 4, 1000), (4, 5, 1000)], sigma=1.0),  # one up to 2.46, one up to 1.16
    ]
    publish()
    best = queries.envelope([run.run_id for run in runs])
    at = {r: best.iloc[round(r / 0.01)] for r in (0.0, 0.6, 0.7, 1.2, 1.3, 2.4)}
    assert {r: (row.certified_accuracy, row.sigma) for r, row in at.items()} == {
        0.0: (1.0, 0.25), 0.6: (1.0, 0.25), 0.7: (0.75, 0.5), 1.2: (0.75, 0.5), 1.3: (0.25, 1.0), 2.4: (0.25, 1.0),
    }  # fmt: skip
    assert best.r.max() == floor(100 * ceiling(1.0, 1_000, 0.001)) / 100


def test_an_envelope_is_of_means_over_seeds(home):
    """Of three seeds no radius takes the best: one right at most means a third."""
    runs = [finished([(1, 1, votes), (2, 3, 1000)], seed=seed) for seed, votes in enumerate((1000, 900, 600))]
    publish()
    best = queries.envelope([run.run_id for run in runs]).set_index("r").certified_accuracy
    assert best[0.0] == 0.5
    assert best[1.2] == pytest.approx(0.5 / 3)


def test_labels_are_never_equal(home):
    """Two ways to write a hyper-parameter down are two runs; words alone would call them the same."""
    rows = pd.DataFrame(
        [
            {"run_id": f"x-{hyper}", "method": "consistency", "sigma": 0.5, "hyper": f'{{"lam": {hyper}}}', "recipe": "quick", "epochs": 8}
            | dict.fromkeys(("architecture", "source", "train_precision", "weights_dtype", "precision", "mode"), "same") | {"seed": 0} | more
            for hyper, more in (("5", {}), ("5.0", {}), ("6", {}))
        ]
    )  # fmt: skip
    labels = run_labels(rows)
    assert len(set(labels.values())) == 3
    assert labels["x-6"] == "Gaussian + Consistency, σ = 0.5, λ = 6"
    logs = rows[2:].assign(hyper="{}", method="gaussian", source="published")
    logs = pd.concat([logs.assign(run_id="a", radius_digits=3.0), logs.assign(run_id="b", radius_digits=5.0)])
    assert run_labels(logs) == {
        "a": "Gaussian, σ = 0.5, radii of 3 digits",
        "b": "Gaussian, σ = 0.5, radii of 5 digits",
    }


def test_every_sigma_has_a_line_style_of_its_own():
    styles = dashes([0.12, 0.25, 0.5, 1.0, 2.0, 3.0])
    assert len(set(styles.values())) == 6


def test_gains_are_of_runs_that_differ_in_the_method_alone(home):
    mine = {"gaussian": finished(ROWS), "consistency": finished(ROWS, method="consistency")}
    others = [finished(ROWS, train_precision="bfloat16"), finished(ROWS, seed=1), finished(ROWS, epochs=3)]
    publish()
    gains = queries.acr_gains([run.run_id for run in (*mine.values(), *others)], [("gaussian", "consistency")])
    assert gains[["baseline_id", "run_id"]].to_numpy().tolist() == [[run.run_id for run in mine.values()]]


def test_pairs_are_refused_unless_they_are_alike(home):
    a, b = finished(ROWS), finished(ROWS[:3])
    publish()
    with pytest.raises(StoreError, match="cannot be compared: they differ in image_set"):
        queries.paired([a.run_id], [b.run_id])
    other = finished([(7, 1, 900), *ROWS[1:]], seed=1)
    publish()
    with pytest.raises(StoreError, match="cannot be compared: their images have other labels"):
        queries.paired([a.run_id], [other.run_id])
    with pytest.raises(StoreError, match="there is no certified run 'nothing'"):
        queries.paired([a.run_id], ["nothing"])


def test_a_pair_by_hand(home):
    a, b = finished(ROWS), finished([(1, 1, 990), (2, 2, 990), (3, 3, 999), (5, -1, 500)], seed=1)
    publish()
    p = queries.paired([a.run_id], [b.run_id], 0.5)
    assert p.acr == pytest.approx((reach(990) - reach(900) + reach(999)) / 4)
    assert (p.images, p.gained, p.lost) == (4, 1, 0)


def test_groups_of_seeds_are_compared_by_their_means(home):
    """Two seeds against one: each image's gain and its being reached are means over the seeds."""
    a = finished(ROWS)
    b = [finished([(1, 1, k), (2, 2, 990), (3, 4, 999), (5, -1, 500)], seed=seed) for seed, k in ((1, 990), (2, 700))]
    publish()
    ids = [run.run_id for run in b]
    images = queries.images_of(ids, 0.5)
    assert images.gain.to_list() == pytest.approx([(reach(990) + reach(700)) / 2, reach(990), 0, 0])
    assert images.reached.to_list() == [0.5, 1, 0, 0]
    assert images.p.to_list() == pytest.approx([0.845, 0.99, 0.999, 0.5])
    p = queries.paired([a.run_id], ids, 0.5)
    alone = [queries.paired([a.run_id], [i], 0.5) for i in ids]
    assert p.acr == pytest.approx(sum(one.acr for one in alone) / 2)
    assert p.accuracy == pytest.approx(sum(one.accuracy for one in alone) / 2)
    assert (p.gained, p.lost, p.accuracy_p) == (None, None, None)


def test_per_class_by_hand(home):
    run = finished([(1, 1, 900), (1, 2, 990), (2, 2, 999), (2, -1, 500)])
    publish()
    table = queries.per_class([run.run_id]).set_index("label")
    assert table.acr.to_dict() == pytest.approx({1: reach(900) / 2, 2: reach(999) / 2})
    assert table.abstention.to_dict() == {1: 0.0, 2: 0.5}
    again = finished([(1, 1, 900), (1, 1, 990), (2, 2, 999), (2, 1, 700)], seed=1)
    publish()
    table = queries.per_class([run.run_id, again.run_id]).set_index("label")
    assert table.images.to_dict() == {1: 2, 2: 2}
    assert table.certified_accuracy_0.to_dict() == {1: 0.75, 2: 0.5}


def test_published_networks_on_our_terms(home):
    """At n = 10 000 on every 20th image: five seeds each, recomputed, and lower than at n = 100 000 on all."""
    publish()
    ours = queries.published_groups("mnist", 10_000, 100, 0.001, "test/every 20").set_index(
        ["method", "sigma", "seeds"]
    )
    theirs = queries.published_groups("mnist", 100_000, 100, 0.001, "test/every 1").set_index(
        ["method", "sigma", "seeds"]
    )
    assert ours.recomputed.all()
    logs = pd.read_csv(PRECOMPUTED / "published" / "released-runs.tsv", sep="\t")
    of = logs[(logs.dataset == "mnist") & (logs.method == "gaussian") & (logs.sigma == 0.5) & logs.recomputed]
    assert len(of) == 5
    sampled = (of.acr_sampling_sd**2).mean()
    assert sampled > 0.02 * of.acr.var()  # that it is part of it can be seen
    assert ours.acr_sd["gaussian", 0.5, 5] == pytest.approx((of.acr.var() + sampled) ** 0.5)
    assert not theirs.recomputed.any()
    assert f"{theirs.acr['consistency', 0.5, 5]:.4f}" == "1.6549"
    assert 1.42 < ours.acr["consistency", 0.5, 5] < 1.45
    curves = queries.published_curves("mnist", 100_000, 100, 0.001, "test/every 1")
    first = curves[(curves.method == "gaussian") & (curves.sigma == 0.5)]
    assert first.certified_accuracy.iloc[0] == pytest.approx(theirs.certified_accuracy_0["gaussian", 0.5, 5])


def test_terms_in_words():
    """Equal exactly where two runs of a data set may be compared: mode, n, n0, α, the images."""
    run = pd.Series(
        {"mode": "fixed", "n": 10_000, "n0": 100, "alpha": 0.001, "images": 500, "image_set": "test/every 20"}
    )
    assert queries.terms(run) == "n = 10,000, n0 = 100, α = 0.001, 500 test images (every 20)"
    run["mode"], run["image_set"] = "fixed, float-sound", "test/every 20/first 9"
    assert queries.terms(run).startswith("fixed, float-sound, n = 10,000")
    assert queries.terms(run).endswith("(every 20, first 9)")
    run["mode"] = "at-radius, radius 0.5"
    assert queries.terms(run).startswith("at-radius, radius 0.5, at most n = 10,000, n0 = 100")


def test_nobody_is_told_the_acr_of_runs_that_stop_early():
    """`runs`, its JSON and `export csv` alike."""
    runs = pd.DataFrame(
        {
            "mode": ["fixed", "at-radius, radius 0.5", "anytime, radius 0.5", "anytime", None],
            "acr": [1.0, 0.5, 0.5, 1.0, None],
            "certified_accuracy_0": 1.0,
            "abstention": 0.0,
        }
    )
    told = queries.measured(runs)
    assert told.acr.notna().tolist() == [True, False, False, True, False]
    assert told.abstention.notna().tolist() == [True, False, False, True, True]
    assert runs.acr.notna().sum() == 4
