"""What recipes take, and where runs depart from them."""

import shutil
from dataclasses import replace

import pytest

from backend.plan import plan
from backend.recipes import departures, recipe_departures, recipe_in_words, usual_values, whole_training
from backend.spec import Certification, Recipe
from backend.training.methods import METHODS


@pytest.mark.parametrize(
    ("sigma", "recipe", "epochs", "warmup"), [(0.5, "quick", 8, 1), (1.0, "quick", 8, 4), (1.0, "paper", 90, 10)]
)
def test_epsilon_grows_longer_at_sigma_one_in_the_quick_recipe(sigma, recipe, epochs, warmup):
    for method in ("smoothadv", "smoothadv_consistency"):
        assert usual_values(method, "mnist", sigma, recipe, epochs)["warmup"] == warmup


@pytest.mark.parametrize("recipe", ["quick", "paper"])
@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_garments_take_the_hyper_parameters_of_digits(recipe, sigma):
    for method in METHODS:
        taken = [
            plan(dataset, method, sigma, recipe=recipe, certification=Certification(every=20))
            for dataset in ("mnist", "fashion_mnist")
        ]
        assert taken[0] == replace(taken[1], dataset="mnist")
    other = plan("fashion_mnist", "consistency", 0.25, values={"lam": 5.0}).hyper
    assert departures("consistency", "fashion_mnist", 0.25, other) == {"lam": (5.0, 10.0)}
    assert usual_values("consistency", "a-folder-that-is-gone", 0.25, "paper", 90)["lam"] == 5.0


def test_recipes_differ_from_the_papers_in_what_counts():
    """Of two schedules neither the drops of the one nor the rise of the other are fields that differ; epochs are told by the runs."""
    changed = {"lr": (0.03, 0.01), "schedule": ("cosine", "step"), "init": ("kaiming", "default")}
    assert recipe_departures("quick", "mnist") == changed
    assert recipe_departures("quick", "fashion_mnist") == changed  # like MNIST
    assert recipe_departures("quick", "digits") == recipe_departures("quick", "a_folder_that_is_gone") == {}
    assert recipe_departures("paper", "cifar10") == {}
    assert (whole_training("mnist"), whole_training("cifar10"), whole_training("a_folder_that_is_gone")) == (
        90,
        150,
        90,
    )
    assert recipe_departures("somebody_s", "mnist") == {}
    assert recipe_departures("quick, lr 0.2", "mnist") == {k: v for k, v in changed.items() if k != "lr"}


def test_a_folders_recipe_is_no_departure(pets, root):
    """Folders have a learning rate of their own, also where the folder is gone meanwhile."""
    specs = [plan("pets", "gaussian", 0.5, recipe=name, epochs=n) for name in ("quick", "paper") for n in (None, 3)]
    assert [recipe_in_words(spec) for spec in specs] == ["quick", "quick", "paper", "paper"]
    shutil.rmtree(root / "folders" / "pets")
    assert [recipe_in_words(spec) for spec in specs] == ["quick", "quick", "paper", "paper"]


def test_a_recipe_in_words_says_what_it_does_otherwise():
    for name, epochs in (("quick", None), ("paper", None), ("paper", 3), ("quick", 1)):
        for dataset in ("mnist", "cifar10"):
            assert recipe_in_words(plan(dataset, "gaussian", 0.5, recipe=name, epochs=epochs)) == name
    spec = plan("mnist", "gaussian", 0.5, recipe="paper", epochs=45, train_precision="bfloat16")
    assert (
        recipe_in_words(replace(spec, recipe=replace(spec.recipe, drop_every=30, batch=64)))
        == "paper, batch 64, drop_every 30"
    )
    own = Recipe("mine", 1)
    assert recipe_in_words(replace(spec, recipe=own)) == "mine"
    assert recipe_in_words(replace(spec, recipe=replace(own, lr=0.5))) == "mine, lr 0.5"
    for words in ("quick", "quick, lr 0.5"):  # its hyper-parameters are the named one's
        assert usual_values("smoothadv", "mnist", 0.5, words, 8)["m"] == 2
