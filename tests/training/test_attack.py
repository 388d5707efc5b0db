"""Attacks on the smoothed soft classifier."""

from math import exp

import pytest
import torch
from torch import nn

from backend.classifier.weights import build
from backend.datasets import DATASETS
from backend.training.attack import ascent, ddn, frozen, pgd, shortened, slope
from backend.training.noise import gaussian, noisy_logits
from tests.devices import on_each_device

ATTACKS = {"pgd": pgd, "ddn": ddn}


def generator(device="cpu"):
    return torch.Generator(device).manual_seed(0)


class Halfspace(nn.Module):
    """Class 1 where x · (3, 4) / 5 > 1/2: logits (0, 5 (x · w − 1/2)). The way out is along ∓w."""

    def forward(self, x):
        score = x.flatten(1) @ torch.tensor([[0.6], [0.8]]) - 0.5
        return torch.cat([torch.zeros_like(score), 5 * score], 1)


HALF = Halfspace(), torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([1]), torch.zeros(2, 1, 1, 1, 2)


def soft_loss(logits, y):
    """−log F̂_y of each image, with F̂ the mean of the softmax over the noise vectors: (B,)."""
    return -logits.softmax(-1).mean(0).gather(1, y[:, None])[:, 0].log()


def test_slope_by_hand():
    """F_1 = (3/4, 1/4), F_2 = (1/4, 3/4), one image of label 0: w = (3/4, 1/4), and both slopes are (−3/16, 3/16)."""
    logits = torch.tensor([[[0.75, 0.25]], [[0.25, 0.75]]]).log()
    assert slope(logits, torch.tensor([0])).flatten().tolist() == pytest.approx([-3 / 16, 3 / 16] * 2)


def test_slope_is_the_gradient_of_the_soft_loss():
    torch.manual_seed(0)
    logits, y = 3 * torch.randn(4, 7, 10, dtype=torch.float64, requires_grad=True), torch.arange(7)
    (gradient,) = torch.autograd.grad(soft_loss(logits, y).sum(), logits)
    assert torch.allclose(slope(logits.detach(), y), gradient, rtol=1e-12, atol=1e-14)


def test_slope_where_every_share_is_zero_in_float32():
    """F_iy = e^−200, and e^−201 of the second: there is still a way up."""
    found = slope(torch.tensor([[[0.0, 200.0]], [[0.0, 201.0]]]), torch.tensor([0]))
    first = 1 / (1 + exp(-1))
    assert found.flatten().tolist() == pytest.approx([-first, first, first - 1, 1 - first])


def test_pgd_walks_straight_down():
    """x · w = 0.7; one step of 2ε is projected back to ε: x − ε w, exactly."""
    attacked = pgd(*HALF, 0.25, 1, generator())
    assert attacked.flatten().tolist() == pytest.approx([0.5 - 0.25 * 0.6, 0.5 - 0.25 * 0.8])


def test_ddn_finds_the_least_norm():
    """The boundary is 0.2 away: DDN's best is a little beyond it, where PGD goes the whole ε."""
    attacked = ddn(*HALF, 0.45, 60, generator())
    length = float((attacked - HALF[1]).norm())
    assert 0.2 < length < 0.2 * 1.1
    assert float((pgd(*HALF, 0.45, 60, generator()) - HALF[1]).norm()) == pytest.approx(0.45)


def test_ddn_goes_as_far_as_it_may():
    """Where nothing fools, ε is used in full at the first step and kept, however few steps there are."""
    far = Halfspace(), torch.full((1, 1, 1, 40), 1.0), torch.tensor([1]), torch.zeros(2, 1, 1, 1, 40)
    far[0].forward = lambda x: torch.stack([0 * x.flatten(1).sum(1), 50 + x.flatten(1).sum(1)], 1)
    assert float((ddn(*far, 2.0, 10, generator()) - far[1]).norm()) == pytest.approx(2.0, abs=1e-3)


def test_ascent_is_not_projected():
    iterates = ascent(*HALF, 0.25, 2, generator())
    assert iterates[0].flatten().tolist() == pytest.approx([0.35, 0.3])
    assert iterates[1].flatten().tolist() == pytest.approx([0.2, 0.1])


def test_a_zero_gradient_is_replaced_by_a_random_direction():
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)

    x = torch.full((64, 1, 1, 2), 0.5)
    attacked = pgd(Constant(), x, torch.zeros(64, dtype=torch.int64), torch.zeros(1, 64, 1, 1, 2), 0.25, 1, generator())
    deltas = (attacked - x).flatten(1)
    assert deltas.norm(dim=1).tolist() == pytest.approx([0.25] * 64)
    assert deltas.mean(0).norm() < 0.1  # no direction is preferred


@on_each_device
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("epsilon", [0.25, 1.0])
def test_it_stays_inside_and_raises_the_smoothed_loss(attack, epsilon, device):
    digits = DATASETS["digits"]
    torch.manual_seed(0)
    classifier = build("smallcnn", digits, device).train()
    x = torch.rand(32, *digits.shape).to(device)
    noise = gaussian(4, x, 0.25, generator(device))
    y = noisy_logits(classifier, x, noise).softmax(-1).mean(0).argmax(-1)  # every answer is right before the attack
    attacked = ATTACKS[attack](classifier, x, y, noise, epsilon, 10, generator(device))
    assert (attacked - x).flatten(1).norm(dim=1).max() <= epsilon * (1 + 1e-5)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    before, after = (soft_loss(noisy_logits(classifier, images, noise), y) for images in (x, attacked))
    assert (after > before).float().mean() > 0.9
    assert not attacked.requires_grad
    assert classifier.training
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())


def test_frozen_leaves_batch_norm_alone():
    norm = nn.BatchNorm2d(1).train()
    with frozen(norm):
        norm(torch.randn(8, 1, 2, 2))
        assert not any(p.requires_grad for p in norm.parameters())
    assert norm.running_mean.item() == 0
    assert norm.training
    assert all(p.requires_grad for p in norm.parameters())


def test_shortened():
    delta = torch.tensor([[[[3.0, 4.0]]], [[[0.3, 0.4]]], [[[0.0, 0.0]]]])
    assert shortened(delta, 1.0).flatten(1).norm(dim=1).tolist() == pytest.approx([1.0, 0.5, 0.0])
