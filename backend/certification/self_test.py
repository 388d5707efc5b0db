"""Is the noise what the proofs assume? Asked before every certification job; takes some hundredths of a second."""

import torch
from scipy.special import bdtr, bdtrc, ndtr, ndtri  # scipy.stats takes a second to import
from torch import Tensor

from backend.certification.sampler import Sampler, SamplingError
from backend.training.noise import stream

STREAMS, VALUES = 64, 16_384
DOUBT = 1e-9  # of sound noise failing one of the checks


def check_noise(sampler: Sampler, seed: int) -> None:
    """Moments, tails from 3 to 5 sd, and independence of the streams of different images, on noise of the sampler's.

    Raises SamplingError where what is seen would happen with probability below 1e-9 a check.
    """
    streams = [stream(seed, "self-test", i, sampler.device) for i in range(STREAMS)]
    noise = torch.empty((STREAMS, VALUES), device=sampler.device)
    black = torch.zeros((1, 1, VALUES), device=sampler.device)
    for row, own in zip(noise, streams, strict=True):
        sampler.add_noise(row.view(1, 1, 1, VALUES), black, own)
    check_values(noise / sampler.sigma, sampler.grid_step)


def check_values(z: Tensor, step: float = 0.0) -> None:
    """The checks, on values (STREAMS, VALUES) that should be standard normal, rounded to multiples of `step`."""
    z = z.double()
    n, far = z.numel(), -ndtri(DOUBT / 2)
    variance = 1 + step**2 / 12  # rounding to a grid adds this (Sheppard)
    _expect("mean", z.mean().item(), 0.0, far * (variance / n) ** 0.5)
    _expect("variance", z.square().mean().item(), variance, far * variance * (2 / n) ** 0.5 * 1.05)
    _expect("third moment", z.pow(3).mean().item(), 0.0, far * variance**1.5 * (15 / n) ** 0.5 * 1.05)
    for sd in (3.0, 4.0, 5.0):
        edge = sd if not step else (int(sd / step) + 0.5) * step  # a boundary of the rounding cells
        seen, p = int((z.abs() > edge).sum()), 2 * ndtr(-edge)
        if bdtrc(seen - 1, n, p) < DOUBT or bdtr(seen, n, p) < DOUBT:
            raise SamplingError(
                f"the noise is not Gaussian: {seen} of {n} values beyond {edge:.2f} sd, {n * p:.0f} expected"
            )
    correlation = (z - z.mean()) @ (z - z.mean()).T / (variance * z.shape[1])
    correlation.fill_diagonal_(0)
    _expect(
        "correlation of two images",
        correlation.abs().max().item(),
        0.0,
        -ndtri(DOUBT / len(z) ** 2) / z.shape[1] ** 0.5,
    )


def _expect(name: str, value: float, expected: float, most: float) -> None:
    if not abs(value - expected) <= most:
        raise SamplingError(f"the noise is not Gaussian: {name} {value:.5f}, expected {expected:.5f} ± {most:.5f}")
