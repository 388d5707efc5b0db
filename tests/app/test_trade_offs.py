"""The page Trade-offs, without a browser."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from app.figures.palette import title
from backend.home import PRECOMPUTED, imported_root, runs_root
from backend.jobs.worker import work
from backend.logs import import_logs
from backend.recipes import recipe_for
from backend.reproduction import usual
from backend.run import Run, find_run
from backend.statistics import share_band
from backend.store import queries
from backend.store.publish import publish
from tests.app import CONSISTENCY, GAUSSIAN, digits, imitate, page, words


def test_the_best_at_a_radius_is_asked_of_the_store(published):
    """At r = 1.7 σ = 0.25 and 0.5 reach nothing; at 0.5 the first of the ranking is named; beyond everything nobody is."""
    app = page("trade_offs").run()
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'paper'")
    runs = runs[usual(runs)]
    for r in (0.5, 1.7):
        app.slider(key="r").set_value(r).run()
        each = queries.accuracy_at(r, runs.run_id.to_list()).groupby(["method", "sigma"]).certified_accuracy.mean()
        method, sigma = each.idxmax()
        assert app.metric[-1].value == f"{each.max():.1%}"
        assert f"**{title(method)}, σ = {sigma:g}" in words(app)
    assert "looks better than it is" in words(app)


def test_how_many_others_may_be_as_good_is_said(published):
    """Of the settings of the paper's recipe at r = 0.5, by Clopper–Pearson's intervals of their means over seeds."""
    app = page("trade_offs").run()
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'paper'")
    settings = queries.over_seeds(runs[usual(runs)].run_id)
    each = queries.accuracy_at(0.5, [i for ids in settings.run_ids for i in ids]).set_index("run_id").certified_accuracy
    shares = sorted((each[list(ids)].mean() for ids in settings.run_ids), reverse=True)
    low, high = share_band(np.round(np.array(shares) * 500), 500)
    near = int((high[1:] >= low[0]).sum())
    assert (
        f"{low[0]:.1%} to {high[0]:.1%} on other images (95 %); {near} others have intervals that overlap it"
        in words(app)
    )


def test_captions_say_terms_and_how_far_images_move_things(published):
    text = words(page("trade_offs").run())
    assert "Of those trained longest: MACER at σ = 1 is below, by 0.0330 ± 0.0251 (`paper`, 1 seed of ours)." in text
    runs = queries.runs().query("dataset == 'mnist' and recipe == 'paper' and sigma == 0.25")
    low, high = share_band(500 * queries.over_seeds(runs.run_id).certified_accuracy_0.to_numpy(), 500)
    assert f"± {50 * np.median(high - low):.1f} points at σ = 0.25" in text
    garments = words(page("trade_offs", dataset="fashion_mnist").run())
    assert "*cat-rs*, n = 100,000 on 10,000 images: " in garments


@pytest.mark.parametrize(
    ("asked", "times"),
    [
        ({"recipe": "quick, 8 epochs", "sigma": "1.0"}, 2),
        ({"recipe": "paper, 90 epochs", "sigma": "1.0"}, 1),  # λ = 25 and 30, along λ alone
        ({"recipe": "paper, 90 epochs", "sigma": "0.5"}, 0),
        ({"dataset": "fashion_mnist"}, 0),  # networks that collapsed, none far below
    ],
)
def test_captions_explain_what_is_named_above_a_panel_where_something_is(published, asked, times):
    assert words(page("trade_offs", **asked).run()).count("What is named above a panel lies outside it") == times


def test_methods_are_compared_within_a_recipe_unless_more_are_asked_for(home):
    shipped = find_run(GAUSSIAN, PRECOMPUTED)
    imitate(shipped, replace(shipped.spec, recipe=recipe_for("paper", "mnist"), seed=9))
    publish()
    app = page("trade_offs").run()
    assert app.button_group(key="recipe").value == ["paper, 90 epochs"]  # the longest of several methods
    assert "Left out, trained otherwise: " in words(app)
    for wanted in (["quick"], ["paper"], ["paper", "quick"]):
        pills = [{"quick": "quick, 8 epochs", "paper": "paper, 90 epochs"}[recipe] for recipe in wanted]
        app.button_group(key="recipe").set_value(pills).run()
        assert not app.exception
        assert set(app.dataframe[-1].value.recipe) == set(wanted)
    assert "trained otherwise" not in words(app)
    app.button_group(key="recipe").set_value([]).run()
    assert "Choose a recipe above" in app.info[0].value
    app.button_group(key="recipe").set_value(["quick, 8 epochs"]).run()
    imitate(shipped, replace(shipped.spec, recipe=replace(shipped.spec.recipe, epochs=99), seed=9))
    publish()  # a recipe of another length is another training, and changes nothing for who looks
    assert app.run().button_group(key="recipe").value == ["quick, 8 epochs"]
    assert set(app.dataframe[-1].value.epochs) == {8}
    assert page("trade_offs").run().button_group(key="recipe").value == [
        "paper, 90 epochs"
    ]  # 99 is of one method alone


def test_methods_without_the_longest_training_are_shown_by_their_own(published):
    """SmoothAdv + Consistency has runs of the recipe `quick` alone; found by way of a link."""
    app = page("trade_offs")
    app.query_params["method"] = ["SmoothAdv + Consistency"]
    app.run()
    assert not app.exception
    assert set(app.dataframe[-1].value.recipe) == {"quick"}


def test_a_link_to_a_data_set_without_runs_says_what_is_shown_instead(published):
    run = Run.create(runs_root(), digits())
    assert work(run, "cpu")
    publish()
    for name, what in (("trade_offs", "runs"), ("certify_image", "networks with weights")):
        app = page(name, dataset="cifar10").run()
        assert not app.exception
        assert f"asks for the data set cifar10, of which there are no {what} here. What is shown is" in words(app)
        app.selectbox(key="dataset").set_value("digits").run()
        assert not app.exception
        assert "cifar10" not in words(app)
        assert "asks for the data set" not in words(page(name, dataset="digits").run())


def test_an_imported_ablation_is_shown_beside_trained_runs_and_without_them(home, tmp_path):
    log = tmp_path / "log"
    rows = [f"{i}\t{i % 10}\t{i % 10}\t0.50\t1\t0:00:01" for i in range(0, 10_000, 20)]
    log.write_text("\n".join(["idx\tlabel\tpredict\tradius\tcorrect\ttime", *rows]) + "\n")
    facts = {"dataset": "mnist", "method": "consistency", "sigma": "0.5", "lam": "5", "m": "8", "n": "10000"}
    ((imported, _),) = [(one.run, one.reason) for one in import_logs(log, imported_root(), facts)]
    publish()
    app = page("trade_offs")
    app.query_params.update({"method": ["Gaussian + Consistency"], "sigma": ["0.5"]})
    app.run()
    for recipes in (["paper, 90 epochs"], []):
        app.button_group(key="recipe").set_value(recipes).run()
        assert not app.exception
        assert imported.run_id in "".join(app.dataframe[-1].value.run_id)


@pytest.mark.parametrize(
    ("asks", "said"),
    [
        ({"sigma": ["7", "0.5"]}, "asks for σ = 7, of which there are no runs here"),
        ({"method": ["PixelDP", "MACER"]}, "asks for the method PixelDP, of"),
        ({"settings": ["n = 5"]}, "asks for the settings n = 5, of"),
        ({"recipe": ["slow"]}, "asks for the recipe slow, of"),
        ({"r": "far"}, "asks for r = far, which is no number from 0 to"),
        ({"r": "1e99"}, "asks for r = 1e99, which is no number from 0 to"),
    ],
)
def test_a_link_to_a_view_that_is_not_here_says_so_until_the_visitor_chooses(published, asks, said):
    app = page("trade_offs")
    app.query_params.update(asks)
    app.run()
    assert not app.exception
    assert said in words(app)
    assert app.button_group(key="extras").value == ["published networks"]
    (key,) = asks
    if key == "r":
        app.slider(key="r").set_value(0.75).run()
        assert said not in words(app)
    elif key != "settings":  # there are no others
        app.button_group(key=key).set_value(app.button_group(key=key).value[:1]).run()
        app.button_group(key=key).set_value([]).run()
        assert said not in words(app)


def test_a_link_of_a_view_without_any_sigma_is_no_wrong_link(published):
    app = page("trade_offs", sigma="").run()
    assert not app.exception
    assert not app.warning
    assert "No certified run fits these filters" in app.info[0].value


def test_published_networks_are_offered_where_there_are_some(published):
    """What else a link or a visitor chose stays with the data set that has none."""
    app = page("trade_offs", dataset="fashion_mnist", extras="95 % bands").run()
    offered = ["all σ in one", "95 % bands", "envelope"]
    assert (app.button_group(key="extras").options, app.button_group(key="extras").value) == (offered, ["95 % bands"])
    app = page("trade_offs").run()
    app.button_group(key="extras").set_value(["95 % bands", "published networks"]).run()
    app.selectbox(key="dataset").set_value("fashion_mnist").run()
    assert not app.exception
    assert (app.button_group(key="extras").options, app.button_group(key="extras").value) == (offered, ["95 % bands"])


def test_departures_from_the_paper_are_said_at_their_sigma(published):
    said = words(page("trade_offs").run())
    assert "MACER, `quick`: λ = 1 (paper: 16) at σ = 0.25 and 0.5, m = 4 (paper: 16), deferred" in said
    assert "λ = 1 (paper: 6) at σ = 1" in said
    assert "warmup = 4 (paper: 10) at σ = 1" in said
    assert (
        "- `quick`: lr = 0.03 (paper: 0.01), schedule = cosine (paper: step), init = kaiming (paper: default)\n" in said
    )
    assert "- `paper`: " not in said
    garments = words(page("trade_offs", dataset="fashion_mnist").run())
    assert "it has none of fashion_mnist, and those of its experiment, on mnist, are taken." in garments


def test_what_stops_at_a_certified_radius_compares_up_to_it(home):
    one = Run.create(runs_root(), digits(mode="anytime", radius=0.25))
    assert work(one, "cpu")
    publish((runs_root(),))
    app = page("run", run=one.run_id).run()
    assert [m.label for m in app.metric] == ["Certified accuracy at 0", "Certified accuracy at 0.25"]
    app = page("trade_offs").run()
    assert not app.exception
    assert app.slider(key="r").max == 0.25
    assert "acr" not in app.dataframe[-1].value.columns


def test_what_new_runs_bring_is_chosen_and_what_was_left_out_stays_out(home):
    gaussian, consistency = (find_run(name, PRECOMPUTED) for name in (GAUSSIAN, CONSISTENCY))
    imitate(gaussian, gaussian.spec)
    imitate(gaussian, replace(gaussian.spec, sigma=0.25))
    publish((runs_root(),))
    app = page("trade_offs").run()
    app.button_group(key="sigma").set_value(["0.5"]).run()
    imitate(consistency, consistency.spec)
    publish((runs_root(),))
    app.run()
    assert not app.exception
    assert app.button_group(key="sigma").value == ["0.5"]
    assert app.button_group(key="method").value == ["consistency", "gaussian"]
    assert set(app.dataframe[-1].value.method) == {"consistency", "gaussian"}


def test_nothing_chosen_is_an_empty_state(published):
    app = page("trade_offs").run()
    app.button_group(key="sigma").set_value([]).run()
    assert not app.exception
    assert "Choose another σ or method" in app.info[0].value


def test_a_run_with_another_form_and_one_with_more_seeds_are_named(home):
    """In a store without the usual form: whatever differs from the paper's is said, words as well as numbers; a mean is no seed's."""
    gaussian, consistency = (find_run(name, PRECOMPUTED) for name in (GAUSSIAN, CONSISTENCY))
    imitate(consistency, replace(consistency.spec, hyper=dict(consistency.spec.hyper) | {"form": "kl"}))
    imitate(gaussian, gaussian.spec)
    imitate(gaussian, replace(gaussian.spec, seed=1))
    publish((runs_root(),))
    app = page("trade_offs").run()
    assert not app.exception
    assert "form = kl (paper: default)" in words(app)
    names = [
        trace["name"]
        for chart in app.get("plotly_chart")
        for trace in json.loads(chart.proto.spec)["data"]
        if "name" in trace
    ]
    assert "Gaussian (2 seeds)" in names
    assert not [name for name in names if "seed 1" in name]


def test_the_page_says_what_a_larger_lambda_does(published):
    said = words(page("trade_offs").run())
    assert (
        "Measured here, along λ: up to the recipe's λ a larger one **buys ACR, and no price in accuracy shows** at σ = 0.5 (λ = 0 → 5), "
        "**buys ACR with accuracy** at σ = 1 (λ = 0 → 5); beyond it a larger one **changes neither so that it shows** at σ = 0.5 (λ = 5 → 30), "
        "**costs ACR, and no accuracy shows for it** at σ = 1 (λ = 5 → 20); "
        "at σ = 0.25 one λ alone was run."
    ) in said
    assert (
        "λ = 0 → 5: ACR +0.0738 (+0.0580 to +0.0896); certified accuracy at r = 0: -1.8 points (-3.6 to +0.1, told apart by McNemar's test, p = 0.004); one seed."
        in said
    )
    assert "Beyond, at λ = 25 and 30, training broke down." in said
    app = page("trade_offs", dataset="fashion_mnist").run()
    assert "Measured here, along λ" not in words(app)


def test_bands_are_not_drawn_over_each_other(published):
    """Both recipes and every σ in one figure: 30 lines, of which none could be followed under 30 bands."""
    app = page(
        "trade_offs", extras=["all σ in one", "95 % bands"], recipe=["paper, 90 epochs", "quick, 8 epochs"]
    ).run()
    assert not app.exception
    assert re.search(
        r"Bands are drawn for at most 12 lines in a figure, and there would be \d\d: choose fewer", words(app)
    )
    app.button_group(key="extras").set_value(["95 % bands"]).run()
    fewer = [method for method in app.button_group(key="method").value if method != "macer"]
    app.button_group(key="method").set_value(fewer).run()
    assert "Bands are drawn for at most" not in words(app)


def test_without_consistency_nothing_is_said_of_it(published):
    app = page("trade_offs", method=["SmoothAdv", "SmoothAdv + Consistency"]).run()
    assert not app.exception
    assert "That wants a run of Gaussian + Consistency and one of a baseline" in words(app)
    assert "ACR of Gaussian + Consistency" not in words(app)


def test_a_sigma_that_no_page_can_write_is_one_of_its_own(home, digits_spec):
    """No new run has one; a folder of before, or of elsewhere, may."""
    for sigma in (0.25, 0.2500001):
        work(Run.create(runs_root(), replace(digits_spec(sigma=0.25), sigma=sigma)), "cpu")
    publish((runs_root(),))
    app = page("trade_offs").run()
    assert not app.exception
    assert app.button_group(key="sigma").options == ["0.25", "0.2500001"]
