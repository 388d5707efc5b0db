"""The smoothed classifier g(x) = argmax_c P(f(x + δ) = c), δ ~ N(0, σ²I): Algorithm 1 of Cohen et al., ICML 2019.

    CERTIFY(f, σ, x, n0, n, α)                          PREDICT(f, σ, x, n, α)
      counts0 ← SampleUnderNoise(f, x, n0, σ)             counts ← SampleUnderNoise(f, x, n, σ)
      ĉ_A ← top index in counts0                          ĉ_A, ĉ_B ← top two indices in counts
      counts ← SampleUnderNoise(f, x, n, σ)               n_A, n_B ← counts[ĉ_A], counts[ĉ_B]
      p̲ ← LowerConfBound(counts[ĉ_A], n, 1 − α)           if BinomPValue(n_A, n_A + n_B, 0.5) ≤ α return ĉ_A
      if p̲ > 1/2 return ĉ_A and radius σ Φ⁻¹(p̲)           else return ABSTAIN
      else return ABSTAIN

A certificate holds with probability at least 1 − α over its noise. The n0 samples that choose ĉ_A are never
counted for the bound. Two more modes take the same counts and look at them more than once: `confidence.looks`.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.certification.confidence import lower_bound, radius, radius_upper, top_two_differ, upper_bound
from backend.certification.grid_noise import spending
from backend.certification.sampler import Sampler
from backend.rows import ABSTAIN
from backend.spec import Certification
from backend.training.noise import stream

TOGETHER = {"cpu": 4, "cuda": 32}  # images that are sampled at once, at most; a finished one is replaced at once
PIXELS = 2**30  # noisy ones that are drawn before rows are seen: fewer images at once where they are large or n is


@dataclass(frozen=True)
class Look:
    """What is known of one image after `done` samples for the bound.

    counts: votes (K,) so far. p_lower and radius are a certificate if `certified`: from the last look of mode `fixed`,
    from the first of the other two. Otherwise they are what Clopper–Pearson says of `done` samples, and provisional.
    Between two looks they are those of the one before; `at_look` says that they follow from just these counts.
    """

    top: int  # ĉ_A, chosen on the n0 samples
    selection: tuple[int, ...]  # the n0 votes (K,)
    counts: tuple[int, ...]
    done: int
    p_lower: float
    radius: float
    radius_upper: float  # an upper bound of the exact radius, infinite where nothing was counted against it
    certified: bool
    at_look: bool
    stop: str | None = None  # why sampling ended: "n", "radius", "width", "robust", "not robust", "undecided"

    @property
    def predict(self) -> int:
        """ĉ_A, or ABSTAIN where p_lower does not exceed 1/2."""
        return self.top if self.p_lower > 0.5 else ABSTAIN


class SmoothedClassifier:
    """g for a base classifier: images (C, H, W) in [0, 1]; `seed` and an image's index name its noise."""

    def __init__(
        self, classifier: nn.Module, classes: int, sigma: float, device: torch.device, seed: int,
        precision: str = "float32", grid: int | None = None,
    ):  # fmt: skip
        self.sampler = Sampler(classifier, classes, sigma, device, precision, grid)
        self.sigma, self.seed, self.device, self.grid = sigma, seed, device, grid

    def certify(self, images: Tensor, indices: list[int], settings: Certification) -> Iterator[dict[int, Look]]:
        """CERTIFY each of images (I, C, H, W), whose noise `indices` (I) name.

        Yields those that finish together, {position in images: last Look}, until none is left.
        """
        images = images.to(self.device)
        (first, _), *_ = self._spending(images, settings)
        together = max(1, min(TOGETHER[self.device.type], PIXELS // (first * images.shape[1:].numel())))
        waiting, active = deque(range(len(images))), {}
        while waiting or active:
            fresh = [waiting.popleft() for _ in range(min(len(waiting), together - len(active)))]
            active |= zip(fresh, self._select(images[fresh], [indices[i] for i in fresh], settings), strict=True)
            turn = list(active)
            sizes, streams = [active[i].wanted for i in turn], [active[i].stream for i in turn]
            votes = self.sampler.count(images[turn], sizes, streams)
            seen = {i: active[i].add(counts) for i, counts in zip(turn, votes, strict=True)}
            if finished := {i: look for i, look in seen.items() if look.stop}:
                active = {i: bound for i, bound in active.items() if i not in finished}
                yield finished

    def watch(self, image: Tensor, settings: Certification) -> Iterator[Look]:
        """CERTIFY for one image (C, H, W), with a Look after each forward pass."""
        images = image[None].to(self.device)
        (bound,) = self._select(images, [0], settings)
        look = None
        while look is None or not look.stop:
            size = min(bound.wanted, self.sampler.block)
            look = bound.add(*self.sampler.count(images, [size], [bound.stream]))
            yield look

    def predict(self, images: Tensor, indices: list[int], n: int, alpha: float) -> list[int]:
        """PREDICT for each of images (I, C, H, W): the class, wrong with probability at most alpha, or ABSTAIN."""
        answers = []
        for counts in self.sampler.count(images.to(self.device), [n] * len(images), self._streams("predict", indices)):
            best, second = sorted(range(len(counts)), key=lambda c: -counts[c])[:2]
            answers.append(best if top_two_differ(counts[best], counts[second], alpha) else ABSTAIN)
        return answers

    def _select(self, images: Tensor, indices: list[int], settings: Certification) -> list["_Bound"]:
        """Choose ĉ_A for each image, on n0 samples of a stream that the bound never draws from."""
        sizes = [settings.n0] * len(images)
        selections = self.sampler.count(images, sizes, self._streams("select", indices))
        streams = self._streams("certify", indices)
        ahead = self._spending(images, settings)
        return [_Bound(s, settings, ahead, self.sigma, stream) for s, stream in zip(selections, streams, strict=True)]

    def _spending(self, images: Tensor, settings: Certification) -> list[tuple[int, float]]:
        return spending(settings, self.sigma, self.grid or 1, images.shape[1:].numel())

    def _streams(self, purpose: str, indices: list[int]) -> list[torch.Generator]:
        return [stream(self.seed, purpose, index, self.device) for index in indices]


class _Bound:
    """The votes of one image and what they prove so far."""

    def __init__(
        self, selection: list[int], settings: Certification, ahead: list[tuple[int, float]], sigma: float,
        stream: torch.Generator,
    ):  # fmt: skip
        self.selection, self.settings, self.sigma, self.stream = selection, settings, sigma, stream
        self.top = max(range(len(selection)), key=selection.__getitem__)
        self.counts = [0] * len(selection)
        self.ahead = deque(ahead)  # looks, and what each spends
        self.p_lower, self.p_upper, self.certified = 0.0, 1.0, False

    @property
    def wanted(self) -> int:
        """Samples up to the next look."""
        return self.ahead[0][0] - sum(self.counts)

    def add(self, counts: list[int]) -> Look:
        """Take in more votes (K,); at the samples of a look, which were fixed beforehand, tighten the bounds."""
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        k, done = self.counts[self.top], sum(self.counts)
        if at_look := done == self.ahead[0][0]:
            _, alpha = self.ahead.popleft()
            self.p_lower, self.certified = lower_bound(k, done, alpha), True
            self.p_upper = upper_bound(max(self.counts), done, alpha)  # of g's class, also where n0 chose another one
        provisional = self.settings.mode == "fixed" and not self.certified
        shown = lower_bound(k, done, self.settings.alpha) if provisional else self.p_lower
        lower, upper = radius(shown, self.sigma), radius_upper(self.p_upper, self.sigma)
        return Look(
            self.top, tuple(self.selection), tuple(self.counts), done, shown, lower, upper, self.certified,
            at_look, why_stop(self.settings, lower, upper, not self.ahead) if at_look else None,
        )  # fmt: skip


def why_stop(settings: Certification, lower: float, upper: float, over: bool) -> str | None:
    """Why a look with these bounds of the radius ends the sampling, in the words of `Look.stop`; None where it goes on."""
    if settings.mode == "at-radius":
        if lower >= settings.radius:
            return "robust"
        return "not robust" if upper < settings.radius else "undecided" if over else None
    if settings.radius is not None and lower >= settings.radius:
        return "radius"
    if settings.width is not None and upper - lower <= settings.width:
        return "width"
    return "n" if over else None
