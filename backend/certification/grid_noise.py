"""Noise on an integer grid, so that floating-point rounding cannot void a certificate.

Voráček & Hein, Sound Randomized Smoothing in Floating-Point Arithmetic, ICLR 2023: x + δ in floating point tells something
about x that the proof does not allow for. Take instead the base classifier that first rounds its input to the grid of
8-bit images, f(round(x + δ)). An image v / scale lies on that grid, so round(x + δ) = (v + round(scale · δ)) / scale, and
the integer round(scale · δ), with δ ~ N(0, σ²), can be drawn by whole numbers alone: 63 random bits against the exact
distribution function, rounded to 2⁻⁶³.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from backend.certification.confidence import looks
from backend.spec import Certification, SpecError

if TYPE_CHECKING:  # whoever checks a claim asks for `spending`, and draws no noise
    import torch
    from torch import Tensor

BITS = 63
FEWEST_STEPS, MOST_STEPS = 0.7, 500  # a standard deviation


class GridNoise:
    """Draws round(N(0, (scale · σ)²)) for every pixel."""

    def __init__(self, sigma: float, scale: int, device: "torch.device"):
        import torch

        table = _thresholds(sigma * scale)
        self.scale, self.centre = scale, len(table) // 2
        self.thresholds = torch.tensor(table, device=device)  # (J,) int64

    def add(self, noisy: "Tensor", image: "Tensor", stream: "torch.Generator") -> None:
        """Fill noisy (B, C, H, W) with (v + noise) / scale for image v / scale (C, H, W)."""
        import torch

        bits = torch.empty(noisy.shape, dtype=torch.int64, device=noisy.device).random_(generator=stream)
        steps = torch.searchsorted(self.thresholds, bits, right=True, out_int32=True).sub_(self.centre)
        noisy.copy_(steps).add_(image.mul(self.scale).round_()).div_(self.scale)


def spending(settings: Certification, sigma: float, scale: int, pixels: int) -> list[tuple[int, float]]:
    """When these settings look at the counts of an image of `pixels` values v / scale, and what each look spends: `confidence.looks`.

    With noise on a grid of alpha less what the drawn noise of n images may be off by: that much error is left to the bound.
    Each of the J + 1 probabilities is off by at most 2⁻⁶³, and two tails of less than that are cut: half the sum bounds the
    distance of one pixel's noise from the exact one in total variation. Raises SpecError where nothing is left, or such
    noise cannot be drawn.
    """
    alpha = settings.alpha
    if settings.float_sound:
        distance = (len(_thresholds(sigma * scale)) + 3) * 2.0 ** -(BITS + 1)
        alpha -= settings.n * pixels * distance
    if alpha <= 0:
        raise SpecError(f"alpha = {settings.alpha:g} is too small for noise on a grid with n = {settings.n}")
    return looks(settings.mode, settings.n, alpha)


@lru_cache(maxsize=8)
def _thresholds(sd: float) -> list[int]:
    """floor(2⁶³ Φ((j + 1/2) / sd)) for every j from −J to J − 1, beyond which less than 2⁻⁶³ is left.

    Raises SpecError unless there are 0.7 to 500 grid steps a standard deviation: rounded to fewer, noise is not nearly normal, as the
    self-test wants it; for more the table takes seconds.
    """
    if not FEWEST_STEPS <= sd <= MOST_STEPS:
        raise SpecError(f"noise on a grid wants sigma times scale from {FEWEST_STEPS} to {MOST_STEPS}, not {sd:g}")
    from mpmath import mp, mpf, ncdf

    with mp.workdps(50):
        below = []  # for j = −1, −2, …
        while (place := ncdf(-(len(below) + mpf(0.5)) / mpf(sd)) * 2**BITS) >= 1:
            below.append(int(place))
        return [*reversed(below), *(2**BITS - 1 - place for place in below)]  # Φ(−x) = 1 − Φ(x), and none is whole
