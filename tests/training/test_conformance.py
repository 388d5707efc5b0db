"""Every method on every kind of data: it learns, is deterministic, resumes, and survives bfloat16."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from backend.classifier.architectures import ARCHITECTURES
from backend.datasets import DATASETS, find_dataset
from backend.pipeline import choose_device
from backend.plan import plan
from backend.rows import Checkpoint, Epoch
from backend.training.loop import train
from backend.training.methods import METHODS
from tests.devices import on_each_device

SMALL = {"m": 2, "steps": 2, "epsilon": 0.25, "step": 0.25}  # what makes a method quick
COLOURS = ((0.8, 0.3, 0.2), (0.2, 0.8, 0.3), (0.3, 0.2, 0.8))
EPOCHS = {"digits": 9, "colours": 8}
DATA = tuple(EPOCHS)  # an array on the device and LeNet's kind; image files, normalisation and batch norm


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """A folder of 16×16 PNGs in three tints under texture: 72 + 9 images."""
    monkeypatch.setenv("CERTSCOPE_DATA", str(tmp_path))
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 3)):
        for number, tint in enumerate(COLOURS):
            for i in range(count):
                pixels = (np.array(tint) + random.normal(0, 0.2, (16, 16, 3))).clip(0, 1) * 255
                path = tmp_path / "folders" / "colours" / split / f"tint{number}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)


def spec_of(method, data, epochs, precision="float32"):
    small = {name: value for name, value in SMALL.items() if name in METHODS[method].__dataclass_fields__}
    spec = plan(data, method, 0.25, values=small, epochs=epochs, train_precision=precision)
    return replace(spec, recipe=replace(spec.recipe, batch=24)) if data == "colours" else spec


def rows_of(spec, checkpoint=None, device="cpu"):
    return list(train(spec, find_dataset(spec.dataset), choose_device(str(device)), checkpoint))


def first_checkpoint(spec, device):
    _, checkpoint = islice(train(spec, find_dataset(spec.dataset), choose_device(str(device))), 2)
    return checkpoint.tensors


def weights(rows):
    return next(row.tensors for row in rows if isinstance(row, Checkpoint) and row.final)


def accuracies(rows):
    return [row.accuracy for row in rows if isinstance(row, Epoch)]


@on_each_device
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", METHODS)
def test_learns(method, data, device, colours, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "resnet20", strided)
    rows = rows_of(spec_of(method, data, EPOCHS[data]), device=device)
    assert len({tuple(row.terms) for row in rows if isinstance(row, Epoch)}) == 1  # the columns of training.tsv
    reached = accuracies(rows)
    assert reached[-1] > 0.75
    assert reached[-1] > reached[0]


@on_each_device
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", METHODS)
def test_is_deterministic_and_resumes(method, data, device, colours, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "resnet20", strided)
    spec = spec_of(method, data, 2)
    rows = rows_of(spec, device=device)
    first, other = first_checkpoint(spec, device), first_checkpoint(replace(spec, seed=1), device)
    assert first == rows[1].tensors != other
    for at in (1, 2):
        checkpoint = next(row for row in rows if isinstance(row, Checkpoint) and row.epoch == at and not row.final)
        rest = rows_of(spec, checkpoint.tensors, device)
        assert [row.epoch for row in rest if isinstance(row, Epoch)] == list(range(at + 1, 3))
        assert weights(rest) == weights(rows)


def strided(shape, classes):
    """A small network for the image files: convolution, batch norm and pooling."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(shape[0], 16, 3, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, classes),
    )  # fmt: skip


@on_each_device
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", METHODS)
def test_survives_bfloat16(method, data, device, colours, monkeypatch):
    """It learns in bfloat16 too, and not by the same numbers. In small networks: most processors are slow in it."""
    spec = spec_of(method, data, {"digits": 18, "colours": 8}[data], "bfloat16")
    if data == "colours":
        monkeypatch.setitem(ARCHITECTURES, spec.architecture, strided)
    else:
        spec = replace(spec, architecture="mlp")
    exact = replace(spec, recipe=replace(spec.recipe, precision="float32"))
    rounded = rows_of(spec, device=device)
    assert next(iter(train(exact, find_dataset(data), device))).loss != rounded[0].loss
    assert accuracies(rounded)[-1] > 0.7


def test_the_data_sets_are_what_they_are_taken_for(colours):
    assert not DATASETS["digits"].mean
    assert find_dataset("colours").mean
    assert find_dataset("colours").shape == (3, 16, 16)


@on_each_device
def test_dropout_resumes_too(device, colours, monkeypatch):
    """Layers that draw at random do so from a stream of the epoch."""

    def dropping(shape, classes):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(3 * 16 * 16, classes))

    monkeypatch.setitem(ARCHITECTURES, "smallcnn", dropping)
    spec = replace(spec_of("gaussian", "colours", 3), architecture="smallcnn")
    rows = rows_of(spec, device=device)
    checkpoint = next(row for row in rows if isinstance(row, Checkpoint) and row.epoch == 1)
    assert weights(rows_of(spec, checkpoint.tensors, device)) == weights(rows)
