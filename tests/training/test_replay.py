"""Steps that a GPU replays; on a CPU they run as they are."""

from dataclasses import replace

import pytest
import torch

from backend.datasets import Split, find_dataset
from backend.pipeline import choose_device
from backend.plan import plan
from backend.run import Checkpoint, Epoch
from backend.training import replay
from backend.training.loop import train
from backend.training.methods import METHODS
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
def test_each_epoch_draws_its_own_noise(device):
    """Of the same images in the same order: a replay that drew the recorded noise again would repeat its loss."""
    digits = find_dataset("digits")
    split = digits.load(train=True)
    one = replace(digits, read=lambda _: Split(split.images[:1].repeat(640, 0), split.labels[:1].repeat(640)))
    spec = plan("digits", "gaussian", 1.0, epochs=3)
    spec = replace(spec, recipe=replace(spec.recipe, batch=64, lr=1e-9))
    losses = [row.loss for row in train(spec, one, choose_device(str(device))) if isinstance(row, Epoch)]
    assert len(set(losses)) == 3
    assert torch.tensor(losses).std() > 1e-4
