"""Noise on an integer grid, so that floating-point rounding cannot void a certificate.

Voráček & Hein, Sound Randomized Smoothing in Floating-Point Arithmetic, ICLR 2023: x + δ in floating point tells something
about x that the proof does not allow for. Take instead the base classifier that first rounds its input to the grid of
8-bit images, f(round(x + δ)). An image v / scale lies on that grid, so round(x + δ) = (v + round(scale · δ)) / scale, and
the integer round(scale · δ), with δ ~ N(0, σ²), can be drawn by whole numbers alone: 63 random bits against the exact
distribution function, rounded to 2⁻⁶³.
"""

from functools import lru_cache

import torch
from mpmath import mp, mpf, ncdf
from torch import Tensor

BITS = 63


class GridNoise:
    """Draws round(N(0, (scale · σ)²)) for every pixel."""

    def __init__(self, sigma: float, scale: int, device: torch.device):
        table = _thresholds(sigma * scale)
        self.scale, self.centre = scale, len(table) // 2
        self.thresholds = torch.tensor(table, device=device)  # (J,) int64
        # Each of J + 1 probabilities is off by at most 2⁻⁶³: half the sum bounds the distance in total variation.
        self.distance = (len(table) + 1) * 2.0 ** -(BITS + 1)

    def add(self, noisy: Tensor, image: Tensor, stream: torch.Generator) -> None:
        """Fill noisy (B, C, H, W) with (v + noise) / scale for image v / scale (C, H, W)."""
        bits = torch.empty(noisy.shape, dtype=torch.int64, device=noisy.device).random_(generator=stream)
        steps = torch.searchsorted(self.thresholds, bits, right=True, out_int32=True).sub_(self.centre)
        noisy.copy_(steps).add_(image.mul(self.scale).round_()).div_(self.scale)


@lru_cache(maxsize=8)
def _thresholds(sd: float) -> list[int]:
    """floor(2⁶³ Φ((j + 1/2) / sd)) for every j from −J to J − 1, beyond which less than 2⁻⁶³ is left."""
    with mp.workdps(50):
        half = 0
        while ncdf(-(half + mpf(0.5)) / mpf(sd)) * 2**BITS >= 1:
            half += 1
        return [min(2**BITS - 1, int(ncdf((j + mpf(0.5)) / mpf(sd)) * 2**BITS)) for j in range(-half, half)]
