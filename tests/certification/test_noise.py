"""Noise on a grid, and the self-test of noise."""

import numpy as np
import pytest
import torch
from mpmath import mp, ncdf
from scipy.stats import chisquare

from backend.certification.grid_noise import BITS, GridNoise
from backend.certification.sampler import Sampler, SamplingError
from backend.certification.self_test import STREAMS, VALUES, check_noise, check_values
from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.classifier.weights import build
from backend.datasets import DATASETS
from backend.training.noise import stream
from tests.certification.test_smoothed_classifier import Linear, finish
from tests.devices import on_each_device

CPU = torch.device("cpu")


@on_each_device
@pytest.mark.parametrize("grid", [None, 255, 16])
@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
def test_the_noise_passes_its_self_test(grid, sigma, device):
    dataset = DATASETS["digits"]
    classifier = build(dataset.architectures[0], dataset, device).eval()
    check_noise(Sampler(classifier, 10, sigma, device, grid=grid), seed=3)


def test_colour_images_get_the_noise_that_the_self_test_looks_at():
    """On a processor; whatever the layout that the network wants."""
    sampler = Sampler(torch.nn.Flatten(), 3, 0.5, CPU)
    image = torch.rand(3, 8, 8)
    layouts = torch.contiguous_format, torch.channels_last
    plain, last = (torch.empty((5, 3, 8, 8), memory_format=layout) for layout in layouts)
    for noisy in (plain, last):
        sampler.add_noise(noisy, image, stream(0, "certify", 7, CPU))
    assert not last.is_contiguous()
    assert torch.equal(plain, last)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda z: z * 1.02, "variance"),
        (lambda z: z + 0.01, "mean"),
        (lambda z: z.clamp(-3.2, 3.2), "variance|beyond 4"),
        (lambda z: torch.where(z.abs() > 4, z / 2, z), "beyond 4"),
        (lambda z: z + 0.02 * (z**2 - 1), "moment"),
        (lambda z: torch.cat([z[:-1], z[:1]]), "correlation of two images"),
        (lambda z: z[:1].repeat(STREAMS, 1), "correlation|mean|variance|beyond"),
        (lambda z: (torch.rand(z.shape) - 0.5) * 12**0.5, "beyond 3"),
        (lambda z: z * float("nan"), "mean nan"),
    ],
)
def test_spoiled_noise_is_found_out(spoil, says):
    torch.manual_seed(0)
    z = torch.randn(STREAMS, VALUES)
    check_values(z)
    with pytest.raises(SamplingError, match=says):
        check_values(spoil(z))


@pytest.mark.parametrize(("sigma", "scale"), [(0.5, 16), (0.25, 255)])
def test_thresholds_are_the_exact_distribution(sigma, scale):
    noise = GridNoise(sigma, scale, CPU)
    table = noise.thresholds.tolist()
    assert table == sorted(table)
    with mp.workdps(60):
        exact = [
            ncdf((j + mp.mpf("0.5")) / (mp.mpf(sigma) * scale)) * 2**BITS for j in range(-noise.centre, noise.centre)
        ]
        assert all(0 <= e - t < 1 for t, e in zip(table, exact, strict=True))


@on_each_device
def test_drawn_values_lie_on_the_grid_with_the_right_frequencies(device):
    noise, image = GridNoise(0.25, 16, device), torch.full((1, 8, 8), 5 / 16, device=device)
    noisy = torch.empty(4_000, 1, 8, 8, device=device)
    noise.add(noisy, image, torch.Generator(device).manual_seed(0))
    steps = noisy.cpu() * 16 - 5
    assert torch.equal(steps, steps.round())
    edges = np.arange(-12.5, 13)
    seen = np.histogram(steps.numpy(), bins=edges)[0]
    expected = np.diff([float(ncdf(e / 4.0)) for e in edges])
    inside = seen.sum()
    assert chisquare(seen, expected / expected.sum() * inside).pvalue > 1e-4


@on_each_device
def test_float_sound_certificates_are_a_little_smaller_and_never_above_the_truth(device):
    g = SmoothedClassifier(Linear([1.0] * 64, 32.5), 2, 0.5, device, 0, grid=255)
    image = torch.full((1, 1, 8, 8), round(0.55 * 255) / 255)
    exact = abs(float(image.sum()) - 32.5) / 8
    (look,) = finish(g, image, [0], n=20_000, float_sound=True)
    assert look.radius <= exact
    assert look.radius == pytest.approx(exact, abs=0.06)
    with pytest.raises(ValueError, match="too small for noise on a grid"):
        finish(g, image, [0], n=1_000, alpha=1e-12, float_sound=True)


NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Hungry(torch.nn.Module):
    """A network that runs out of memory above a batch."""

    def __init__(self, most, error=NO_ROOM):
        super().__init__()
        self.most, self.error = most, error

    def forward(self, x):
        if len(x) > self.most:
            raise self.error
        return torch.stack([x.flatten(1).sum(1), -x.flatten(1).sum(1)], 1)


def test_out_of_memory_halves_the_batch_and_goes_on():
    image = torch.full((1, 1, 2, 2), 0.1)
    counts = []
    cudnn = RuntimeError("GET was unable to find an engine to execute this computation")
    cublas = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    for network in (Hungry(10_000), Hungry(100), Hungry(20), Hungry(100, cudnn), Hungry(20, cublas)):
        s = Sampler(network, 2, 0.5, CPU)
        counts.append(s.count(image, [1_000], [stream(0, "test", 0, s.device)]))
        assert s.batch <= network.most
    assert counts == counts[:1] * 5
    s = Sampler(Hungry(1), 2, 0.5, CPU)
    with pytest.raises(torch.OutOfMemoryError):
        s.count(image, [1_000], [stream(0, "test", 0, s.device)])
    s = Sampler(Hungry(100, RuntimeError("something else")), 2, 0.5, CPU)
    with pytest.raises(RuntimeError, match="something else"):
        s.count(image, [1_000], [stream(0, "test", 0, s.device)])


def test_a_network_that_answers_nan_is_named():
    s = Sampler(Linear([float("nan")], 0.0), 2, 0.5, CPU)
    with pytest.raises(SamplingError, match="answers with values that are not finite"):
        s.count(torch.zeros(1, 1, 1, 1), [300], [stream(0, "test", 0, s.device)])


def test_one_pixel_images_and_constant_networks_are_certified():
    g = SmoothedClassifier(Linear([0.0], -1.0), 2, 0.5, CPU, 0)
    (look,) = finish(g, torch.zeros(1, 1, 1, 1), [0], n0=1, n=1, alpha=0.5)
    assert (look.predict, look.done) == (-1, 1)  # one vote proves p >= 1/2, which is not above 1/2


@on_each_device
@pytest.mark.parametrize("batch", [32, 64, 128])
def test_counts_do_not_depend_on_the_batch_size(batch, device):
    torch.manual_seed(0)
    dataset = DATASETS["mnist"]
    network = build("lenet", dataset, device).eval()
    images = torch.rand(3, 1, 28, 28).to(device)
    counts = []
    for size in (256, batch):
        s = Sampler(network, 10, 0.5, device)
        s.batch = size
        counts.append(s.count(images, [700, 300, 64], [stream(i, "test", 0, s.device) for i in range(3)]))
    assert counts[0] == counts[1]
