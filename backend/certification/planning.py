"""What n samples may be expected to certify, asked before any are drawn: for choosing n. Nothing here is a certificate."""

from scipy.special import bdtrc

from backend.certification.confidence import lower_bound, radius

MOST = 1_000_000_000  # samples
WANTED = 0.9  # chance of the certificate that one plans for


def expected_votes(p: float, n: int) -> int:
    """⌊p n⌋, of which rounding errors take none: 0.29 · 100 is 28.999…"""
    return int(p * n + 1e-9)


def expected_radius(p: float, sigma: float, n: int, alpha: float) -> float:
    """The radius that n samples certify if the votes come out as expected.

    p: the class's probability under the noise, in (0, 1). In pixels of [0, 1], rounded down.
    """
    return radius(lower_bound(expected_votes(p, n), n, alpha), sigma)


def fewest_votes(r: float, sigma: float, n: int, alpha: float) -> int:
    """The least k for which k votes of n certify a radius of at least r > 0; n + 1 where not even n of n do."""
    low, high = 0, n + 1
    while low < high:
        k = (low + high) // 2
        if k > n or radius(lower_bound(k, n, alpha), sigma) >= r:
            high = k
        else:
            low = k + 1
    return low


def chance(r: float, p: float, sigma: float, n: int, alpha: float) -> float:
    """The probability that n samples certify at least r > 0, where each votes for the class with probability p."""
    k = fewest_votes(r, sigma, n, alpha)
    return float(bdtrc(k - 1, n, p)) if k <= n else 0.0


def samples_for(r: float, p: float, sigma: float, alpha: float) -> int | None:
    """A number of samples that certifies r > 0 with probability WANTED or more; None where that takes more than MOST.

    It takes more wherever r is not below the exact radius σ Φ⁻¹(p). The chance rises with n but for a sawtooth, votes being
    whole: a somewhat smaller number may do as well.
    """
    if r >= radius(p, sigma) or chance(r, p, sigma, MOST, alpha) < WANTED:
        return None
    low, high = 1, MOST
    while high - low > max(1, high // 100):
        n = round((low * high) ** 0.5) if high > 4 * low else (low + high) // 2
        if chance(r, p, sigma, n, alpha) >= WANTED:
            high = n
        else:
            low = n
    return high
