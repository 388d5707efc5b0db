"""Random streams, and Gaussian noise on images."""

import hashlib

import torch
from torch import Tensor, nn


def stream_seed(seed: int, purpose: str, index: int) -> int:
    """The generator seed of one stream of a run: equal arguments, equal stream.

    torch's CPU generator takes 32 of the 63 bits: two streams of one run coincide with probability 2⁻³² a pair.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def gaussian(m: int, x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """m noise vectors per image, N(0, σ²I): (m, B, C, H, W) for x (B, C, H, W)."""
    return torch.randn((m, *x.shape), generator=generator, device=x.device).mul_(sigma)


def noisy_logits(classifier: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """Logits of every image under every noise vector in one forward pass: (m, B, K) for noise (m, B, C, H, W)."""
    noisy = (x + noise).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return classifier(noisy).unflatten(0, noise.shape[:2])
