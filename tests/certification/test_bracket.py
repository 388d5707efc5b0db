"""The attack against closed forms: smoothed, a half-space is a half-space, and its robust radius is the distance to the plane."""

import numpy as np
import pytest
import torch
from torch import nn

from backend.certification.bracket import _tested, attack, distance
from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.spec import Certification

CPU = torch.device("cpu")
SHAPE, SCALE = (1, 8, 8), 255


class HalfSpace(nn.Module):
    """Class 1 where w·x > b, with a logit that has a gradient; `classes` more that nobody votes for."""

    def __init__(self, w, b, sharpness=4.0, classes=2):
        super().__init__()
        self.w, self.b, self.sharpness, self.classes = nn.Parameter(w), b, sharpness, classes

    def forward(self, x):
        margin = self.sharpness * (x.flatten(1) @ self.w - self.b)
        rest = [torch.full_like(margin, -1e3)] * (self.classes - 2)
        return torch.stack([torch.zeros_like(margin), margin, *rest], 1)


def half_space(away, **more):
    """A unit vector w, and a grey image at distance `away` from the plane, on the side of class 1."""
    w = torch.from_numpy(np.random.default_rng(1).standard_normal(64)).float()
    w /= w.norm()
    pixels = torch.full(SHAPE, 128, dtype=torch.uint8)
    b = float(pixels.double().flatten() @ w.double()) / SCALE - away
    return pixels, HalfSpace(w, b, **more)


@pytest.mark.parametrize(("sigma", "away"), [(0.25, 0.4), (0.5, 0.9), (1.0, 1.6)])
def test_the_exact_radius_lies_between_the_certified_one_and_the_attacks_distance(sigma, away):
    pixels, network = half_space(away)
    smoothed = SmoothedClassifier(network, 2, sigma, CPU, seed=5)
    *_, look = smoothed.watch(pixels.float() / SCALE, Certification(n=10_000))
    *_, last = attack(smoothed, network, pixels, SCALE, look.predict, 0.001)
    assert look.predict == 1
    assert look.radius <= away <= last.other.distance <= away * 1.07
    assert last.other.answer == 0
    assert last.other.votes > last.other.against
    assert last.other.distance == distance(last.other.pixels, pixels, SCALE)
    exact = (last.other.pixels.double() - pixels.double()).norm().item() / SCALE
    assert 0 <= last.other.distance - exact < 1e-9


def test_without_another_answer_nothing_is_claimed():
    pixels, network = half_space(50.0)  # beyond every image of the box
    smoothed = SmoothedClassifier(network, 2, 0.5, CPU, seed=5)
    *steps, last = attack(smoothed, network, pixels, SCALE, 1, 0.001)
    assert (last.part, last.distance, last.other) == (1.0, None, None)
    assert [s.part for s in steps] == sorted(s.part for s in steps)


def test_a_tie_is_not_claimed(monkeypatch):
    """What the search takes for another answer is tested on fresh votes, and a coin does not pass."""
    pixels, network = half_space(0.0)
    monkeypatch.setattr("backend.certification.bracket._bisect", lambda *_: 0.0)
    claimed = 0
    for seed in range(20):
        smoothed = SmoothedClassifier(network, 2, 0.5, CPU, seed=seed)
        monkeypatch.setattr("backend.certification.bracket._perturbation", lambda *_: torch.zeros(SHAPE))
        *_, last = attack(smoothed, network, pixels, SCALE, 1, 0.001)
        claimed += last.other is not None
    assert claimed == 0


class Fan(nn.Module):
    """Classes at right angles around a grey image: under noise each is as likely as any other there."""

    def __init__(self, classes):
        super().__init__()
        self.directions = nn.Parameter(torch.eye(64)[:, :classes].contiguous())

    def forward(self, x):
        return (x.flatten(1) - 128 / SCALE) @ self.directions


@pytest.mark.parametrize("classes", [2, 6])
def test_ties_are_claimed_at_most_as_often_as_alpha_allows(classes, monkeypatch):
    """One test of four spends a quarter of alpha = 1/2, and of five rivals the luckiest has to be lucky again."""
    pixels = torch.full(SHAPE, 128, dtype=torch.uint8)
    monkeypatch.setattr("backend.certification.bracket.SEARCHED", 100)
    monkeypatch.setattr("backend.certification.bracket.CONFIRMED", 100)
    claimed = 0
    for seed in range(300):
        smoothed = SmoothedClassifier(Fan(classes), classes, 0.5, CPU, seed=seed)
        claimed += _tested(smoothed, pixels, pixels, SCALE, 0, 0.5, 0) is not None
    assert claimed <= 300 / 8 + 3 * (300 * 7 / 64) ** 0.5


def test_equal_seeds_find_the_same_image_and_the_network_stays_as_it_is():
    pixels, network = half_space(0.5, classes=4)
    before, found = network.w.detach().clone(), []
    for _ in range(2):
        smoothed = SmoothedClassifier(network, 4, 0.5, CPU, seed=9)
        *_, last = attack(smoothed, network, pixels, SCALE, 1, 0.001)
        found.append(last.other)
    assert torch.equal(found[0].pixels, found[1].pixels)
    assert found[0].votes == found[1].votes
    assert torch.equal(network.w, before)
    assert network.w.grad is None


def test_distances_are_rounded_up():
    a, b = torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8)
    b[0, 0, 0], b[0, 1, 1] = 3, 1
    assert 10**0.5 / 255 <= distance(a, b, 255) < 10**0.5 / 255 + 2e-12
    assert distance(a, a, 255) == 0
