"""What certificates say and how surely: intervals, pairs of runs, fewer samples. Arrays in, numbers out.

An image's gain is 1[correct] · radius; ACR is its mean. Every interval covers the choice of test images alone, where
the name does not say otherwise: not that of the training seed. scipy.stats takes a second to import, and only the functions
that test want it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm

import numpy as np
from scipy.special import betaincinv, erfc, gammaln, stdtrit

from backend.certification.confidence import lower_bounds, radii

NS = [100, 1_000, 10_000, 100_000, 1_000_000]  # numbers of samples at which a run is shown


def half_width(se, values):
    """Half of Student's 95 % interval of the mean of so many values, with the standard error se; numbers or arrays."""
    return stdtrit(values - 1, 0.975) * se


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Student's 95 % interval of the mean of values (N,), N >= 2."""
    half = half_width(np.std(values, ddof=1) / np.sqrt(len(values)), len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def half_over_seeds(half: float, gains: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean over S seeds for other images and other training seeds together: `half`, of other images alone,
    and Student's over the gains (S,) of the seeds, as the root of the sum of their squares. Of one seed or two `half` as it is: they do not tell
    how far a third may lie.
    """
    if len(gains) < 3:
        return half
    low, high = mean_interval(np.asarray(gains))
    return float(np.hypot(half, (high - low) / 2))


def acr_interval(gains: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of ACR, the mean of gains (N,), N >= 2, none of which is below 0."""
    low, high = mean_interval(gains)
    return max(0.0, low), high


def share_band(k: np.ndarray, images: np.ndarray | int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Clopper–Pearson's interval of each share k / images: the band around a curve of certified accuracy, point by point."""
    k, tail = np.asarray(k, dtype=float), (1 - level) / 2
    rest = images - k
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), rest + 1, tail), 0.0)
    high = np.where(rest > 0, betaincinv(k + 1, np.maximum(rest, 1), 1 - tail), 1.0)
    return low, high


def high_probability_accuracy(reached: int, images: int, alpha: float, rho: float = 0.001) -> float:
    """A bound of the exact certified accuracy on these images with probability 1 − ρ over the noise; at least 0.

    Each of N certificates is wrong with probability at most α, independently: more than BinomInv(1 − ρ; N, α) of them are
    with probability at most ρ. (Cohen et al., appendix, bound the same number by Bernstein's inequality.) Fixed n alone.
    """
    from scipy.stats import binom

    return max(0.0, (reached - int(binom.isf(rho, images, alpha))) / images)


def reproduction(ours: np.ndarray, mean: float, sd: float, seeds: int) -> tuple[float, float]:
    """Our mean over seeds (M,) less a published one, and half its 95 % interval: what other seeds, and with the sd of single runs other samples, may make of it.

    Taken: our seeds vary as the published ones, whose sd has seeds − 1 degrees of freedom. Of one run of ours that is the
    prediction interval of one more seed of theirs. Equal images and n are presumed; infinite where one seed was published.
    """
    half = np.inf
    if seeds > 1:
        half = half_width(sd * np.sqrt(1 / len(ours) + 1 / seeds), seeds)
    return float(np.mean(ours) - mean), float(half)


@dataclass(frozen=True)
class Paired:
    """Run b less run a on the same images: differences with 95 % intervals, and the probability of as much by chance.

    The interval of a difference in certified accuracy covers at least that often, and may hold 0 where McNemar's test, which is
    exact, tells the two apart: the test decides.

    Of groups of seeds: of the means over seeds, image by image. `accuracy_p`, gained and lost are None then, and what tells their
    accuracies apart is the interval and, where few images differ and it is too short, a sign-flip test.
    """

    images: int
    acr: float
    acr_low: float
    acr_high: float
    acr_p: float  # Student's paired t test
    r: float
    accuracy: float  # certified accuracy at r
    accuracy_low: float
    accuracy_high: float
    accuracy_p: float | None  # McNemar's exact test
    gained: int | None  # images certified at r by b alone
    lost: int | None  # by a alone
    flips_p: float | None = None  # of groups: `sign_flip_p` of the shares

    @property
    def acr_told(self) -> int:
        """1 where b's ACR is larger, −1 where it is smaller, 0 where the two are not told apart at 5 %."""
        return int(self.acr_low > 0) - int(self.acr_high < 0)

    @property
    def accuracy_told(self) -> int:
        """The same of certified accuracy at r: by McNemar's test, of groups by the interval and the sign-flip test."""
        if self.flips_p is not None:
            return int(self.accuracy_low > 0) - int(self.accuracy_high < 0) if self.flips_p <= 0.05 else 0
        return int(np.sign(self.accuracy)) if self.accuracy_p <= 0.05 else 0


def check_radius(r: float) -> None:
    """Raise ValueError unless r can be a radius to ask about."""
    if not 0 <= r <= 1e6:
        raise ValueError(f"a radius is at least 0, and at most a million, not {r}")


def paired(gain_a: np.ndarray, gain_b: np.ndarray, reached_a: np.ndarray, reached_b: np.ndarray, r: float) -> Paired:
    """Compare gains (N,) of two runs or groups of seeds, and whether each image is certified and right at r (N,): shares of
    the seeds where they are groups. McNemar's test where both are 0 or 1, else Student's and signs flipped on the shares. Raises ValueError for
    less than two images, and for an r that is no radius.
    """
    from scipy.stats import binomtest, ttest_rel

    if len(gain_a) < 2:
        raise ValueError(f"a comparison wants two images or more, not {len(gain_a)}: one says nothing of others")
    check_radius(r)
    difference = gain_b - gain_a
    low, high = mean_interval(difference)
    p = float(ttest_rel(gain_b, gain_a).pvalue) if difference.any() else 1.0
    start = (len(gain_a), float(difference.mean()), low, high, p, r)
    if not np.isin(both := np.concatenate([reached_a, reached_b]), (0, 1)).all():
        shares = reached_b - reached_a
        return Paired(*start, float(shares.mean()), *mean_interval(shares), None, None, None, sign_flip_p(shares))
    a, b = both.astype(bool).reshape(2, -1)
    gained, lost = int((b & ~a).sum()), int((a & ~b).sum())
    exact = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    share_low, share_high = _difference_interval(gained, lost, len(a))
    return Paired(*start, (gained - lost) / len(a), share_low, share_high, exact, gained, lost)


def sign_flip_p(differences: np.ndarray) -> float:
    """The probability that differences (N,), shares of few seeds, sum to as much, up or down, if each could as well have the other sign:
    exact, of more than a thousand that differ by the normal distribution.
    """
    differences = differences[differences != 0]
    if len(differences) > 1_000:
        return float(erfc(abs(differences.sum()) / np.sqrt(2 * (differences**2).sum())))
    whole = lcm(*(Fraction(float(d)).limit_denominator(1_000).denominator for d in np.unique(differences)))
    steps = np.rint(np.abs(differences) * whole).astype(int)
    most = int(steps.sum())
    chance = np.zeros(2 * most + 1)  # of each sum from −most to most
    chance[most] = 1.0
    for step in steps:
        chance = (np.roll(chance, step) + np.roll(chance, -step)) / 2  # what is rolled over an end is 0
    sums = np.abs(np.arange(-most, most + 1))
    return min(1.0, float(chance[sums >= abs(round(float(differences.sum()) * whole))].sum()))


def for_other_seeds(p: Paired, acr_gains: Sequence[float], accuracy_gains: Sequence[float]) -> Paired:
    """A comparison of groups whose intervals cover other training seeds too, from the gains (S,) of each seed: `half_over_seeds`."""
    acr = half_over_seeds((p.acr_high - p.acr_low) / 2, acr_gains)
    accuracy = half_over_seeds((p.accuracy_high - p.accuracy_low) / 2, accuracy_gains)
    return replace(
        p, acr_low=p.acr - acr, acr_high=p.acr + acr, accuracy_low=p.accuracy - accuracy, accuracy_high=p.accuracy + accuracy
    )  # fmt: skip


def comparable_radii(mode: str) -> tuple[float, float]:
    """The radii, from … to …, at which certified accuracy compares between runs of a mode as `Certification.label` words it; (inf, 0)
    where it does nowhere. ACR and abstention compare where it is (0, inf): else they measure when sampling stopped.

    `at-radius` leaves an image as soon as it lies surely below or above; `anytime` with a radius goes on until it is certified.
    """
    stops = dict(part.split() for part in mode.split(", ") if " " in part)
    if "width" in stops:
        return np.inf, 0.0
    r = float(stops.get("radius", np.inf))
    return (r if mode.startswith("at-radius") else 0.0), r


def early_stop(mode: str) -> str:
    """What is to be said of runs that stop sampling early on purpose; "" of others."""
    low, high = comparable_radii(mode)
    if high == np.inf:
        return ""
    where = f"at r = {high:.12g} alone" if low == high else f"up to r = {high:.12g}" if low < high else "at no radius"
    rest = "neither ACR nor abstention does" if low else "ACR does not"
    return (
        "These runs stop sampling on purpose, as soon as their question is answered: a radius says when that was, not how far the answer "
        f"holds. Certified accuracy compares {where}; {rest}."
    )


def seeds_apart(acr_a: np.ndarray, acr_b: np.ndarray) -> tuple[float, float] | None:
    """Welch's 95 % interval of the difference of two methods' ACR over training seeds, b less a; None unless both have two or more that differ."""
    if min(len(set(acr_a)), len(set(acr_b))) < 2:
        return None
    from scipy.stats import ttest_ind

    interval = ttest_ind(acr_b, acr_a, equal_var=False).confidence_interval()
    return float(interval.low), float(interval.high)


def _difference_interval(gained: int, lost: int, images: int) -> tuple[float, float]:
    """Of the difference of the two shares of images: Clopper–Pearson of either at 97.5 %, the lower end of one less the upper of
    the other. Both hold at once with probability 95 % at least, so it covers, and is wider than need be.
    """
    (gained_low, lost_low), (gained_high, lost_high) = share_band(np.array([gained, lost]), images, 0.975)
    return float(gained_low - lost_high), float(gained_high - lost_low)


def thinned(top_count: np.ndarray, n: int, fewer: int, run_id: str) -> np.ndarray:
    """The votes for the class among `fewer` of each image's n samples, chosen at random, by run id: equal calls, equal votes.

    A random part of the samples is itself a sample, so what follows from it is a certificate at n = fewer. Raises
    ValueError for more than n: samples that were not drawn say nothing.
    """
    if not 0 < fewer <= n:
        raise ValueError(f"a run of n = {n} samples can be shown at fewer, not at {fewer}")
    random = np.random.default_rng(list(hashlib.sha256(f"{run_id}/{fewer}".encode()).digest()))
    return random.hypergeometric(top_count, n - np.asarray(top_count), fewer)


def chances_of_counts(top_count: np.ndarray, n: int, fewer: int, counts: np.ndarray) -> np.ndarray:
    """How likely each of `counts` (K,) is among `fewer` of an image's n samples, top_count (N,) of which are votes: (N, K), hypergeometric.

    Of what `thinned` draws once, all that it could draw. Hundreds of times faster than scipy's.
    """
    factorial = gammaln(np.arange(n + 1) + 1.0)  # its logarithm

    def choose(of: np.ndarray, some: np.ndarray) -> np.ndarray:
        possible = (some >= 0) & (some <= of)
        some = np.where(possible, some, 0)
        return np.where(possible, factorial[of] - factorial[some] - factorial[of - some], -np.inf)

    different, where = np.unique(top_count, return_inverse=True)
    votes, counts = different[:, None], np.asarray(counts)[None]
    return np.exp(choose(votes, counts) + choose(n - votes, fewer - counts) - choose(n, np.array(fewer)))[where]


def certified_radii(top_count: np.ndarray, n: int, sigma: float, alpha: float) -> np.ndarray:
    """σ Φ⁻¹(p̲) for counts of n, 0 where p̲ <= 1/2; rounded down to twelve decimals, as wherever it is claimed."""
    return radii(lower_bounds(top_count, n, alpha), sigma)


def counts_of_radii(radius: np.ndarray, n: int, sigma: float, alpha: float, digits: int) -> np.ndarray:
    """The counts of n that published radii (N,), rounded to so many significant digits, most nearly belong to; 0 for radius 0."""
    table = certified_radii(np.arange(n + 1), n, sigma, alpha)
    positive = table > 0
    ends = np.searchsorted(table, radius)
    near = np.clip(ends, 1, n)
    near = np.where(radius - table[near - 1] < table[near] - radius, near - 1, near)
    near = np.where(np.abs(radius - table[n]) <= 0.5 * 10.0 ** (np.floor(np.log10(table[n])) + 1 - digits), n, near)
    return np.where(radius > 0, np.maximum(near, positive.argmax()), 0)


def acr_by_n(
    top_count: np.ndarray, right: np.ndarray, n: int, sigma: float, alpha: float, run_id: str, ns: list[int]
) -> dict[int, float]:
    """ACR as it would be at each of ns that is at most n, from the counts (N,) of images answered right or wrong (N,)."""
    return {
        fewer: float((certified_radii(thinned(top_count, n, fewer, run_id), fewer, sigma, alpha) * right).mean())
        for fewer in ns if fewer <= n
    }  # fmt: skip


def pareto(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points (N,) no other one beats: none is at least as good in both and better in one."""
    return np.array([not (((x >= a) & (y >= b)) & ((x > a) | (y > b))).any() for a, b in zip(x, y, strict=True)], bool)


def acr_shares(gains: np.ndarray) -> np.ndarray:
    """What part of ACR the images with the largest gains make up: cumulative shares (N,), the largest first, of gains (N,).

    All 0 where no image has a gain.
    """
    total = gains.sum()
    return np.cumsum(np.sort(gains)[::-1]) / (total if total > 0 else 1)
