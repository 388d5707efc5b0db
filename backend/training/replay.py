"""Steps of an epoch on a GPU: recorded once as a CUDA graph and replayed, one launch instead of a hundred.

In a small network the launches take longer than what they launch: the host is what a step waits for.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor

from backend.training.distributed import world

WARM_UP = (
    2  # steps of a size that run as they are: libraries are loaded, and momentum and tallies made, before recording
)

Step = Callable[[Tensor, Tensor, float | Tensor], None]  # images (B, C, H, W) in uint8, labels (B,), learning rate


@contextmanager
def replayed(step: Step, generator: Generator, resident: bool) -> Iterator[Step]:
    """The step to call in an epoch's loop: itself on a CPU, recorded on a GPU where nothing else calls CUDA meanwhile.

    resident: the images lie on the device, so that no thread copies any. The step must compute the same whatever the
    values are, wait for nothing, and write in place what outlives it; it draws from `generator` alone.
    """
    device = generator.device
    if device.type != "cuda":
        yield step
    elif resident and world() == 1:
        before, own = torch.cuda.current_stream(device), _stream(device)  # the default stream cannot be recorded
        own.wait_stream(before)
        try:
            with torch.cuda.stream(own):
                yield Replayed(step, generator)
        finally:
            before.wait_stream(own)
    else:
        yield lambda images, labels, rate: step(images, labels, torch.full((), rate, device=device))


class Replayed:
    """A step, recorded for the size of chunk that comes most; the first ones, and chunks of another size, run as they are."""

    def __init__(self, step: Step, generator: Generator):
        self.step, self.generator = step, generator
        self.seen: Counter[torch.Size] = Counter()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.rate = torch.zeros((), device=generator.device)

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> None:
        self.rate.fill_(rate)
        if self.graph is None and self.seen[images.shape] == WARM_UP:
            self._record(images, labels)
        if self.graph is None:
            self._warm_up(images, labels)
        elif images.shape != self.images.shape:
            self.step(images, labels, self.rate)
        else:
            self.images.copy_(images)
            self.labels.copy_(labels)
            self.graph.replay()

    def _warm_up(self, images: Tensor, labels: Tensor) -> None:
        self.seen[images.shape] += 1
        before = _drawn_on_the_host()
        self.step(images, labels, self.rate)
        if self.seen[images.shape] == WARM_UP and _drawn_on_the_host() != before:
            raise RuntimeError(
                "a training step drew random numbers on the host, which a recorded step would repeat for a whole epoch: "
                "draw them on the device, from the batch's generator"
            )

    def _record(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels, graph = images.clone(), labels.clone(), torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self.step(self.images, self.labels, self.rate)  # is written down, not done
        except RuntimeError as error:
            raise RuntimeError(
                "a training step could not be recorded for the GPU: its memory does not suffice, or what the step computes waits "
                f"for the device (.item(), an if on a tensor, a selection by a mask). {error.__context__ or error}"
            ) from error
        self.graph = graph


def _drawn_on_the_host() -> tuple:
    """Changes whenever one of the host's global generators is drawn from."""
    numpy = np.random.get_state()
    return bytes(torch.get_rng_state().numpy()), random.getstate(), bytes(numpy[1]), numpy[2:]


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # one for all epochs: memory is kept for each
