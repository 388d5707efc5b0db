"""The page Compare, without a browser."""

import json
from dataclasses import replace

import pytest

from backend.datasets import DATASETS
from backend.home import PRECOMPUTED, runs_root
from backend.jobs.worker import work
from backend.reproduction import gains_over_seeds, usual
from backend.rows import EPOCH_COLUMNS, Epoch
from backend.run import Run, all_runs, find_run
from backend.store import queries
from backend.store.publish import publish
from tests.app import CONSISTENCY, GAUSSIAN, digits, imitate, ordinary, page, words


def test_compare_begins_with_the_ordinary_runs(published):
    """Not with an end of the path along λ."""
    runs = queries.runs().set_index("run_id")
    app = page("compare").run()
    (b,) = app.multiselect(key="b").value
    assert (runs.method[b], runs.sigma[b], runs.lam[b], runs.recipe[b]) == ("consistency", 0.5, 5.0, "paper")


def test_groups_are_compared_at_the_seeds_that_both_have(published):
    """MACER has one seed by the paper's recipe, Consistency five: the difference is that of Trade-offs, and the page says so."""
    app = page("compare").run()
    assert "not at all seeds" not in words(app)
    runs = ordinary(0.5)
    (macer,) = runs["macer"]
    app.selectbox(key="a").set_value(macer).run()
    assert not app.exception
    gains = queries.acr_gains([macer, *runs["consistency"]], [("macer", "consistency")])
    assert {m.label: m.value for m in app.metric}["ACR, b less a"] == f"{gains.gain.item():+.4f}"
    (b,) = app.multiselect(key="b").value
    assert "Compared at the seeds that both have, not at all seeds: Gaussian + Consistency" in words(app)
    assert " at seed 0." in words(app)
    assert "b: **Gaussian + Consistency, σ = 0.5, λ = 5**." in words(app)
    one_of_b = gains.run_id.item()
    p = queries.paired([macer], [one_of_b], 0.5)
    values = {m.label: m.value for m in app.metric}
    assert (values["Images gained"], values["Images lost"]) == (str(p.gained), str(p.lost))  # of single runs
    by_class = next(table.value for table in app.dataframe if "acr b" in table.value)
    assert by_class["acr b"].to_list() == pytest.approx(queries.per_class([one_of_b]).acr.to_list())
    gaussian = runs["gaussian"][0]
    app.multiselect(key="b").set_value([b, gaussian]).run()
    assert words(app).count(" at seed 0") == 2


def test_the_interval_of_three_seeds_or_more_is_that_of_trade_offs(published):
    """By `quick` at σ = 1 one of five seeds of Gaussian is far below: the images alone would say ± 0.018."""
    runs = queries.runs().query("dataset == 'mnist' and sigma == 1 and recipe == 'quick'")
    runs = runs[usual(runs)]
    gains = queries.acr_gains(runs.run_id, [("gaussian", "consistency")])
    (over,) = gains_over_seeds(gains, ["baseline"]).itertuples()
    assert over.half > 0.1
    groups = queries.over_seeds(runs.run_id).set_index("method").run_id
    app = page("compare", a=groups["gaussian"], b=groups["consistency"]).run()
    assert not app.exception
    shown = next(m for m in app.metric if m.label == "ACR, b less a")
    assert (shown.value, shown.delta) == (
        f"{over.gain:+.4f}",
        f"{over.gain - over.half:+.4f} to {over.gain + over.half:+.4f}",
    )
    assert "Intervals cover the choice of test images and of training seeds: " in words(app)


def test_compare_says_what_the_paired_tests_say(published):
    app = page("compare").run()
    assert not app.exception
    runs = ordinary(0.5)  # five seeds of each
    p = queries.paired(runs["gaussian"], runs["consistency"], 0.5)
    assert {m.label: m.value for m in app.metric}["ACR, b less a"] == f"{p.acr:+.4f}"
    few, many, other = (
        f"mnist-lenet-consistency-s0.5-{end}"
        for end in ("l0-seed0-fdfe35e0", "l5-seed0-a632b8dd", "l5-seed0-afa21f02")  # of settings that have one seed
    )
    app.selectbox(key="a").set_value(few).run()
    app.multiselect(key="b").set_value([many]).run()
    assert not app.exception
    p = queries.paired([few], [many], 0.5)
    values = {m.label: m.value for m in app.metric}
    assert values["ACR, b less a"] == f"{p.acr:+.4f}"
    assert (values["Images gained"], values["Images lost"]) == (str(p.gained), str(p.lost))
    assert "On average b certifies **larger radii**; at r = 0.5 the two are **not told apart**." in words(app)
    app.multiselect(key="b").set_value([many, other]).run()
    assert not app.exception
    app.pills(key="detail").set_value(other).run()
    p = queries.paired([few], [other], 0.5)
    assert {m.label: m.value for m in app.metric}["ACR, b less a"] == f"{p.acr:+.4f}"
    app.pills(key="detail").set_value(many).run()
    app.number_input(key="r").set_value(1.5).run()
    p = queries.paired([few], [many], 1.5)
    assert f"at r = 1.5 b certifies **more images** (McNemar's exact test, p = {p.accuracy_p:.2g})." in words(app)
    app.multiselect(key="b").set_value([]).run()
    assert "Choose at least one run" in app.info[0].value
    app.button_group(key="sigma").set_value([]).run()
    assert "wants two runs, or groups of seeds, that were certified with the same n" in app.info[0].value


def test_classes_are_named(published):
    app = page("compare", dataset="fashion_mnist", sigma="0.5").run()
    app.number_input(key="r").set_value(1.0).run()
    assert not app.exception
    tables = [frame.value for frame in app.dataframe if "label" in frame.value]
    garments = set(DATASETS["fashion_mnist"].classes)
    assert set(tables[-1].label) == garments  # by class
    assert set(tables[0].label) <= garments  # images gained and lost


def test_trainings_lie_beside_each_other(published):
    """Means over five seeds each; the released networks of an import have none."""
    app = page("compare").run()
    assert "How they were trained" in [h.value for h in app.header]
    lines = {
        (chart.proto.alt, trace["name"]): trace
        for chart in app.get("plotly_chart")
        for trace in json.loads(chart.proto.spec)["data"]
        if "per epoch" in chart.proto.alt
    }
    assert len(lines) == 4
    runs = ordinary(0.5)
    last = [Run(folder).epochs()[-1] for folder in queries.runs().set_index("run_id").folder[list(runs["consistency"])]]
    assert len(last) == 5
    trace = next(t for (alt, name), t in lines.items() if alt.startswith("accuracy") and "Consistency" in name)
    assert (len(trace["x"]), trace["x"][-1]) == (90, 90)
    assert trace["y"][-1] == pytest.approx(sum(row["accuracy"] for row in last) / 5)
    assert "They differ in" not in words(app)
    app.multiselect(key="b").set_value([min(ordinary(1.0, "quick")["macer"])]).run()
    assert not app.exception
    assert "They differ in training (paper, 90 epochs and quick, 8 epochs) and in σ (0.5 and 1) too" in words(app)


def test_compare_decides_at_the_radius_that_was_asked_for(home):
    for seed in (0, 1):
        run = Run.create(runs_root(), replace(digits(mode="at-radius", radius=0.25), seed=seed))
        assert work(run, "cpu")
    run = Run.create(runs_root(), replace(digits(mode="at-radius", radius=0.25), sigma=0.25))
    assert work(run, "cpu")
    publish((runs_root(),))
    app = page("compare").run()
    assert not app.exception
    assert "Certified accuracy at 0.25, b less a" in {m.label for m in app.metric}
    assert "ACR, b less a" not in {m.label for m in app.metric}
    assert not app.number_input
    assert "larger radii" not in words(app)


def test_of_one_image_nothing_is_compared(home):
    for seed in (0, 1):
        assert work(Run.create(runs_root(), replace(digits(limit=1), seed=seed, sigma=0.25 + seed)), "cpu")
    publish((runs_root(),))
    app = page("compare").run()
    assert not app.exception
    assert "One image says nothing of others" in app.info[-1].value
    assert not page("trade_offs").run().exception


def test_a_link_to_a_comparison_names_runs_and_outlives_new_ones(published):
    runs = (
        queries.runs().query("dataset == 'mnist' and sigma == 1").drop_duplicates("method").set_index("method").run_id
    )
    app = page("compare")
    app.query_params["a"], app.query_params["b"] = runs["macer"], [runs["stability"], runs["gaussian"], "nothing-s1"]
    app.run()
    assert not app.exception
    assert app.selectbox(key="a").value == runs["macer"]
    assert app.multiselect(key="b").value == [runs["stability"], runs["gaussian"]]
    app.multiselect(key="b").set_value([runs["consistency"]]).run()
    assert app.query_params["b"] == runs["consistency"]
    app.selectbox(key="a").set_value(runs["consistency"]).run()
    assert not app.exception
    assert runs["consistency"] not in app.multiselect(key="b").value


def test_compare_shows_the_images_that_changed(published):
    app = page("compare").run()
    app.number_input(key="r").set_value(1.2).run()
    app.toggle(key="pictures").set_value(True).run()
    assert not app.exception
    runs = ordinary(0.5)
    a, b = (queries.images_of(runs[m], 1.2) for m in ("gaussian", "consistency"))
    table = app.dataframe[0].value
    assert set(table[table.by_b == "gained"].idx) == set(a.idx[(b.reached > a.reached)])
    assert not app.info  # the test images were read


def test_what_is_drawn_is_named_by_the_seeds_that_are_compared(published):
    """Gaussian has five seeds by the paper's recipe, SmoothAdv one: that of Gaussian is what is drawn beside it."""
    app = page("compare").run()
    (smoothadv,) = queries.runs().query("method == 'smoothadv' and recipe == 'paper' and sigma == 0.5").run_id
    app.multiselect(key="b").set_value([smoothadv]).run()
    drawn = next(
        json.loads(chart.proto.spec) for chart in app.get("plotly_chart") if "accuracy under noise" in chart.proto.spec
    )
    assert [line["name"] for line in drawn["data"]] == ["Gaussian, σ = 0.5", "SmoothAdv, σ = 0.5"]


def test_compare_opens_with_networks_that_learned_and_names_those_that_did_not(home):
    shipped = [find_run(name, PRECOMPUTED) for name in (GAUSSIAN, CONSISTENCY)]
    for run in shipped:
        for seed in range(2):
            imitate(run, replace(run.spec, seed=seed))
    for run in all_runs(runs_root()):  # networks of their own
        run.set_environment(run.environment() | {"weights_sha256": run.run_id})
    collapsed = min((run for run in all_runs(runs_root()) if run.spec.method == "gaussian"), key=lambda run: run.run_id)
    rows = collapsed.epochs()
    collapsed.training_file.unlink()
    for row in rows:  # with nine classes that it hardly ever answers
        kept = {name: row.get(name) for name in EPOCH_COLUMNS} | {"epoch": int(row["epoch"]), "missing_classes": 9}
        collapsed.append(Epoch(**kept, terms={name: value for name, value in row.items() if name not in EPOCH_COLUMNS}))
    publish((runs_root(),))
    app = page("compare").run()
    assert not app.exception
    assert "a: **Gaussian, σ = 0.5**, b: **Gaussian + Consistency, σ = 0.5, λ = 5**" in words(app)
    app.selectbox(key="a").set_value(collapsed.run_id).run()
    assert "a: **Gaussian, σ = 0.5, training collapsed**" in words(app)
