"""Steps that a GPU replays; on a CPU they run as they are."""

from dataclasses import replace

import pytest
import torch

from backend.datasets import find_dataset
from backend.pipeline import choose_device
from backend.plan import plan
from backend.rows import Checkpoint
from backend.training import replay
from backend.training.loop import train
from backend.training.methods import METHODS, Batch, make
from backend.training.noise import gaussian, stream
from tests.devices import DEVICES, on_each_device

SMALL = {"m": 2, "steps": 2, "deferred": 1}


def rows_of(method, device, **changes):
    """Three epochs of 11 batches of digits, the last of 67 images."""
    values = {name: value for name, value in SMALL.items() if name in METHODS[method].__dataclass_fields__}
    spec = plan("digits", method, 0.5, values=values, epochs=3, **changes)
    spec = replace(spec, recipe=replace(spec.recipe, batch=128))
    return list(train(spec, find_dataset("digits"), choose_device(str(device))))


CASES = {"cpu": [("consistency", "float32")], "cuda": [*((m, "float32") for m in METHODS), ("consistency", "bfloat16")]}


@pytest.mark.parametrize(("device", "case"), [(d, case) for d in DEVICES for case in CASES[d.type]], ids=str)
def test_replayed_steps_are_the_same_steps(device, case, monkeypatch):
    """Noise, attacks, learning rate and tallies among them: to the bit."""
    method, precision = case
    replayed = rows_of(method, device, train_precision=precision)
    monkeypatch.setattr(replay, "WARM_UP", 10**6)
    plain = rows_of(method, device, train_precision=precision)
    for a, b in zip(replayed, plain, strict=True):
        if isinstance(a, Checkpoint):
            assert a.tensors == b.tensors
        else:
            assert (a.loss, a.terms, a.accuracy, a.missing_classes) == (b.loss, b.terms, b.accuracy, b.missing_classes)


@on_each_device
def test_each_step_draws_anew(device):
    """Of the same images: what was recorded is not the noise itself."""
    generator = stream(0, "test", 0, device)
    drawn, rates = torch.zeros(8, 3, device=device), torch.zeros(8, device=device)
    number = torch.zeros((), dtype=torch.int64, device=device)

    def step(images, labels, rate):
        row = torch.arange(8, device=device) == number
        drawn.copy_(torch.where(row[:, None], torch.randn(3, generator=generator, device=device), drawn))
        rates.copy_(torch.where(row, rate, rates))
        number.add_(1)

    images, labels = torch.zeros(4, 1, device=device), torch.zeros(4, device=device)
    with replay.replayed(step, generator, resident=True) as do:
        for i in range(8):
            do(images, labels, i / 8)
    expected = torch.stack(
        [torch.randn(3, generator=g, device=device) for g in [stream(0, "test", 0, device)] for _ in range(8)]
    )
    assert torch.equal(drawn, expected)
    assert rates.tolist() == [i / 8 for i in range(8)]


def test_what_is_drawn_on_the_host_is_refused():
    """It would be the same for a whole epoch. The steps before the recording find it out, which run anywhere."""

    def step(images, labels, rate):
        images.add_(torch.rand(()))

    do = replay.Replayed(step, torch.Generator())
    do(torch.zeros(4, 1), torch.zeros(4), 0.1)  # the first may load what it likes
    with pytest.raises(RuntimeError, match="drew random numbers on the host"):
        do(torch.zeros(4, 1), torch.zeros(4), 0.1)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_draws_on_the_host(method):
    generator = torch.Generator().manual_seed(0)
    made = make(method, {name: value for name, value in SMALL.items() if name in METHODS[method].__dataclass_fields__})
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))

    def step(images, labels, rate):
        noise = gaussian(made.noises, images, 0.5, generator)
        made.loss_terms(classifier, Batch(images, labels, noise, 0.5, 5, generator))

    do = replay.Replayed(step, generator)
    for _ in range(replay.WARM_UP):
        do(torch.rand(6, 1, 2, 2), torch.arange(6) % 3, 0.1)
