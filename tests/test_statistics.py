"""Statistics against scipy's own tests, hand-made cases and simulation."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom, kstest, norm, t

from backend.certification.confidence import ceiling, lower_bound, radius
from backend.spec import Certification
from backend.statistics import (
    acr_by_n,
    acr_shares,
    certified_radii,
    chances_of_counts,
    comparable_radii,
    counts_of_radii,
    early_stop,
    half_over_seeds,
    high_probability_accuracy,
    mean_interval,
    paired,
    pareto,
    reproduction,
    seeds_apart,
    share_band,
    sign_flip_p,
    thinned,
)


@given(st.integers(1, 2_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_band_is_scipys_interval(kn):
    k, n = kn
    low, high = share_band(np.array([k]), n)
    exact = binomtest(k, n).proportion_ci(0.95, "exact")
    assert (low[0], high[0]) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_the_interval_of_a_mean_covers_it():
    """Gains of images: many zeros, the rest near the ceiling. 95 % intervals of 500 images, 2 000 times."""
    random = np.random.default_rng(0)
    truth = 0.8 * 1.5
    covered = 0
    for _ in range(2_000):
        gains = np.where(random.random(500) < 0.8, random.uniform(1.4, 1.6, 500), 0.0)
        low, high = mean_interval(gains)
        covered += low <= truth <= high
    assert 0.93 < covered / 2_000 < 0.97


@pytest.mark.parametrize(("images", "alpha"), [(500, 0.001), (10_000, 0.001), (10_000, 0.01)])
def test_high_probability_accuracy_fails_with_probability_rho_at_most(images, alpha):
    """All certificates claim the image; each is wrong with probability α: the bound exceeds the truth in at most ρ of the cases."""
    bound = high_probability_accuracy(images, images, alpha, rho=0.001)
    allowed = round((1 - bound) * images)
    assert sum(binom_pmf(images, alpha, k) for k in range(allowed + 1)) >= 0.999
    assert sum(binom_pmf(images, alpha, k) for k in range(allowed)) < 0.999  # and no wider than it must be
    assert high_probability_accuracy(0, images, alpha) == 0


def binom_pmf(n, p, k):
    return comb(n, k) * p**k * (1 - p) ** (n - k)


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


def test_another_seed_falls_where_the_prediction_interval_says():
    """Six seeds of one normal law: the sixth lies within the interval of the other five 95 times of 100; 4 of ours likewise."""
    random = np.random.default_rng(0)
    for ours in (1, 4):
        inside = 0
        for _ in range(4_000):
            theirs = random.normal(1.6, 0.002, 5)
            difference, half = reproduction(random.normal(1.6, 0.002, ours), theirs.mean(), theirs.std(ddof=1), 5)
            inside += abs(difference) <= half
        assert 0.94 < inside / 4_000 < 0.96
    assert reproduction(np.array([1.5]), 1.6, np.nan, 1) == (pytest.approx(-0.1), np.inf)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("image_sd", "seed_sd"), [(1, 0), (1, 0.1), (0.2, 1)])
def test_the_interval_over_images_and_seeds_covers_the_mean(seeds, image_sd, seed_sd):
    """Effects of 100 images, of the seeds, and of both; where seeds matter, the interval over images alone misses."""
    random = np.random.default_rng(0)
    covered, by_images = 0, 0
    for _ in range(1000):
        gains = image_sd * random.standard_normal(100) + seed_sd * random.standard_normal((seeds, 1))
        gains = gains + 0.3 * random.standard_normal((seeds, 100))
        low, high = mean_interval(gains.mean(0))
        covered += abs(gains.mean()) <= half_over_seeds((high - low) / 2, gains.mean(1))
        by_images += low <= 0 <= high
    assert covered >= 935  # 950 less two standard deviations
    assert by_images < (950 if seed_sd else 980)


def test_fewer_than_three_seeds_widen_nothing():
    assert half_over_seeds(0.1, [0.0, 1.0]) == half_over_seeds(0.1, [3.0]) == 0.1
    assert half_over_seeds(3.0, [-1.0, 0.0, 1.0]) == pytest.approx((9 + 4.30265**2 / 3) ** 0.5)


def test_seeds_are_told_apart_by_welchs_interval():
    a, b = np.array([1.0, 1.2, 1.1]), np.array([1.5, 1.4])
    low, high = seeds_apart(a, b)
    va, vb = a.var(ddof=1) / 3, b.var(ddof=1) / 2
    half = t.ppf(0.975, (va + vb) ** 2 / (va**2 / 2 + vb**2)) * sqrt(va + vb)
    assert (low, high) == (pytest.approx(0.35 - half), pytest.approx(0.35 + half))
    assert seeds_apart(a, b[:1]) is None


def test_radii_are_those_of_certify():
    counts = np.array([0, 400, 501, 800, 999, 1_000])
    assert certified_radii(counts, 1_000, 0.5, 0.001).tolist() == [
        radius(lower_bound(int(k), 1_000, 0.001), 0.5) for k in counts
    ]


def test_thinned_counts_are_a_random_part_of_the_samples():
    """Of k votes of 10 000, 1 000 samples have k/10 in the mean, with the variance of drawing without replacement."""
    counts = np.full(20_000, 9_000)
    drawn = thinned(counts, 10_000, 1_000, "a run")
    assert drawn.mean() == pytest.approx(900, abs=0.3)
    assert drawn.var() == pytest.approx(1_000 * 0.9 * 0.1 * (9_000 / 9_999), rel=0.04)
    assert np.array_equal(drawn, thinned(counts, 10_000, 1_000, "a run"))
    assert not np.array_equal(drawn, thinned(counts, 10_000, 1_000, "another run"))
    assert np.array_equal(thinned(counts, 10_000, 10_000, "a run"), counts)
    assert thinned(np.array([10_000]), 10_000, 1_000, "x")[0] == 1_000


@pytest.mark.parametrize("fewer", [10_001, 0, -5])
def test_samples_that_were_not_drawn_say_nothing(fewer):
    with pytest.raises(ValueError, match="can be shown at fewer"):
        thinned(np.array([9_000]), 10_000, fewer, "x")


def test_what_thinning_shows_on_average():
    """scipy's probabilities, also of what cannot be; and the mean of what is drawn."""
    votes, counts = np.array([0, 700, 9_990, 10_000]), np.arange(1_001)
    chances = chances_of_counts(votes, 10_000, 1_000, counts)
    assert chances == pytest.approx(hypergeom.pmf(counts, 10_000, votes[:, None], 1_000), rel=1e-8, abs=1e-14)
    assert chances[0, 0] == chances[3, 1_000] == pytest.approx(1)
    table = certified_radii(counts, 1_000, 1.0, 0.001)
    drawn = certified_radii(thinned(np.full(20_000, 9_990), 10_000, 1_000, "x"), 1_000, 1.0, 0.001)
    assert drawn.mean() == pytest.approx(chances[2] @ table, abs=4 * drawn.std() / sqrt(20_000))


def test_a_thinned_certificate_is_one():
    """Coverage: p = 0.9 exactly; the bound from the 1 000 exceeds it in at most α of 20 000 images."""
    random = np.random.default_rng(1)
    drawn = thinned(random.binomial(10_000, 0.9, 20_000), 10_000, 1_000, "x")
    radii = certified_radii(drawn, 1_000, 1.0, 0.01)
    wrong = (radii > norm.ppf(0.9)).mean()
    assert wrong <= 0.01 + 4 * sqrt(0.01 * 0.99 / 20_000)


@pytest.mark.parametrize(("gained", "lost", "told"), [(6, 0, 1), (0, 6, -1), (5, 0, 0), (13, 1, 1), (8, 2, 0)])
def test_mcnemars_test_tells_accuracies_apart(gained, lost, told):
    """2 (1/2)^6 = .031 and 2 (15/2^14) = .0018 are below .05, 2 (1/2)^5 = .0625 and 2 (56/2^10) = .11 are not; the interval is wider."""
    a, b = np.zeros(500, bool), np.zeros(500, bool)
    b[:gained], a[gained : gained + lost] = True, True
    p = paired(a * 1.0, b * 1.0, a, b, 0.5)
    assert p.accuracy_told == told
    if (gained, lost) != (13, 1):
        assert p.accuracy_low <= 0 <= p.accuracy_high


def test_what_cannot_be_compared_is_refused():
    one, two = np.ones(1), np.ones(2)
    with pytest.raises(ValueError, match="two images or more, not 1"):
        paired(one, one, one, one, 0.5)
    for wrong in (-1, float("inf"), float("nan"), 1e300):
        with pytest.raises(ValueError, match="a radius is at least 0, and at most a million, not "):
            paired(two, two, two, two, wrong)


@pytest.mark.parametrize(
    ("settings", "radii", "says"),
    [
        ({}, (0, np.inf), ""),
        ({"mode": "anytime", "float_sound": True}, (0, np.inf), ""),
        ({"mode": "at-radius", "radius": 255 / 256}, (255 / 256, 255 / 256), "r = 0.99609375 alone; neither ACR nor abstention does."),
        ({"mode": "at-radius", "radius": 0.5}, (0.5, 0.5), "compares at r = 0.5 alone; neither ACR nor abstention does."),
        ({"mode": "anytime", "radius": 0.75}, (0, 0.75), "compares up to r = 0.75; ACR does not."),
        ({"mode": "anytime", "width": 0.1, "radius": 1.0}, (np.inf, 0), "compares at no radius; neither ACR nor abstention does."),
    ],
)  # fmt: skip
def test_where_accuracies_of_a_mode_compare(settings, radii, says):
    label = Certification(**settings).label
    assert comparable_radii(label) == radii
    assert early_stop(label).endswith(says)
    assert bool(early_stop(label)) == bool(says)


def test_counts_come_back_from_three_digits():
    """Every radius that 10 000 samples certify, rounded to three digits: the count is off by no more than the rounding."""
    counts = np.arange(5_200, 10_001, 37)
    exact = certified_radii(counts, 10_000, 0.25, 0.001)
    printed = np.array([float(f"{r:.3g}") for r in exact])
    back = counts_of_radii(printed, 10_000, 0.25, 0.001, 3)
    assert np.abs(certified_radii(back, 10_000, 0.25, 0.001) - exact).max() < 0.001  # half a digit and half a count
    assert (
        counts_of_radii(np.array([float(f"{ceiling(0.25, 10_000, 0.001):.3g}")]), 10_000, 0.25, 0.001, 3)[0] == 10_000
    )
    assert counts_of_radii(np.array([0.0]), 10_000, 0.25, 0.001, 3)[0] == 0


def test_acr_grows_with_n_towards_the_ceiling():
    counts, right = np.full(100, 10_000), np.ones(100, bool)
    by_n = acr_by_n(counts, right, 10_000, 0.5, 0.001, "x", [100, 1_000, 10_000, 100_000])
    assert by_n == pytest.approx({n: ceiling(0.5, n, 0.001) for n in (100, 1_000, 10_000)})  # never beyond its own n


def test_pareto_front_by_hand():
    x, y = np.array([0.9, 0.8, 0.7, 0.8, 0.9]), np.array([1.0, 1.2, 1.1, 1.2, 0.9])
    assert pareto(x, y).tolist() == [True, True, False, True, False]  # equal points do not beat each other


def test_acr_shares_start_with_the_largest():
    assert acr_shares(np.array([0.0, 3.0, 1.0])).tolist() == [0.75, 1.0, 1.0]
    assert acr_shares(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
