"""The smoothed classifier g(x) = argmax_c P(f(x + δ) = c), δ ~ N(0, σ²I): Algorithm 1 of Cohen et al., ICML 2019.

    CERTIFY(f, σ, x, n0, n, α)                          PREDICT(f, σ, x, n, α)
      counts0 ← SampleUnderNoise(f, x, n0, σ)             counts ← SampleUnderNoise(f, x, n, σ)
      ĉ_A ← top index in counts0                          ĉ_A, ĉ_B ← top two indices in counts
      counts ← SampleUnderNoise(f, x, n, σ)               n_A, n_B ← counts[ĉ_A], counts[ĉ_B]
      p̲ ← LowerConfBound(counts[ĉ_A], n, 1 − α)           if BinomPValue(n_A, n_A + n_B, 0.5) ≤ α return ĉ_A
      if p̲ > 1/2 return ĉ_A and radius σ Φ⁻¹(p̲)           else return ABSTAIN
      else return ABSTAIN

A certificate holds with probability at least 1 − α over its noise. The n0 samples that choose ĉ_A are never
counted for the bound.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.certification.confidence import lower_bound, radius, top_two_differ
from backend.certification.sampler import Sampler
from backend.run import ABSTAIN
from backend.training.noise import stream_seed


@dataclass(frozen=True)
class Look:
    """What is known of one image after `done` of n samples for the bound.

    counts: votes (K,) so far. p_lower and radius are what Clopper–Pearson says of `done` samples at this look alone:
    a certificate when done == n, which was fixed beforehand, and provisional before that.
    """

    top: int  # ĉ_A, chosen on the n0 samples
    selection: tuple[int, ...]  # the n0 votes (K,)
    counts: tuple[int, ...]
    done: int
    n: int
    p_lower: float
    radius: float

    @property
    def predict(self) -> int:
        """ĉ_A, or ABSTAIN where p_lower does not exceed 1/2."""
        return self.top if self.p_lower > 0.5 else ABSTAIN


class SmoothedClassifier:
    """g for a base classifier: images (C, H, W) in [0, 1]; `seed` and an image's index name its noise."""

    def __init__(self, classifier: nn.Module, classes: int, sigma: float, device: torch.device, seed: int):
        self.sampler = Sampler(classifier, classes, sigma, device)
        self.sigma, self.seed = sigma, seed

    def certify(self, images: Tensor, indices: list[int], n0: int, n: int, alpha: float) -> list[Look]:
        """CERTIFY for each of images (I, C, H, W); `indices` (I) name their noise streams. One Look each, at n."""
        selection = self._all_votes(images, n0, "select", indices)
        counts = self._all_votes(images, n, "certify", indices)
        return [self._look(s, c, n, alpha) for s, c in zip(selection, counts, strict=True)]

    def watch(self, image: Tensor, n0: int, n: int, alpha: float) -> Iterator[Look]:
        """CERTIFY for one image (C, H, W), with a Look after each forward pass; the last one is the certificate."""
        (selection,) = self._all_votes(image[None], n0, "select", [0])
        for counts in self.sampler.votes(image[None], n, self._seeds("certify", [0])):
            yield self._look(selection, counts[0].tolist(), n, alpha)

    def predict(self, images: Tensor, indices: list[int], n: int, alpha: float) -> list[int]:
        """PREDICT for each of images (I, C, H, W): the class, wrong with probability at most alpha, or ABSTAIN."""
        answers = []
        for counts in self._all_votes(images, n, "predict", indices):
            best, second = sorted(range(len(counts)), key=lambda c: -counts[c])[:2]
            answers.append(best if top_two_differ(counts[best], counts[second], alpha) else ABSTAIN)
        return answers

    def _look(self, selection: list[int], counts: list[int], n: int, alpha: float) -> Look:
        top = max(range(len(selection)), key=selection.__getitem__)
        done = sum(counts)
        p_lower = lower_bound(counts[top], done, alpha)
        return Look(top, tuple(selection), tuple(counts), done, n, p_lower, radius(p_lower, self.sigma))

    def _all_votes(self, images: Tensor, n: int, purpose: str, indices: list[int]) -> list[list[int]]:
        (counts,) = deque(self.sampler.votes(images, n, self._seeds(purpose, indices)), maxlen=1)
        return counts.tolist()  # the one transfer

    def _seeds(self, purpose: str, indices: list[int]) -> list[int]:
        return [stream_seed(self.seed, purpose, index) for index in indices]
