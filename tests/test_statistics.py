"""Statistics against scipy's own tests, hand-made cases and simulation."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom, norm, t

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


def binom_pmf(n, p, k):
    return comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize(("images", "alpha"), [(500, 0.001), (10_000, 0.001), (10_000, 0.01)])
def test_high_probability_accuracy_fails_with_probability_rho_at_most(images, alpha):
    """All certificates claim the image; each is wrong with probability α: the bound exceeds the truth in at most ρ of the cases."""
    bound = high_probability_accuracy(images, images, alpha, rho=0.001)
    allowed = round((1 - bound) * images)
    assert sum(binom_pmf(images, alpha, k) for k in range(allowed + 1)) >= 0.999
    assert sum(binom_pmf(images, alpha, k) for k in range(allowed)) < 0.999  # and no wider than it must be
    assert high_probability_accuracy(0, images, alpha) == 0


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
    assert seeds_apart(a, b[:1].repeat(3)) is None  # collapsed networks, say: no spread to tell of


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
    least = counts_of_radii(np.array([1e-9]), 10_000, 0.25, 0.001, 3)  # nearer to none, and yet it was certified
    assert certified_radii(least - 1, 10_000, 0.25, 0.001)[0] == 0 < certified_radii(least, 10_000, 0.25, 0.001)[0]


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
