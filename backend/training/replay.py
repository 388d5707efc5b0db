"""Steps of an epoch on a GPU: recorded once as a CUDA graph and replayed, one launch instead of a hundred.

In a small network the launches take longer than what they launch: the host is what a step waits for.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

import torch
from torch import Generator, Tensor

from backend.training.distributed import world

WARM_UP = (
    2  # steps of an epoch that run as they are: libraries are loaded, and momentum and tallies made, before recording
)

Step = Callable[[Tensor, Tensor, float | Tensor], None]  # images (B, C, H, W) in uint8, labels (B,), learning rate


def stepper(step: Step, generator: Generator, device: torch.device, resident: bool) -> Step:
    """The step to call in an epoch's loop: itself on a CPU, recorded on a GPU where nothing else calls CUDA meanwhile.

    resident: the images lie on the device, so that no thread copies any. The step must compute the same whatever the
    values are, wait for nothing, and write in place what outlives it; it draws from `generator` alone.
    """
    if device.type != "cuda":
        return step
    if resident and world() == 1:
        return Replayed(step, generator)
    return lambda images, labels, rate: step(images, labels, torch.full((), rate, device=device))


class Replayed:
    """A step, recorded at the chunk after the first ones; chunks of another size run as they are."""

    def __init__(self, step: Step, generator: Generator):
        self.step, self.generator, self.calls = step, generator, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.rate = torch.zeros((), device=generator.device)

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> None:
        self.rate.fill_(rate)
        self.calls += 1
        if self.graph is None and self.calls > WARM_UP:
            self._record(images, labels)
        if self.graph is None or images.shape != self.images.shape:
            self.step(images, labels, self.rate)
            return
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()

    def _record(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.clone(), labels.clone()
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.generator)
        try:
            with torch.cuda.graph(self.graph, stream=torch.cuda.current_stream()):
                self.step(self.images, self.labels, self.rate)  # is written down, not done
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RuntimeError(
                "a training step could not be recorded for the GPU: a method must not wait for the device "
                f"(no .item(), no if on a tensor, no selection by a mask). {error}"
            ) from error


def own_stream(device: torch.device) -> AbstractContextManager[None]:
    """Work on a stream that may be recorded, which the default one may not; nothing on a CPU."""
    return _aside(_stream(device)) if device.type == "cuda" else nullcontext()


@contextmanager
def _aside(stream: torch.cuda.Stream) -> Iterator[None]:
    before = torch.cuda.current_stream(stream.device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # one for all epochs: memory is kept for each
