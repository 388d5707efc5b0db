"""Random streams, and Gaussian noise on images."""

import hashlib
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

GENERATOR = {
    "cpu": "mt19937, all 624 words from SHAKE-256 of seed/purpose/index",
    "cuda": "philox4x32-10, 64-bit key from SHA-256 of seed/purpose/index",
}
IN_CACHE = 256  # images; MACER (LeNet, m = 16) trains 1.2 times as fast as in one pass, on one core
MT_WORDS, MT_FIRST = 624, 3  # in torch's state of a CPU generator: 64-bit words, after seed, counters and position


def stream_seed(seed: int, purpose: str, index: int) -> int:
    """63 bits that name one stream of a run: equal arguments, equal seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, purpose: str, index: int, device: torch.device) -> torch.Generator:
    """A generator of its own for one stream of a run: equal arguments, equal numbers on equal devices.

    On CUDA the seed is the key of a counter-based generator. torch's CPU generator would take only 32 bits of a seed, and
    two of 20 000 streams would coincide in one run of twenty: here every word of its state is set instead.
    """
    generator = torch.Generator(device)
    if generator.device.type != "cpu":
        return generator.manual_seed(stream_seed(seed, purpose, index))
    words = hashlib.shake_256(f"{seed}/{purpose}/{index}".encode()).digest(4 * MT_WORDS)
    state = generator.manual_seed(0).get_state()
    state.view(torch.int64)[MT_FIRST : MT_FIRST + MT_WORDS] = torch.from_numpy(np.frombuffer(words, "<u4").astype("i8"))
    return generator.set_state(state)


def gaussian(m: int, x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """m noise vectors per image, N(0, σ²I): (m, B, C, H, W) for x (B, C, H, W)."""
    return torch.randn((m, *x.shape), generator=generator, device=x.device).mul_(sigma)


def noisy_logits(classifier: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """Logits of every image under every noise vector: (m, B, K) for noise (m, B, C, H, W).

    One forward pass on a GPU. On a processor in parts of up to `IN_CACHE` images, so that one layer's output is still in its cache
    when the next layer reads it, except where a batch norm takes its statistics from the whole batch.
    """
    images = (x + noise).flatten(0, 1)  # (mB, C, H, W); the layout is that of the weights
    whole = images.device.type != "cpu" or any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training for layer in classifier.modules()
    )
    if whole:
        logits = classifier(images)
    else:
        logits = torch.cat([classifier(part) for part in images.chunk(ceil(len(images) / IN_CACHE))])
    return logits.float().unflatten(0, noise.shape[:2])  # losses are in float32, also under autocast


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """(1/m) Σ_i CE(F_i, y), averaged over the batch, of logits (m, B, K) and labels (B,): a scalar."""
    return cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)))
