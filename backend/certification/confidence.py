"""Bounds from vote counts, and radii from bounds. Everything that is claimed is rounded down."""

from math import floor

from scipy.special import betaincinv, ndtri

DECIMALS = 1e12  # claims are floored to twelve decimals, so that floating-point error cannot lift one


def lower_bound(k: int, n: int, alpha: float) -> float:
    """One-sided (1 − alpha) Clopper–Pearson lower bound of p from k successes in n: BetaInv(alpha; k, n − k + 1).

    Raises ValueError unless 0 <= k <= n, n >= 1 and 0 < alpha < 1.
    """
    if not (n >= 1 and 0 <= k <= n):
        raise ValueError(f"counts must satisfy 0 <= k <= n and n >= 1, not k = {k}, n = {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, not {alpha}")
    return _floor(float(betaincinv(k, n - k + 1, alpha))) if k else 0.0


def radius(p_lower: float, sigma: float) -> float:
    """σ Φ⁻¹(p_lower), the certified ℓ2 radius in pixels in [0, 1]; 0 where p_lower <= 1/2. Cohen, Theorem 1."""
    return _floor(sigma * float(ndtri(p_lower))) if p_lower > 0.5 else 0.0


def ceiling(sigma: float, n: int, alpha: float) -> float:
    """The largest radius that n samples can certify: that of n votes out of n, σ Φ⁻¹(alpha^(1/n))."""
    return radius(lower_bound(n, n, alpha), sigma)


def top_two_differ(k1: int, k2: int, alpha: float) -> bool:
    """PREDICT's test: whether k1 of k1 + k2 votes reject a fair coin, two-sided, at level alpha."""
    from scipy.stats import binomtest  # takes a second to import, and only this needs it

    return k1 + k2 > 0 and bool(binomtest(k1, k1 + k2, 0.5).pvalue <= alpha)


def _floor(value: float) -> float:
    return floor(value * DECIMALS) / DECIMALS
