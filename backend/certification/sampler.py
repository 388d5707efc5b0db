"""Votes of a base classifier under Gaussian noise: the innermost loop of everything that is certified."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn

from backend.certification.grid_noise import GridNoise
from backend.classifier.weights import layout

BLOCKS = {"cpu": 256, "cuda": 4096}  # samples that one image draws at once; part of what a seed means on a device
DEEP = 8  # convolutions, above which a processor's cache wants smaller forward passes
SMALLEST = 16  # a forward pass that does not fit with so few samples never will
NO_ROOM = ("out of memory", "ALLOC_FAILED", "unable to find an engine")  # as torch, cuBLAS and cuDNN say it
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class SamplingError(RuntimeError):
    """Votes that cannot be counted; the message says why and what to do."""


class Sampler:
    """Counts votes on the device of the classifier, several images in a forward pass.

    Every image draws all its noise, in float32, from a generator of its own, in blocks of fixed size: its votes depend
    neither on which other images are counted beside it nor on how many (on a GPU: but for the last bits of the logits, as
    kernels are chosen by the size of a pass). In bfloat16 the noisy image is rounded last.
    """

    def __init__(
        self, classifier: nn.Module, classes: int, sigma: float, device: torch.device, precision: str = "float32",
        grid: int | None = None,
    ):  # fmt: skip
        """The classifier lies as `build` lays it for the device and float32. grid: the integer that stands for 1.0, for noise on that grid (`grid_noise`); else noise in floating point.

        Raises SamplingError for batch norm in training mode, by which a sample's vote depends on what is beside it.
        """
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training for layer in classifier.modules()):
            raise SamplingError("the network's batch norm is in training mode: call its eval() first")
        self.dtype = PRECISIONS[precision]
        self.layout = layout(device, precision)
        if precision != "float32":  # the caller's stays what it is
            classifier = deepcopy(classifier).to(dtype=self.dtype, memory_format=self.layout)
        self.classifier = classifier
        self.classes, self.sigma, self.device = classes, sigma, device
        self.block = self.batch = BLOCKS[device.type]
        if device.type == "cpu" and sum(isinstance(layer, nn.Conv2d) for layer in classifier.modules()) > DEEP:
            self.batch = 64  # measured: 1.4 times the rate of 256 for ResNet-20, 0.95 for LeNet; the votes are the same
        self.grid = GridNoise(sigma, grid, device) if grid else None
        self.grid_step = 1 / (grid * sigma) if grid else 0.0  # of the noise, in sd

    def count(self, images: Tensor, sizes: Sequence[int], streams: Sequence[torch.Generator]) -> list[list[int]]:
        """Draw sizes[i] samples for images[i] (I, C, H, W), in [0, 1], from streams[i]: I rows of K votes.

        The host waits for the device once, at the end. Raises SamplingError for images that are not in floating point, and for a
        network whose answers are not K a sample, or not finite.
        """
        if not images.is_floating_point():
            raise SamplingError(f"images must be in floating point, in [0, 1], not {images.dtype}")
        counts = torch.zeros(len(images) * self.classes, dtype=torch.int64, device=self.device)
        one = torch.ones((), dtype=torch.int64, device=self.device)
        sound = torch.ones((), dtype=torch.bool, device=self.device)
        shape = (self.block, *images.shape[1:])
        noisy = torch.empty(shape, device=self.device, memory_format=self.layout)
        with torch.inference_mode():
            for batch in self._batches(sizes):
                filled, owners = 0, []
                for image, size in batch:
                    part = noisy[filled : filled + size]
                    self.add_noise(part, images[image], streams[image])
                    owners.append(torch.full((size,), image * self.classes, device=self.device))
                    filled += size
                logits = self._logits(noisy[:filled])
                if logits.shape[1:] != (self.classes,):  # a surplus vote would be the next image's
                    raise SamplingError(
                        f"the network must give {self.classes} logits a sample, not {tuple(logits.shape[1:])}"
                    )
                sound &= logits.isfinite().all()
                votes = logits.argmax(1).add_(torch.cat(owners))
                counts.scatter_add_(0, votes, one.expand(filled))  # bincount waits for the device
        if not sound:
            raise SamplingError(
                "the network answers with values that are not finite: it votes for nothing; train it anew"
            )
        return counts.view(-1, self.classes).tolist()

    def add_noise(self, noisy: Tensor, image: Tensor, stream: torch.Generator) -> None:
        """Fill noisy (B, C, H, W) with copies of image (C, H, W) under noise from the stream."""
        if self.grid:
            self.grid.add(noisy, image, stream)
        elif noisy.device.type == "cpu" and not noisy.is_contiguous():
            # A processor fills another layout value by value, fifteen times as slowly, and not in the way that the self-test looks at.
            noisy.copy_(torch.empty(noisy.shape).normal_(generator=stream)).mul_(self.sigma).add_(image)
        else:
            noisy.normal_(generator=stream).mul_(self.sigma).add_(image)

    def copies(self, image: Tensor, number: int, stream: torch.Generator) -> tuple[Tensor, list[int]]:
        """Noisy copies (number, C, H, W) of image (C, H, W), not clipped, and what the classifier answers on each."""
        noisy = torch.empty((number, *image.shape), device=self.device, memory_format=self.layout)
        with torch.inference_mode():
            self.add_noise(noisy, image, stream)
            return noisy, self._logits(noisy).argmax(1).tolist()

    def _logits(self, noisy: Tensor) -> Tensor:
        """Logits (B, K) of noisy images (B, C, H, W), in as many forward passes as the memory asks for."""
        while True:
            try:
                return torch.cat([self._forward(part.to(self.dtype)) for part in noisy.split(self.batch)])
            except RuntimeError as error:
                if self.batch // 2 < SMALLEST or not any(words in str(error) for words in NO_ROOM):
                    raise
                self.batch //= 2

    def _forward(self, part: Tensor) -> Tensor:
        """One forward pass; a very small one may take another kernel, which rounds otherwise, and is filled up."""
        if len(part) >= SMALLEST:
            return self.classifier(part)
        filling = part.new_zeros((SMALLEST - len(part), *part.shape[1:]))
        return self.classifier(torch.cat([part, filling]))[: len(part)]

    def _batches(self, sizes: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        """Forward passes as lists of (image, samples): whole blocks alone, what is less packed together."""
        blocks = (
            (image, min(self.block, size - start))
            for image, size in enumerate(sizes)
            for start in range(0, size, self.block)
        )
        batch, filled = [], 0
        for image, size in chain(blocks, [(-1, self.block + 1)]):  # the last one only closes the batch before it
            if batch and filled + size > self.block:
                yield batch
                batch, filled = [], 0
            batch.append((image, size))
            filled += size
