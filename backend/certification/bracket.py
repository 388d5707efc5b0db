"""The other end of the bracket: an image that the smoothed classifier answers otherwise, as near as an attack finds one.

A certified radius is a lower bound of the distance to the nearest image with another answer; every image with another
answer is an upper bound of it. The search is free to use any noise, any number of times: DDN on the soft smoothed
classifier (Salman et al., NeurIPS 2019; `training.attack`), then bisection between the image and what that found, by votes.
The claim rests on fresh votes alone, and on Clopper–Pearson.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from backend.certification.confidence import DECIMALS, lower_bound
from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.training.attack import ddn
from backend.training.noise import gaussian, stream

RESTARTS, M, STEPS = 3, 16, 40  # of DDN, each restart with M noise vectors of its own
SEARCHED, HALVINGS = 1_000, 9  # votes a step of the bisection, always under the same noise
CONFIRMED = 10_000  # fresh votes a test
BEYOND = (0.05, 0.1, 0.2, 0.4)  # sd of the noise beyond the bisected distance, where it is tested, until a test holds


@dataclass(frozen=True)
class Other:
    """An image on the grid of the data set's pixels that the smoothed classifier answers otherwise.

    `votes` of `answer`, the class there, against `against` of the class of the original, of `samples` fresh ones: with
    error probability at most alpha, over all tests that were made, `answer` is the likelier of the two.
    """

    pixels: Tensor  # uint8 (C, H, W)
    distance: float  # l2, pixels in [0, 1], rounded up
    answer: int
    votes: int
    against: int
    samples: int
    alpha: float
    tests: int  # that alpha was divided by


@dataclass(frozen=True)
class Progress:
    """part: done, from 0 to 1; distance: of the nearest image found so far, not yet tested; other: what is claimed."""

    part: float
    distance: float | None = None
    other: Other | None = None


def attack(
    smoothed: SmoothedClassifier, soft: nn.Module, pixels: Tensor, scale: int, answer: int, alpha: float
) -> Iterator[Progress]:
    """Look for an image near `pixels`, uint8 (C, H, W) to be divided by scale, whose answer is not `answer`.

    soft: the base classifier, its own copy, for gradients. The last Progress has part 1, and `other` unless nothing was
    found or no test held, which proves nothing. Noise is named by the seed of `smoothed`.
    """
    start = pixels.to(smoothed.device)
    nearest, ahead = None, RESTARTS + len(BEYOND)
    for restart in range(RESTARTS):
        line = _line(start, scale, _perturbation(smoothed, soft, start.float() / scale, answer, restart))
        t = _bisect(smoothed, line, scale, answer)
        if t is not None and (nearest is None or distance(line(t), start, scale) < nearest[0]):
            nearest = distance(line(t), start, scale), t, line
        yield Progress((restart + 1) / ahead, nearest and nearest[0])
    if nearest is None:
        yield Progress(1.0)
        return
    length, t, line = nearest
    for test, beyond in enumerate(BEYOND):
        there = line(t * (1 + beyond * smoothed.sigma / max(length, 1e-3)))
        other = _tested(smoothed, there, start, scale, answer, alpha, test)
        if other or test + 1 == len(BEYOND):
            yield Progress(1.0, length, other)
            return
        yield Progress((RESTARTS + test + 1) / ahead, length)


def distance(a: Tensor, b: Tensor, scale: int) -> float:
    """The l2 distance of two images of whole numbers from 0 to scale, which stand for 0 to 1, rounded up."""
    squares = int((a.long() - b.long()).square().sum())
    return ceil(squares**0.5 / scale * DECIMALS) / DECIMALS


def _perturbation(smoothed: SmoothedClassifier, soft: nn.Module, image: Tensor, answer: int, restart: int) -> Tensor:
    """What DDN adds to image (C, H, W) in [0, 1]; its norm is a first guess."""
    noises = stream(smoothed.seed, "attack", restart, smoothed.device)
    x, y = image[None], torch.tensor([answer], device=image.device)
    noise = gaussian(M, x, smoothed.sigma, noises)
    return ddn(soft, x, y, noise, image.numel() ** 0.5, STEPS, noises)[0] - image


def _line(start: Tensor, scale: int, delta: Tensor) -> Callable[[float], Tensor]:
    """t -> start + t·delta, clamped to the box and rounded to whole numbers: images that can be saved and brought again."""
    return lambda t: (start + t * scale * delta).round_().clamp_(0, scale).to(torch.uint8)


def _bisect(smoothed: SmoothedClassifier, line: Callable[[float], Tensor], scale: int, answer: int) -> float | None:
    """About the least t at which most votes are not for `answer`; None where there is none up to 1.5."""

    def flipped(t: float) -> bool:
        noise = stream(smoothed.seed, "search", 0, smoothed.device)
        (counts,) = smoothed.sampler.count(line(t)[None].float() / scale, [SEARCHED], [noise])
        return max(counts) > counts[answer]

    low, high = 0.0, 1.5
    if not flipped(high):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if flipped(middle) else (middle, high)
    return high


def _tested(
    smoothed: SmoothedClassifier, there: Tensor, start: Tensor, scale: int, answer: int, alpha: float, test: int
) -> Other | None:
    """Whether some class is likelier than `answer` at `there`, chosen on other votes than those that decide.

    Given the votes of both, those of one are binomial with p_c / (p_c + p_answer): a lower bound of that above 1/2
    means p_c > p_answer. The tests share alpha.
    """
    image = there[None].float() / scale
    names = (("choose", SEARCHED), ("confirm", CONFIRMED))
    chosen, counts = (
        smoothed.sampler.count(image, [n], [stream(smoothed.seed, purpose, test, smoothed.device)])[0]
        for purpose, n in names
    )
    other = max((c for c in range(len(chosen)) if c != answer), key=chosen.__getitem__)
    votes, against = counts[other], counts[answer]
    if not votes + against or lower_bound(votes, votes + against, alpha / len(BEYOND)) <= 0.5:
        return None
    return Other(
        there.cpu(), distance(there, start, scale), other, votes, against, CONFIRMED, alpha, len(BEYOND)
    )  # fmt: skip
