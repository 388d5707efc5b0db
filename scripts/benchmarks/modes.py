"""How many samples the adaptive modes take, on the distribution of p_A of released per-example logs.

Each log (Cohen's columns, n = 100 000, alpha = 0.001) gives p_A an image: the share of votes whose Clopper-Pearson bound is the
logged radius. From these, counts are simulated; at-radius is compared with the fixed test at n = 100 000, anytime's
bound with the fixed one and with a mixture martingale, which is what we would use in its place.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv, betaln, ndtr, ndtri

from backend.certification.confidence import looks

N, ALPHA, SIGMA = 100_000, 0.001, 0.5
LEAST = 100  # images of a log


def shares(log: Path, rng) -> tuple[np.ndarray, np.ndarray]:
    """p_A of each image and whether it is correct. Abstentions are taken for coin flips; a perfect count for 1 − U(0, 3/n)."""
    rows = pd.read_csv(log, sep="\t")
    p_lower = ndtr(rows["radius"].clip(lower=0) / SIGMA)
    low, high = np.full(len(rows), N / 2), np.full(len(rows), float(N))
    for _ in range(40):
        middle = (low + high) / 2
        above = betaincinv(middle, N - middle + 1, ALPHA) < p_lower
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    p = np.where(rows["predict"] < 0, 0.5, high / N)
    return np.where(p > 1 - 1e-6, 1 - rng.uniform(0, 3 / N, len(p)), p), rows["correct"].to_numpy(bool)


def bound(k, n, alpha):
    return np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, alpha), 0.0)


def at_radius(p, correct, radius: float, rng) -> dict:
    """Mean samples of at-radius, and its certified accuracy at the radius beside the fixed test's."""
    threshold = ndtr(radius / SIGMA)
    k, before = np.zeros(len(p)), 0
    used, robust, open_ = np.full(len(p), N), np.zeros(len(p), bool), np.ones(len(p), bool)
    for n, alpha in looks("at-radius", N, ALPHA):
        k += rng.binomial(n - before, p)
        before = n
        yes, no = bound(k, n, alpha) >= threshold, 1 - bound(n - k, n, alpha) < threshold
        used[open_ & (yes | no)] = n
        robust |= open_ & yes
        open_ &= ~(yes | no)
    fixed = bound(rng.binomial(N, p).astype(float), N, ALPHA) >= threshold
    return {
        "fewer": N / used.mean(), "certified_accuracy": (robust & correct).mean(),
        "fixed": (fixed & correct).mean(), "undecided": open_.mean(),
    }  # fmt: skip


def mixture_bound(k: int, n: int, alpha: float) -> float:
    """The lower confidence sequence of a Beta(1/2, 1/2) mixture, restricted to (p, 1), valid at every n."""

    def log_martingale(p):
        posterior, prior = betainc(n - k + 0.5, k + 0.5, 1 - p), betainc(0.5, 0.5, 1 - p)
        if posterior <= 0:
            return -np.inf
        return (
            betaln(k + 0.5, n - k + 0.5)
            - betaln(0.5, 0.5)
            + np.log(posterior / prior)
            - k * np.log(p)
            - (n - k) * np.log1p(-p)
        )

    low, high = 0.5, min(k / n, 1 - 1e-12)
    if log_martingale(low) < -np.log(alpha):
        return low
    return (
        brentq(lambda p: log_martingale(p) + np.log(alpha), low, high)
        if log_martingale(high) < -np.log(alpha)
        else high
    )


def compare_sequences() -> dict:
    """The radius at several n as a share of the fixed one's: looks with alpha spent on them, and the mixture."""
    print("\nanytime: radius as a share of the fixed bound's at that n (expected counts)")
    result = {}
    for n in (1_000, 10_000, 100_000):
        spent, mixture = [], []
        for p in (0.6, 0.9, 0.99, 0.999, 0.9999):
            k = round(p * n)
            fixed = ndtri(betaincinv(k, n - k + 1, ALPHA))
            last, alpha = [pair for pair in looks("anytime", N, ALPHA) if pair[0] <= n][-1]
            kept = round(p * last)
            spent.append(ndtri(betaincinv(kept, last - kept + 1, alpha)) / fixed)
            mixture.append(ndtri(mixture_bound(k, n, ALPHA)) / fixed)
        print(f"  n = {n:>7,}: spent {np.mean(spent):.3f}, mixture {np.mean(mixture):.3f}  (p = 0.6 … 0.9999)")
        result |= {f"anytime_spent_{n}": np.mean(spent), f"anytime_mixture_{n}": np.mean(mixture)}
    return result


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("logs", type=Path, help="folder with released logs at sigma = 0.5 under mnist/ and cifar10/")
    folder = options.parse_args().logs
    rng, result = np.random.default_rng(0), {}
    for dataset in ("cifar10", "mnist"):
        logs = [f for f in sorted(folder.rglob("noise_0.5*")) if dataset in f.parts and not f.name.endswith("_acc")]
        logs = [log for log in logs if log.read_bytes().count(b"\n") > LEAST]  # one that is cut off has no distribution
        for radius in (0.5, 1.0):
            found = pd.DataFrame(at_radius(*shares(log, rng), radius, rng) for log in logs)
            difference = (found.certified_accuracy - found.fixed).abs().max()
            print(
                f"at-radius, {dataset}, sigma = {SIGMA}, r = {radius}: {len(logs)} logs, {found.fewer.min():.0f} to "
                f"{found.fewer.max():.0f} times fewer samples than {N:,} (median {found.fewer.median():.0f}), certified accuracy "
                f"off by at most {difference:.4f}, undecided {found.undecided.mean():.2%}"
            )
            result |= {f"{dataset}_{radius}_fewer_min": found.fewer.min(), f"{dataset}_{radius}_fewer_median": found.fewer.median(),
                       f"{dataset}_{radius}_difference": difference}  # fmt: skip
    result |= compare_sequences()
    print(json.dumps({k: round(float(v), 4) for k, v in result.items()}))


if __name__ == "__main__":
    main()
