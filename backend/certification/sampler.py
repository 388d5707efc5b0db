"""Votes of a base classifier under Gaussian noise: the innermost loop of everything that is certified."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

BLOCKS = {"cpu": 256, "cuda": 4096}  # samples that one image draws at once; part of what a seed means on a device


class Sampler:
    """Counts votes on the device of the classifier, several images in a forward pass.

    Image i draws all its noise from a generator of its own, in blocks of fixed size: its votes depend neither on
    which other images are counted beside it nor on how many.
    """

    def __init__(self, classifier: nn.Module, classes: int, sigma: float, device: torch.device):
        self.classifier, self.classes, self.sigma, self.device = classifier, classes, sigma, device
        self.block = BLOCKS[device.type]

    def votes(self, images: Tensor, n: int, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Count n votes for each of `images` (I, C, H, W) in [0, 1], with a seed per image.

        Yields the counts (I, K) int64, on the device and updated in place, after each forward pass; after the last
        one every row sums to n. Reading them makes the host wait for the device.
        """
        images = images.to(self.device)
        counts = torch.zeros(len(images) * self.classes, dtype=torch.int64, device=self.device)
        noisy = torch.empty((self.block, *images.shape[1:]), device=self.device)
        noisy = noisy.to(memory_format=torch.channels_last)
        pending = self._pieces(len(images), n)
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        with torch.inference_mode():
            for batch in pending:
                filled, owners = 0, []
                for image, size in batch:
                    part = noisy[filled : filled + size]
                    part.normal_(generator=generators[image]).mul_(self.sigma).add_(images[image])
                    owners.append((image, size))
                    filled += size
                predicted = self.classifier(noisy[:filled]).argmax(1)
                offset = 0
                for image, size in owners:
                    row = counts[image * self.classes : (image + 1) * self.classes]
                    row += torch.bincount(predicted[offset : offset + size], minlength=self.classes)
                    offset += size
                yield counts.view(len(images), self.classes)

    def _pieces(self, images: int, n: int) -> Iterator[list[tuple[int, int]]]:
        """Forward passes as lists of (image, samples): whole blocks alone, smaller remainders packed together."""
        batch: list[tuple[int, int]] = []
        for image in range(images):
            for start in range(0, n, self.block):
                size = min(self.block, n - start)
                if sum(s for _, s in batch) + size > self.block:
                    yield batch
                    batch = []
                batch.append((image, size))
        if batch:
            yield batch
