"""What n samples may be expected to certify, against simulation and closed forms."""

import numpy as np
import pytest
from scipy.stats import binom

from backend.certification.confidence import ceiling, lower_bound, radius
from backend.certification.planning import MOST, chance, expected_radius, fewest_votes, samples_for


def test_expected_radius_is_that_of_the_expected_votes():
    assert expected_radius(0.99, 0.5, 10_000, 0.001) == radius(lower_bound(9_900, 10_000, 0.001), 0.5)
    assert expected_radius(0.29, 0.5, 100, 0.001) == 0
    assert expected_radius(1 - 1e-12, 0.5, 10_000, 0.001) < ceiling(0.5, 10_000, 0.001)  # 9 999 votes
    assert expected_radius(0.99, 0.5, 10**8, 0.001) == pytest.approx(radius(0.99, 0.5), abs=1e-3)


@pytest.mark.parametrize(("r", "n"), [(0.1, 50), (0.5, 1_000), (1.0, 10_000), (1.59, 10_000)])
def test_fewest_votes_are_the_first_that_certify(r, n):
    k = fewest_votes(r, 0.5, n, 0.001)
    assert radius(lower_bound(k, n, 0.001), 0.5) >= r > radius(lower_bound(k - 1, n, 0.001), 0.5)


def test_beyond_the_ceiling_no_votes_suffice():
    r = ceiling(0.5, 1_000, 0.001) + 1e-6
    assert fewest_votes(r, 0.5, 1_000, 0.001) == 1_001
    assert chance(r, 0.999_999, 0.5, 1_000, 0.001) == 0


@pytest.mark.parametrize(("p", "r", "n"), [(0.95, 0.7, 2_000), (0.8, 0.35, 1_000), (0.99, 1.0, 700)])
def test_chance_is_the_share_of_simulated_certifications(p, r, n):
    votes = np.random.default_rng(0).binomial(n, p, 4_000)
    share = np.mean([radius(lower_bound(int(k), n, 0.001), 0.5) >= r for k in votes])
    expected = chance(r, p, 0.5, n, 0.001)
    assert expected == pytest.approx(binom.sf(fewest_votes(r, 0.5, n, 0.001) - 1, n, p))
    assert abs(share - expected) < 4 * np.sqrt(0.25 / len(votes))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_samples_for_have_the_chance_and_far_fewer_have_not(part):
    r = part * radius(0.99, 0.5)
    n = samples_for(r, 0.99, 0.5, 0.001)
    assert chance(r, 0.99, 0.5, n, 0.001) >= 0.9
    assert chance(r, 0.99, 0.5, n // 2, 0.001) < 0.9


def test_no_number_of_samples_reaches_the_exact_radius():
    assert samples_for(radius(0.99, 0.5), 0.99, 0.5, 0.001) is None
    assert samples_for(0.1, 0.5, 0.5, 0.001) is None
    assert samples_for(radius(0.99, 0.5) * (1 - 1e-7), 0.99, 0.5, 0.001) is None  # more than MOST
    assert MOST == 10**9
