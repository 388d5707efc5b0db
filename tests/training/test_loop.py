from dataclasses import replace
from math import isfinite

import pytest
import safetensors.torch
import torch

from backend.certification.metrics import certified_accuracy
from backend.datasets import DATASETS
from backend.pipeline import choose_device, execute
from backend.run import Certificate, Checkpoint, Epoch
from backend.spec import RECIPES, Certification, Recipe
from backend.training.loop import TrainingError, learning_rate, train
from backend.training.methods import METHODS

DIGITS = DATASETS["digits"]
SMALL = {"m": 2, "steps": 2, "epsilon": 0.25, "step": 0.25}  # what makes a method quick


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def rows_of(spec, checkpoint=None):
    return list(train(spec, DIGITS, choose_device("cpu"), checkpoint))


def weights(rows):
    return next(row.tensors for row in rows if isinstance(row, Checkpoint) and row.final)


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds_equal_weights(method, digits_spec):
    spec = digits_spec(method)
    assert weights(rows_of(spec)) == weights(rows_of(spec))
    assert weights(rows_of(spec)) != weights(rows_of(replace(spec, seed=1)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_resumed_from_any_epoch_the_weights_are_the_same(method, at, digits_spec):
    spec = digits_spec(method, epochs=3)
    rows = rows_of(spec)
    checkpoint = next(row for row in rows if isinstance(row, Checkpoint) and row.epoch == at and not row.final)
    rest = rows_of(spec, checkpoint.tensors)
    assert [row.epoch for row in rest if isinstance(row, Epoch)] == list(range(at + 1, 4))
    assert weights(rest) == weights(rows)


@pytest.mark.parametrize("method", METHODS)
def test_learns(method, digits_spec):
    small = {name: value for name, value in SMALL.items() if name in METHODS[method].__dataclass_fields__}
    spec = digits_spec(method, epochs=40, sigma=0.25, values=small, certification=Certification(n=100, n0=20, every=10))
    certificates = [row for row in execute(spec, choose_device("cpu")) if isinstance(row, Certificate)]
    assert certified_accuracy(certificates, 0) > 0.75


@pytest.mark.parametrize(
    ("method", "values", "steps"), [("gaussian", {}, 6), ("consistency", {"m": 2}, 12), ("consistency", {"m": 4}, 24)]
)
def test_m_steps_per_loaded_batch(method, values, steps, digits_spec, monkeypatch):
    """1 347 images are 6 batches of 256 (the last of 67), each split into m chunks of 1/m of the images."""
    seen, original = [], METHODS[method].loss_terms

    def loss_terms(self, classifier, batch):
        seen.append((len(batch.x), len(batch.noise)))
        return original(self, classifier, batch)

    monkeypatch.setattr(METHODS[method], "loss_terms", loss_terms)
    rows_of(digits_spec(method, epochs=1, values=values))
    assert len(seen) == steps
    m = values.get("m", 1)
    assert seen[0] == (256 // m, m)
    assert sum(size for size, _ in seen) == 1_347


def test_weights_are_rounded_before_they_are_handed_on(digits_spec):
    tensors = safetensors.torch.load(weights(rows_of(digits_spec(weights_dtype="float16"))))
    assert {value.dtype for value in tensors.values()} == {torch.float16}


def test_terms_add_up_to_the_loss(digits_spec):
    for row in rows_of(digits_spec("consistency")):
        if isinstance(row, Epoch):
            assert sum(row.terms.values()) == pytest.approx(row.loss)
            assert set(row.terms) == {"cross_entropy", "consistency", "entropy"}
            assert isfinite(row.loss)


def test_a_loss_that_is_not_finite_stops_the_run(digits_spec):
    spec = replace(digits_spec(), recipe=Recipe(lr=1000.0, weight_decay=1000.0, epochs=3))
    with pytest.raises(TrainingError, match=r"the loss of epoch \d is not finite .* lower the learning rate"):
        rows_of(spec)


def test_learning_rate_of_the_paper():
    paper = RECIPES["paper"]
    assert [learning_rate(paper, e) for e in (0.5, 29.9, 30.0, 59.9, 60.0, 89.9)] == pytest.approx(
        [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    )


def test_learning_rate_of_quick():
    quick = RECIPES["quick"]
    assert learning_rate(quick, quick.warmup / 2) == pytest.approx(quick.lr / 2)
    assert learning_rate(quick, quick.warmup) == pytest.approx(quick.lr)
    assert learning_rate(quick, (quick.epochs + quick.warmup) / 2) == pytest.approx(quick.lr / 2)
    assert learning_rate(quick, quick.epochs) == pytest.approx(0, abs=1e-12)
