"""Two runs, or groups of seeds, on the same images: against scipy's own tests, hand-made cases and simulation."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import binomtest, kstest, norm

from backend.statistics import paired, sign_flip_p


def two_runs(random, difference, images=500):
    """Gains of two runs on the same images, which share how hard an image is; b is better by `difference` in the mean."""
    hard = random.normal(0, 0.5, images)
    a = (1 + hard + random.normal(0, 0.1, images)).clip(0)
    b = (1 + hard + difference + random.normal(0, 0.1, images)).clip(0)
    return a, b, a >= 1, b >= 1


def test_a_known_difference_is_detected_at_the_stated_rate_and_no_difference_is_not():
    """Differences have sd 0.1 √2, so at 0.02 and 500 images the t test finds Φ(0.02 √500 / 0.1414 − 1.96) = 88.5 %."""
    random = np.random.default_rng(0)
    found = [paired(*two_runs(random, 0.02), 1.0) for _ in range(1_000)]
    power = norm.cdf(0.02 * sqrt(500) / (0.1 * sqrt(2)) - 1.96)
    assert np.mean([p.acr_p < 0.05 for p in found]) == pytest.approx(power, abs=0.035)
    assert np.mean([p.acr_low <= 0.02 <= p.acr_high for p in found]) == pytest.approx(0.95, abs=0.03)
    null = [paired(*two_runs(random, 0.0), 1.0) for _ in range(1_000)]
    assert np.mean([p.acr_p < 0.05 for p in null]) == pytest.approx(0.05, abs=0.02)
    assert np.mean([p.accuracy_p < 0.05 for p in null]) < 0.06  # McNemar's exact test is conservative
    assert kstest([p.acr_p for p in null], "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([-0.5] * 5, 2 / 32),
        ([0.5, 0.5, -0.5], 1.0),
        ([1, 0.5, 0, 0], 2 / 4),
        ([1 / 3, 2 / 3, -1 / 3], 6 / 8),
        ([0.2, 1 / 3], 2 / 4),
        ([], 1.0),
    ],
)
def test_signs_flipped_by_hand(differences, p):
    """Of 1/3, 2/3 and −1/3 the sum is 2/3; of eight sums 4/3 (twice), 2/3 (four times) and 0 (twice), up or down, six are as far from 0."""
    assert sign_flip_p(np.array([*differences, 0.0])) == pytest.approx(p)


def test_signs_of_many_flipped_are_as_of_a_thousand():
    """Just below and above where the exact sum ends."""
    random = np.random.default_rng(0)
    shares = (random.integers(0, 3, 1_001) - 0.9).round() * 0.5
    shares = np.where(shares == 0, 0.5, shares)
    p = [sign_flip_p(shares[:1_000]), sign_flip_p(shares)]
    z = [abs(some.sum()) / sqrt((some**2).sum()) for some in (shares[:1_000], shares)]
    assert p == pytest.approx([2 * norm.sf(one) for one in z], rel=0.05)


@pytest.mark.parametrize("images", [3, 4, 5, 8, 30])
def test_groups_without_a_difference_are_told_apart_at_most_as_often_as_said(images):
    """Two seeds each, which differ on few of 500 images, up or down alike: Student's interval alone would miss up to 12 %."""
    random = np.random.default_rng(images)
    told = 0
    for _ in range(2_000):
        a, b = np.zeros(500), np.zeros(500)
        signs = random.integers(0, 2, images) * 2 - 1
        a[:images], b[:images] = 0.5, 0.5 + 0.5 * signs
        told += paired(a, b, a, b, 0.0).accuracy_told != 0
    assert told / 2_000 <= 0.05 + 4 * sqrt(0.05 * 0.95 / 2_000)


def test_pairs_by_hand():
    """At r = 1, b gains images 1 and 2 and loses 3: McNemar's 2 of 3 is p = 1. A wrong answer never counts, whatever its gain."""
    a, b = np.array([1.2, 0.5, 0.5, 1.5, 0.0]), np.array([1.2, 1.1, 1.4, 0.9, 0.0])
    right = np.array([True, True, True, True, False])
    p = paired(a, b, right & (a >= 1), right & (b >= 1), 1.0)
    assert (p.gained, p.lost, p.accuracy, p.accuracy_p) == (2, 1, pytest.approx(0.2), 1.0)
    assert p.acr == pytest.approx((0 + 0.6 + 0.9 - 0.6 + 0) / 5)
    assert p.accuracy_low < 0 < p.accuracy_high  # as its p says
    five = paired(np.zeros(500), np.r_[np.ones(5), np.zeros(495)], np.zeros(500, bool), np.arange(500) < 5, 0.5)
    assert (five.gained, five.accuracy_p) == (5, 0.0625)
    assert five.accuracy_low < 0 < five.accuracy_high
    same = paired(a, a, right, right, 0.0)
    assert same.accuracy_low < 0 < same.accuracy_high
    assert (same.acr, same.acr_p, same.accuracy_p, same.gained, same.lost) == (0, 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("gained", "lost"), [(0.02, 0), (0.02, 0.002), (0.01, 0.002), (0.05, 0.05), (0.004, 0), (0.2, 0.1)]
)
def test_the_interval_of_a_difference_in_certified_accuracy_covers_it(gained, lost):
    """Images that one run alone certifies at r, 500 images, 2 000 times: also where the other gains none, which Wald's misses."""
    drawn = np.random.default_rng(0).multinomial(500, [gained, lost, 1 - gained - lost], 2_000)
    covered = 0
    for (b_alone, a_alone, _), times in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        a, b = np.arange(500) < a_alone, np.arange(500)[::-1] < b_alone
        p = paired(a * 1.0, b * 1.0, a, b, 0.5)
        assert (p.gained, p.lost) == (b_alone, a_alone)
        covered += times * (p.accuracy_low <= gained - lost <= p.accuracy_high)
    assert covered / 2_000 >= 0.95


@pytest.mark.parametrize(("gained", "lost"), [(6, 0), (13, 1), (50, 20)])
def test_that_interval_is_of_both_shares_at_half_the_error(gained, lost):
    a, b = np.arange(500) < lost, np.arange(500)[::-1] < gained
    p = paired(a * 1.0, b * 1.0, a, b, 0.5)
    more, less = (binomtest(k, 500).proportion_ci(0.975, "exact") for k in (gained, lost))
    assert (p.accuracy_low, p.accuracy_high) == pytest.approx((more.low - less.high, more.high - less.low), abs=1e-9)


@pytest.mark.parametrize(("gained", "lost", "told"), [(6, 0, 1), (0, 6, -1), (5, 0, 0), (13, 1, 1), (8, 2, 0)])
def test_mcnemars_test_tells_accuracies_apart(gained, lost, told):
    """2 (1/2)^6 = .031 and 2 (15/2^14) = .0018 are below .05, 2 (1/2)^5 = .0625 and 2 (56/2^10) = .11 are not; the interval is wider."""
    a, b = np.zeros(500, bool), np.zeros(500, bool)
    b[:gained], a[gained : gained + lost] = True, True
    p = paired(a * 1.0, b * 1.0, a, b, 0.5)
    assert p.accuracy_told == told
    if (gained, lost) != (13, 1):
        assert p.accuracy_low <= 0 <= p.accuracy_high
