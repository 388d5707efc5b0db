"""Bounds from vote counts, and radii from bounds. Everything that is claimed is rounded down."""

from math import ceil, inf

import numpy as np
from scipy.special import betaincinv, ndtri

FIRST_LOOK, GROWTH = 64, 1.5  # of the geometric grid of looks
# Claims are floored to twelve decimals, and by SLACK before, so that floating-point error cannot lift one.
DECIMALS = 1e12
# By what part of it a computed radius may be off: ndtri by 2.5 units in the last place, four roundings by 2.
SLACK = 8 * 2**-52
ROUNDING = 2 / DECIMALS  # by which an honest claim may exceed what another machine makes of the same counts


def lower_bound(k: int, n: int, alpha: float) -> float:
    """One-sided (1 − alpha) Clopper–Pearson lower bound of p from k successes in n: BetaInv(alpha; k, n − k + 1).

    Raises ValueError unless 0 <= k <= n, n >= 1 and 0 < alpha < 1.
    """
    if not (n >= 1 and 0 <= k <= n):
        raise ValueError(f"counts must satisfy 0 <= k <= n and n >= 1, not k = {k}, n = {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, not {alpha}")
    return float(lower_bounds(k, n, alpha))


def lower_bounds(k, n, alpha) -> np.ndarray:
    """`lower_bound` of arrays (N,) of counts, which are not checked; n and alpha are numbers or arrays, too."""
    k = np.asarray(k)
    return _floor(np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, alpha), 0.0))


def radius(p_lower: float, sigma: float) -> float:
    """σ Φ⁻¹(p_lower), the certified ℓ2 radius in pixels in [0, 1]; 0 where p_lower <= 1/2. Cohen, Theorem 1."""
    return float(radii(p_lower, sigma))


def radii(p_lower, sigma: float) -> np.ndarray:
    """`radius` of an array (N,) of bounds; infinite for 1, which no count supports."""
    return _floor(np.where(np.asarray(p_lower) > 0.5, sigma * ndtri(np.maximum(p_lower, 0.5)), 0.0))


def radius_upper(p_upper: float, sigma: float) -> float:
    """An upper bound of the exact radius σ Φ⁻¹(p_A), rounded up; infinite for p_upper = 1, 0 for p_upper <= 1/2."""
    if p_upper >= 1:
        return inf
    return ceil(sigma * float(ndtri(p_upper)) * (1 + SLACK) * DECIMALS) / DECIMALS if p_upper > 0.5 else 0.0


def ceiling(sigma: float, n: int, alpha: float) -> float:
    """The largest radius that n samples can certify: that of n votes out of n, σ Φ⁻¹(alpha^(1/n))."""
    return radius(lower_bound(n, n, alpha), sigma)


def digits_error(digits: int | None) -> float:
    """By what part of it a radius that was written with so many significant digits may differ from the computed one; None: with all."""
    return 0.5 / 10 ** (digits - 1) if digits else 0.0


def upper_bound(k: int, n: int, alpha: float) -> float:
    """One-sided (1 − alpha) Clopper–Pearson upper bound of p, rounded up: what the other n − k votes do not rule out."""
    return 1 - lower_bound(n - k, n, alpha)


def looks(mode: str, n: int, alpha: float) -> list[tuple[int, float]]:
    """When a mode looks at its counts, and the error probability that it spends there: [(samples, alpha_j)], Σ alpha_j = alpha.

    fixed: once, at n. anytime and at-radius: at a geometric grid that ends at n. By the union bound all the lower
    bounds hold at once with probability 1 − alpha, whenever and for whatever reason the sampling stops; so do all the upper
    bounds. anytime spends half of alpha on the last look, so that its radius there is almost the fixed one; at-radius
    spends it evenly, since most images are decided at the first looks.
    """
    if mode == "fixed":
        return [(n, alpha)]
    grid = [n]
    while grid[0] / GROWTH >= FIRST_LOOK:
        grid.insert(0, round(grid[0] / GROWTH))
    if len(grid) == 1:
        return [(n, alpha)]
    last = alpha / 2 if mode == "anytime" else alpha / len(grid)
    return [(samples, (alpha - last) / (len(grid) - 1)) for samples in grid[:-1]] + [(n, last)]


def top_two_differ(k1: int, k2: int, alpha: float) -> bool:
    """PREDICT's test: whether k1 of k1 + k2 votes reject a fair coin, two-sided, at level alpha."""
    from scipy.stats import binomtest  # takes a second to import, and only this needs it

    return k1 + k2 > 0 and bool(binomtest(k1, k1 + k2, 0.5).pvalue <= alpha)


def _floor(values: np.ndarray) -> np.ndarray:
    return np.floor(values * (1 - SLACK) * DECIMALS) / DECIMALS
