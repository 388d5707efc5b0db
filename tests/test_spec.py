import json
import re
from dataclasses import replace

import pytest

from backend.datasets import DatasetError
from backend.plan import certify_again, plan, sweep
from backend.spec import RECIPES, Certification, Recipe, RunSpec, SpecError


def test_round_trip_through_json():
    spec = plan("mnist", "consistency", 0.25, certification=Certification(limit=7), seed=3, weights_dtype="float16")
    assert RunSpec.from_json(spec.to_json()) == spec


def test_run_id_is_readable_and_stable():
    """Shipped folders carry these ids: a change of the spec's form must not change them."""
    shipped = plan("mnist", "consistency", 0.5, weights_dtype="float16", certification=Certification())
    assert shipped.run_id == "mnist-lenet-consistency-s0.5-l5-seed0-e203f8c4"


def test_equal_specs_have_one_id():
    """Whether a number was written as a whole one or not."""
    for one, other in (
        ({"mode": "at-radius", "radius": 1}, {"mode": "at-radius", "radius": 1.0}),
        ({"mode": "anytime", "width": 2}, {"mode": "anytime", "width": 2.0}),
    ):
        a, b = (plan("mnist", "gaussian", 1, certification=Certification(**given)) for given in (one, other))
        assert (a, a.run_id, a.to_json()) == (b, b.run_id, b.to_json())
    a, b = (replace(a, recipe=Recipe(name="own", lr=lr, warmup=0)) for lr in (1, 1.0))
    assert (a, a.run_id) == (b, b.run_id)
    a, *others = (plan("mnist", "consistency", 0.5, values={"lam": lam}) for lam in (0, 0.0, -0.0))
    others.append(replace(a, hyper=dict(a.hyper) | {"lam": -0.0}))
    assert {(other.run_id, other.to_json()) for other in others} == {(a.run_id, a.to_json())}


def test_run_id_tells_specs_apart():
    spec = plan("mnist", "gaussian", 0.5, certification=Certification())
    others = [
        replace(spec, seed=1), replace(spec, sigma=0.25), replace(spec, certification=None),
        replace(spec, certification=Certification(n=1000)), replace(spec, recipe=Recipe(epochs=9)),
        replace(spec, weights_of="a"),
    ]  # fmt: skip
    assert len({s.run_id for s in [spec, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: plan("mnst", "gaussian", 0.5),
            "dataset must be one of mnist, digits, fashion_mnist, cifar10, imagenet, not 'mnst'",
        ),
        (lambda: plan("mnist", "gauss", 0.5), "method must be one of"),
        (lambda: plan("mnist", "gaussian", 0), "sigma must be from 0.0001 to 100, not 0.0"),
        (lambda: plan("mnist", "gaussian", float("nan")), "sigma must be"),
        (lambda: plan("mnist", "gaussian", 0.5, values={"lam": 1.0}), "gaussian has no hyper-parameter 'lam'"),
        (lambda: plan("mnist", "consistency", 0.5, values={"m": 1}), "consistency.m must be from 2 to 64, not 1"),
        (lambda: plan("mnist", "consistency", 0.5, values={"form": "l1"}), "consistency.form must be one of"),
        (lambda: plan("mnist", "consistency", 0.5, values={"lam": "5"}), "consistency.lam must be a number"),
        (
            lambda: plan("mnist", "consistency", 0.5, values={"lam": 10**400}),
            "consistency.lam must be a number, not 1000",
        ),
        (lambda: plan("mnist", "gaussian", 0.5, seed=-1), "seed must be"),
        (lambda: plan("mnist", "gaussian", 0.5, epochs=0), "epochs must be"),
        (lambda: plan("../mnist", "gaussian", 0.5), "dataset must be"),
        (lambda: plan("mnist", "gaussian", 0.5, architecture="../x"), "architecture must be a word"),
        (lambda: Recipe(name=None), "a recipe's name must be a word of a-z, 0-9 and _, not None"),
        (lambda: Certification(n=0), "n must be"),
        (lambda: Certification(n0=0), "n0 must be"),
        (lambda: Certification(n=1.5), "n must be a whole number, not 1.5"),
        (lambda: Certification(alpha=0.0), "alpha must be from 1e-12 to 0.999, not 0.0"),
        (lambda: Certification(alpha=1.0), "alpha must be from"),
        (
            lambda: plan("mnist", "gaussian", 0.5, certification=Certification(alpha=0.01234561)),
            "alpha must have at most six significant digits, not 0.01234561; take 0.0123456",
        ),
        (lambda: plan("mnist", "gaussian", 0.2500001), "sigma must have at most six significant digits"),
        (lambda: plan("mnist", "consistency", 0.5, values={"lam": 5.0000001}), "lam must have at most six"),
        (lambda: RunSpec.from_json('{"dataset": "mnist"}'), "not a spec"),
        (lambda: RunSpec.from_json("[]"), "not a spec"),
        (
            lambda: sweep([], [0.5], [], [0], dataset="mnist"),
            "this sweep is empty: give at least one method, one sigma and one seed, not none",
        ),
    ],
)
def test_errors_state_rule_and_value(make, says):
    with pytest.raises((SpecError, DatasetError), match=re.escape(says)):
        make()


def test_unknown_field_in_json_is_refused():
    values = json.loads(plan("mnist", "gaussian", 0.5).to_json()) | {"surprise": 1}
    with pytest.raises((SpecError, DatasetError), match="surprise"):
        RunSpec.from_json(json.dumps(values))


def test_the_papers_hyper_parameters_are_the_default():
    assert [plan("mnist", "consistency", s).hyper["lam"] for s in (0.25, 0.5, 1.0)] == [10, 5, 5]
    assert plan("mnist", "consistency", 0.25, values={"lam": 3.0}).hyper["lam"] == 3


def test_a_shorter_training_by_the_paper_drops_its_rate_in_proportion():
    """With MACER's deferral, which ends where the rate drops first: 31 and 30 of 90 epochs."""
    specs = [plan("mnist", "macer", 0.5, recipe="paper", epochs=epochs) for epochs in (180, 90, 45, 30, 2, 1)]
    assert [spec.recipe.drop_every for spec in specs] == [30, 30, 15, 10, 1, 1]
    assert [spec.hyper["deferred"] for spec in specs] == [31, 31, 16, 10, 1, 1]
    assert [plan("mnist", "macer", 0.5, epochs=epochs).recipe.drop_every for epochs in (8, 4)] == [30, 30]  # a cosine


def test_what_counts_epochs_ends_with_the_training():
    """At σ = 1 quick's SmoothAdv on MNIST has another growth of ε than elsewhere, and reaches it in a shorter training too."""
    growth = [plan("mnist", "smoothadv", 1.0, epochs=epochs).hyper["warmup"] for epochs in (1, 2, 8, 90)]
    assert growth == [1, 2, 4, 4]


def test_paper_recipe():
    recipe = plan("mnist", "gaussian", 0.5, recipe="paper").recipe
    assert recipe == RECIPES["paper"]
    assert (recipe.epochs, recipe.lr, recipe.drop_every, recipe.batch, recipe.momentum) == (90, 0.01, 30, 256, 0.9)
    assert (recipe.weight_decay, recipe.schedule, recipe.init) == (1e-4, "step", "default")


def test_sweep_is_the_grid_without_doubles():
    specs = sweep(["gaussian", "consistency"], [0.25, 0.5], [1.0, 5.0], [0, 1], dataset="mnist")
    assert len(specs) == 2 * 2 * (1 + 2)
    assert len({s.run_id for s in specs}) == len(specs)
    assert {s.hyper["lam"] for s in specs if s.method == "consistency"} == {1.0, 5.0}


def test_certify_again_names_the_weights():
    source = plan("mnist", "gaussian", 0.5)
    again = certify_again(source, source.run_id, Certification(n=1000))
    assert again.weights_of == source.run_id
    assert certify_again(again, again.run_id, Certification(n=10)).weights_of == source.run_id


def test_chosen_images():
    assert Certification(every=20).chosen(10_000) == list(range(0, 10_000, 20))
    assert Certification(every=3, limit=2).chosen(10) == [0, 3]
    assert Certification(every=3, limit=2).image_set != Certification(every=3).image_set


def test_a_sweep_gives_hyper_parameters_to_the_methods_that_have_them():
    specs = sweep(["gaussian", "consistency"], [0.5], [], [0], dataset="mnist", values={"m": 4})
    assert [dict(spec.hyper).get("m") for spec in specs] == [None, 4]
    with pytest.raises(SpecError, match="none of gaussian has a hyper-parameter 'm'"):
        sweep(["gaussian"], [0.5], [], [0], dataset="mnist", values={"m": 4})


@pytest.mark.parametrize(
    "hyper",
    [
        {"![x](https://a.b)": 1},
        {"lam": "<b>"},
        {"m": [2]},
        {1: 2},
        {"a" * 30: "b" * 41},
        ["lam"],
        {"lam": 10**400},
        {"eta": float("nan")},
    ],
    ids=["markdown", "html", "list", "number", "long", "no map", "huge", "nan"],
)
def test_a_hyper_parameter_is_a_name_and_a_number_or_a_word(hyper):
    """Pages show both, and a run folder may be anybody's."""
    with pytest.raises(SpecError, match="hyper must map names of a-z, 0-9 and _ to finite numbers or words"):
        RunSpec("mnist", "lenet", "gaussian", 0.5, hyper)
