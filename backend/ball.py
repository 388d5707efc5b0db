"""The certified ball made tangible: its size in pixels and grey levels, and images on its surface. Loads no torch."""

from math import ceil

import numpy as np


def whole_pixels(radius: float, channels: int) -> int:
    """How many pixels may turn from black to white: the largest k with sqrt(k · channels) < radius."""
    return max(0, ceil(radius**2 / channels - 1e-12) - 1)


def grey_levels(radius: float, values: int) -> float:
    """By how many of 255 levels every one of so many values may change at once: below this."""
    return 255 * radius / values**0.5


def random_direction(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A direction, uniform on the unit sphere."""
    gaussian = np.random.default_rng(seed).standard_normal(shape)
    return gaussian / np.linalg.norm(gaussian)


def moved(pixels: np.ndarray, scale: int, direction: np.ndarray, norm: float) -> tuple[np.ndarray, float]:
    """pixels (C, H, W) of 0 to scale, changed along `direction` by an l2 norm in units of pixels in [0, 1].

    Returns the image clipped to 0 to scale and rounded, as it is shown, and the share of its values that were clipped.
    """
    values = pixels + scale * norm * direction / np.linalg.norm(direction)
    outside = (values < 0) | (values > scale)
    return np.rint(values).clip(0, scale).astype(np.uint8), float(outside.mean())
