from math import sqrt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import binom, binomtest

from backend.certification.confidence import ceiling, lower_bound, radius, radius_upper, top_two_differ

COUNTS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
ALPHAS = st.floats(1e-6, 0.5)


def test_hand_computed_bounds():
    assert lower_bound(100, 100, 0.001) == pytest.approx(0.001 ** (1 / 100), abs=1e-11)  # 0.933254…
    assert lower_bound(1, 100, 0.05) == pytest.approx(1 - 0.95 ** (1 / 100), abs=1e-11)  # P(X >= 1) = α
    assert lower_bound(0, 100, 0.001) == 0
    # two of two: p² = α
    assert lower_bound(2, 2, 0.25) == pytest.approx(0.5, abs=1e-11)


def test_hand_computed_radii():
    assert radius(float(ndtr(1.0)), 0.5) == pytest.approx(0.5, abs=1e-9)
    assert radius(0.975, 1.0) == pytest.approx(1.959963984540, abs=1e-11)
    assert radius(0.5, 1.0) == 0
    assert radius(0.3, 1.0) == 0


@pytest.mark.parametrize(("n", "factor"), [(1_000, 2.46), (10_000, 3.20), (100_000, 3.81)])
def test_ceiling_is_what_the_literature_says(n, factor):
    assert ceiling(1.0, n, 0.001) == pytest.approx(factor, abs=0.006)
    assert ceiling(0.25, n, 0.001) == pytest.approx(0.25 * ceiling(1.0, n, 0.001), abs=1e-11)


@given(COUNTS, ALPHAS)
def test_equal_to_scipys_interval_and_below_the_estimate(counts, alpha):
    k, n = counts
    bound = lower_bound(k, n, alpha)
    interval = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact")
    assert bound == pytest.approx(interval.low, abs=2e-12)  # scipy solves for it, to 1e-13 or so
    assert bound <= k / n


@given(COUNTS, ALPHAS)
def test_the_bound_is_supported_by_the_counts(counts, alpha):
    """At the bound, k or more successes happen with probability at most α: the definition, by another function."""
    k, n = counts
    assert k == 0 or binom.sf(k - 1, n, lower_bound(k, n, alpha)) <= alpha * (1 + 1e-9)


@given(COUNTS, ALPHAS)
def test_monotone(counts, alpha):
    k, n = counts
    if k:
        assert lower_bound(k - 1, n, alpha) <= lower_bound(k, n, alpha)
    assert lower_bound(k, n + 1, alpha) <= lower_bound(k, n, alpha)
    assert lower_bound(k, n, alpha / 2) <= lower_bound(k, n, alpha)


@given(st.floats(0.5, 1 - 1e-9), st.floats(0.01, 10))
@example(0.9033226239821228, 9.393211617875906)  # 12.2179261958679951…, of which floats make …68
def test_radius_is_never_above_the_exact_value(p_lower, sigma):
    from mpmath import erfinv, mp, mpf, sqrt

    mp.dps = 40
    exact = mpf(sigma) * sqrt(2) * erfinv(2 * mpf(p_lower) - 1)
    assert exact - mpf(10) ** -11 <= mpf(radius(p_lower, sigma)) <= exact
    if p_lower > 0.5:
        assert exact <= mpf(radius_upper(p_lower, sigma)) <= exact + mpf(10) ** -11


@pytest.mark.parametrize("arguments", [(5, 4, 0.1), (-1, 4, 0.1), (0, 0, 0.1), (1, 2, 0.0), (1, 2, 1.0)])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must"):
        lower_bound(*arguments)


@pytest.mark.parametrize("p", [0.5, 0.502, 0.6, 0.9, 0.99, 0.999, 0.99999])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_coverage(p, alpha):
    """Over 2 000 simulated counts with known p, claims above p are at most α of them, within binomial error."""
    counts = np.random.default_rng(round(p * 1e6)).binomial(1_000, p, size=2_000)
    false = sum(lower_bound(int(k), 1_000, alpha) > p for k in counts)
    assert false <= 2_000 * alpha + 4 * sqrt(2_000 * alpha * (1 - alpha))


def test_predict_test_against_hand_computed_values():
    assert not top_two_differ(5, 0, 0.05)  # two-sided: 2/32
    assert top_two_differ(6, 0, 0.05)  # 2/64
    assert not top_two_differ(0, 0, 0.05)
    assert not top_two_differ(500, 500, 0.05)
