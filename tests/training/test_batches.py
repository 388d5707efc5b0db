"""How images reach the loop: from memory, or decoded on the way."""

import numpy as np
import pytest
import torch
from PIL import Image

from backend.datasets import DATASETS
from backend.training.batches import Decoded, InMemory, Streamed, crop_and_flip, parts


def test_streamed_images_do_not_depend_on_workers(pets, monkeypatch):
    """The same crops in this process and from two others."""
    split = pets.load(train=True)
    streamed = Streamed(split.images, split.labels, torch.device("cpu"))

    def epoch(number):
        generator = torch.Generator().manual_seed(number)
        return [
            (x.clone(), y)
            for x, y in streamed.epoch(torch.randperm(12, generator=generator), 5, 1, 0, number, generator)
        ]

    here = epoch(0)
    assert [len(y) for _, y in here] == [5, 5, 2]
    assert sorted(torch.cat([y for _, y in here]).tolist()) == [0] * 6 + [1] * 6
    monkeypatch.setattr("backend.training.batches.FEW", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(here, epoch(0), strict=True))


def test_decoding_leaves_the_global_generator_alone(pets):
    split = pets.load(train=True)
    before = torch.get_rng_state()
    first = Decoded(split.images, 0, 0)[3]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, Decoded(split.images, 0, 0)[3])
    assert first.shape == (3, 40, 40)
    assert first.dtype == torch.uint8


def test_another_epoch_takes_other_parts_of_an_image(pets, root):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "folders" / "pets" / "train" / "cat" / "0.png")
    images = pets.load(train=True).images
    first, again, later, other = (Decoded(images, seed, epoch)[0] for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


def test_crops_and_flips_are_those_that_could_be():
    """Each result is one of the 9 × 9 × 2 windows of the padded image, and many of them occur."""
    image = torch.arange(1, 3 * 8 * 8 + 1, dtype=torch.uint8).view(1, 3, 8, 8)
    padded = torch.nn.functional.pad(image[0], (4, 4, 4, 4))
    windows = {}
    for down in range(9):
        for right in range(9):
            window = padded[:, down : down + 8, right : right + 8]
            windows[tuple(window.flatten().tolist())] = (down, right, 0)
            windows[tuple(window.flip(2).flatten().tolist())] = (down, right, 1)
    assert len(windows) == 162
    out = crop_and_flip(image.expand(4_000, -1, -1, -1), torch.Generator().manual_seed(0))
    seen = [windows[tuple(one.flatten().tolist())] for one in out]
    assert len(set(seen)) == 162
    assert sum(flipped for *_, flipped in seen) / len(seen) == pytest.approx(0.5, abs=0.04)


def test_memory_gives_every_image_once():
    images, labels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), np.arange(10)
    memory = InMemory(DATASETS["digits"], images, labels, torch.device("cpu"))
    batches = list(memory.epoch(torch.randperm(10), 4, 1, 0, 0, torch.Generator()))
    assert [len(y) for _, y in batches] == [4, 4, 2]
    assert sorted(torch.cat([y for _, y in batches]).tolist()) == list(range(10))
    assert all(torch.equal(x.flatten().long(), y) for x, y in batches)


def test_a_rest_too_small_for_batch_statistics_joins_the_batch_before():
    assert [len(p) for p in parts(torch.arange(257), 128, 1)] == [128, 129]
    assert [len(p) for p in parts(torch.arange(259), 128, 2)] == [128, 131]
    assert [len(p) for p in parts(torch.arange(260), 128, 2)] == [128, 128, 4]
    assert [len(p) for p in parts(torch.arange(1), 128, 1)] == [1]
