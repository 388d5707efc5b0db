"""The random streams, and logits under noise."""

import hashlib
from itertools import product

import numpy as np
import torch
from torch import nn

from backend.training.noise import IN_CACHE, noisy_logits, stream

CPU = torch.device("cpu")
ANY = 2**20  # torch draws below this as 32 bits modulo it


def test_a_stream_is_the_mersenne_twister_whose_state_shake_256_fills():
    words = np.frombuffer(hashlib.shake_256(b"7/certify/12").digest(4 * 624), "<u4")
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    drawn = torch.empty(2_000, dtype=torch.int32).random_(0, ANY, generator=stream(7, "certify", 12, CPU))
    assert drawn.tolist() == [int(value) % ANY for value in twister.random_raw(2_000)]


def test_equal_names_equal_streams_and_other_names_other_ones():
    def first(seed, purpose, index):
        return torch.randn(4, generator=stream(seed, purpose, index, CPU)).tolist()

    names = list(product((0, 1, 2**32, 2**63 - 1), ("select", "certify"), (0, 1, 2**32)))
    assert [first(*name) for name in names] == [first(*name) for name in names]
    assert len({tuple(first(*name)) for name in names}) == len(names)


def test_parts_have_the_logits_and_gradients_of_one_pass():
    torch.manual_seed(3)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    sizes = []
    classifier.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    x, noise = torch.rand(IN_CACHE - 1, 1, 2, 2).double(), torch.randn(3, IN_CACHE - 1, 1, 2, 2).double()

    def gradients(logits):
        return torch.autograd.grad(logits.softmax(-1).square().mean(), list(classifier.parameters()))

    parts, whole = (
        noisy_logits(classifier, x, noise),
        classifier((x + noise).flatten(0, 1)).unflatten(0, noise.shape[:2]),
    )
    assert sizes == [IN_CACHE - 1, IN_CACHE - 1, IN_CACHE - 1, 3 * (IN_CACHE - 1)]
    torch.testing.assert_close(parts, whole.float(), rtol=1e-6, atol=0)
    for one, other in zip(gradients(parts), gradients(whole.float()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_a_batch_norm_that_learns_sees_the_whole_batch():
    sizes, norm = [], nn.BatchNorm2d(1)
    classifier = nn.Sequential(norm, nn.Flatten())
    classifier.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    x, noise = torch.rand(IN_CACHE, 1, 2, 2), torch.randn(2, IN_CACHE, 1, 2, 2)
    logits = noisy_logits(classifier, x, noise)
    torch.testing.assert_close(logits.mean(), torch.zeros(()), atol=1e-6, rtol=0)
    torch.testing.assert_close(norm.running_mean, 0.1 * (x + noise).mean((0, 1, 3, 4)))
    noisy_logits(classifier.eval(), x, noise)  # as in an attack
    assert sizes == [2 * IN_CACHE, IN_CACHE, IN_CACHE]
