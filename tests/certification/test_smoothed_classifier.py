from math import sqrt

import pytest
import torch
from torch import nn

from backend.certification.sampler import BLOCKS, SamplingError
from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.rows import ABSTAIN
from backend.spec import Certification
from tests.devices import on_each_device

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Class 1 where w·x > b: under N(0, σ²I) the exact radius at x is |w·x − b| / ‖w‖."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = torch.tensor(weight), bias

    def forward(self, x):
        score = x.flatten(1) @ self.weight.to(x.device) - self.bias
        return torch.stack([-score, score], 1)


def finish(g, images, indices, n0=100, n=1_000, alpha=0.001, **mode):
    """The last look of every image, in their order."""
    looks = {}
    for finished in g.certify(images, indices, Certification(n=n, n0=n0, alpha=alpha, **mode)):
        looks |= finished
    return [looks[i] for i in range(len(images))]


def smoothed(network, sigma=0.5, classes=2, seed=0, device=CPU):
    return SmoothedClassifier(network.to(device), classes, sigma, device, seed)


@on_each_device
def test_certificates_of_a_linear_classifier_approach_the_exact_radius_from_below(device):
    images = torch.tensor([0.1, 0.3, 0.6, 0.9]).view(4, 1, 1, 1).repeat(1, 1, 2, 2)  # w·x = 4·value
    exact = [abs(4 * v - 1.6) / 2 for v in (0.1, 0.3, 0.6, 0.9)]
    looks = finish(smoothed(Linear([1.0] * 4, 1.6), device=device), images, [0, 1, 2, 3], 100, 50_000, 0.001)
    assert [look.predict for look in looks] == [0, 0, 1, 1]
    for look, radius in zip(looks, exact, strict=True):
        assert look.radius <= radius
        assert look.radius == pytest.approx(radius, abs=0.05)


@on_each_device
@pytest.mark.parametrize("distance", [0.02, 0.25, 1.0])
def test_false_claims_are_at_most_alpha(distance, device):
    """2 000 certifications through the whole of Algorithm 1 with a known radius: p = Φ(distance / σ)."""
    alpha, times, sigma = 0.05, 2_000, 0.5
    network = Linear([1.0], 0.0)
    images = torch.full((times, 1, 1, 1), distance)
    looks = finish(smoothed(network, sigma, seed=1, device=device), images, list(range(times)), 10, 100, alpha)
    false = sum(look.radius > distance or (look.predict == 0) for look in looks)
    assert false <= times * alpha + 4 * sqrt(times * alpha * (1 - alpha))
    assert sum(look.predict == ABSTAIN for look in looks) < times or distance < 0.1


@on_each_device
def test_votes_depend_on_seed_and_index_alone(device):
    """Not on which images are counted beside it, how many, or in what order."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    images = torch.rand(5, 1, 8, 8)
    g = smoothed(network, classes=10, device=device)
    together = [look.counts for look in finish(g, images, [0, 20, 40, 60, 80], 100, 1_000, 0.001)]
    alone = [finish(g, images[i : i + 1], [20 * i], 100, 1_000, 0.001)[0].counts for i in range(5)]
    reverse = [look.counts for look in finish(g, images.flip(0), [80, 60, 40, 20, 0], 100, 1_000, 0.001)]
    assert together == alone == reverse[::-1]
    other = finish(smoothed(network, classes=10, seed=1, device=device), images, [0, 20, 40, 60, 80], 100, 1_000, 0.001)
    assert together != [look.counts for look in other]


@on_each_device
@pytest.mark.parametrize(("n0", "n"), [(1, 1), (100, 255), (100, 256), (100, 257), (300, 1_000), (100, 10_000)])
def test_every_sample_is_counted_once(n0, n, device):
    images = torch.rand(3, 1, 2, 2)
    for look in finish(smoothed(Linear([1.0] * 4, 2.0), device=device), images, [0, 1, 2], n0, n, 0.001):
        assert sum(look.counts) == look.done == n
        assert sum(look.selection) == n0


@on_each_device
def test_selection_and_bound_use_separate_samples(device):
    """On a coin flip both counts are binomial; were they the same samples, the smaller would be part of the larger."""
    images = torch.zeros(200, 1, 1, 1)
    looks = finish(smoothed(Linear([1.0], 0.0), device=device), images, list(range(200)), 100, 100, 0.001)
    assert sum(look.selection == look.counts for look in looks) < 40


def test_abstains_where_the_votes_are_split():
    (look,) = finish(smoothed(Linear([1.0], 0.0)), torch.zeros(1, 1, 1, 1), [0], 100, 1_000, 0.001)
    assert (look.predict, look.radius) == (ABSTAIN, 0)
    assert look.p_lower <= 0.5


def test_constant_network_has_the_ceiling():
    (look,) = finish(smoothed(Linear([0.0], -1.0), sigma=0.25), torch.zeros(1, 1, 1, 1), [0], 10, 1_000, 0.001)
    assert look.predict == 1
    assert look.radius == pytest.approx(0.25 * 2.4619, abs=1e-3)


@on_each_device
def test_watching_ends_in_the_same_certificate(device):
    g, image = smoothed(Linear([1.0] * 4, 1.0), device=device), torch.full((1, 2, 2), 0.4)
    block = BLOCKS[device.type]
    looks = list(g.watch(image, Certification(n=3 * block + 232)))
    assert [look.done for look in looks] == [block, 2 * block, 3 * block, 3 * block + 232]
    assert looks[-1] == finish(g, image[None], [0], 100, 3 * block + 232, 0.001)[0]


@on_each_device
def test_predict_answers_and_abstains(device):
    images = torch.tensor([-0.5, 0.0, 0.5]).view(3, 1, 1, 1)
    assert smoothed(Linear([1.0], 0.0), device=device).predict(images, [0, 1, 2], 1_000, 0.001) == [0, ABSTAIN, 1]


def test_predict_errs_at_most_alpha_times():
    times, alpha = 2_000, 0.05
    answers = smoothed(Linear([1.0], 0.0), seed=2).predict(
        torch.full((times, 1, 1, 1), 0.01), list(range(times)), 60, alpha
    )
    assert answers.count(0) <= times * alpha + 4 * sqrt(times * alpha * (1 - alpha))


def test_a_network_that_answers_nan_once_is_named():
    """In its first pass alone: what follows does not make those votes sound."""

    class Once(Linear):
        passes = 0

        def forward(self, x):
            self.passes += 1
            return super().forward(x) * (float("nan") if self.passes == 1 else 1.0)

    images = torch.rand(1, 1, 1, 2)
    stream = torch.Generator().manual_seed(0)
    with pytest.raises(SamplingError, match="not finite"):
        smoothed(Once([1.0, 0.0], 0.5)).sampler.count(images, [2 * BLOCKS["cpu"]], [stream])
