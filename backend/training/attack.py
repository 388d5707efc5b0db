"""Attacks on the smoothed soft classifier F̂(x) = (1/m) Σ_i F(x+δ_i) of a base classifier, through fixed noise vectors.

Salman et al., NeurIPS 2019, section 2.2: ascend −log F̂(x')_y. The base classifier is in eval mode meanwhile, and its
weights take no gradients. All images (B, C, H, W) in [0, 1], noise (m, B, C, H, W), norms ℓ2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import cos, pi

import torch
from torch import Generator, Tensor, nn

from backend.training.noise import noisy_logits

GAMMA = 0.05  # DDN: by what part the norm changes in a step


def pgd(
    classifier: nn.Module, x: Tensor, y: Tensor, noise: Tensor, epsilon: float, steps: int, generator: Generator
) -> Tensor:
    """Projected gradient ascent: steps of 2ε/T along the normalised gradient, clamped to the box, projected to the ε-ball."""
    adversarial = x
    with frozen(classifier) as still:
        for _ in range(steps):
            gradient, _ = _gradient(still, adversarial, y, noise)
            stepped = (adversarial + 2 * epsilon / steps * _unit(gradient, generator)).clamp_(0, 1)
            adversarial = x + shortened(stepped - x, epsilon)
    return adversarial


def ddn(
    classifier: nn.Module, x: Tensor, y: Tensor, noise: Tensor, epsilon: float, steps: int, generator: Generator
) -> Tensor:
    """Decoupled direction and norm: Rony et al., CVPR 2019, with norms of at most ε.

    The norm shrinks by 5 % after a step that is misclassified and grows by as much after one that is not. Returns the
    misclassified iterate of least norm, the last iterate where there was none.
    """
    # The whole ε at first, as SmoothAdv's authors have it: from less, ten steps could grow it by 1.6 at most.
    norm = torch.full((len(x), 1, 1, 1), epsilon, device=x.device)
    least = torch.full_like(norm, torch.inf)
    adversarial = best = x
    with frozen(classifier) as still:
        for step in range(steps):
            gradient, logits = _gradient(still, adversarial, y, noise)
            fooled = (logits.softmax(-1).mean(0).argmax(-1) != y)[:, None, None, None]
            delta = adversarial - x
            length = _norm(delta)
            better = fooled & (length < least)
            best, least = torch.where(better, adversarial, best), torch.where(better, length, least)
            norm = (norm * torch.where(fooled, 1 - GAMMA, 1 + GAMMA)).clamp_(max=epsilon)
            size = 0.01 + 0.99 * 0.5 * (1 + cos(pi * step / steps))
            delta = delta + size * _unit(gradient, generator)
            delta = delta * (norm / _norm(delta).clamp_min(1e-12))
            adversarial = x + shortened((x + delta).clamp_(0, 1) - x, epsilon)
    return torch.where(least < torch.inf, best, adversarial)


def ascent(
    classifier: nn.Module, x: Tensor, y: Tensor, noise: Tensor, step: float, steps: int, generator: Generator
) -> list[Tensor]:
    """Steps along the normalised gradient, clamped to the box and not projected: all T iterates."""
    iterates = [x]
    with frozen(classifier) as still:
        for _ in range(steps):
            gradient, _ = _gradient(still, iterates[-1], y, noise)
            iterates.append((iterates[-1] + step * _unit(gradient, generator)).clamp_(0, 1))
    return iterates[1:]


def shortened(delta: Tensor, most: float) -> Tensor:
    """delta (B, C, H, W), scaled down to norm `most` where it is longer."""
    return delta * (most / _norm(delta).clamp_min(1e-12)).clamp_(max=1)


@contextmanager
def frozen(classifier: nn.Module) -> Iterator[nn.Module]:
    """In eval mode, with weights that take no gradients, and without what averages gradients of several processes.

    Afterwards it is as it was.
    """
    classifier = getattr(classifier, "module", classifier)
    training = classifier.training
    classifier.eval().requires_grad_(False)
    try:
        yield classifier
    finally:
        classifier.train(training).requires_grad_(True)


def _gradient(classifier: nn.Module, x: Tensor, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient (B, C, H, W) of −log F̂(x)_y, and the logits (m, B, K)."""
    x = x.detach().requires_grad_()
    logits = noisy_logits(classifier, x, noise)
    (gradient,) = torch.autograd.grad(logits, x, slope(logits.detach(), y))
    return gradient, logits.detach()


def slope(logits: Tensor, y: Tensor) -> Tensor:
    """The gradient (m, B, K) of −log F̂_y, labels y (B,), for the logits (m, B, K) F̂ is made of: w_i (F_i − e_y), where w_i = F_iy / Σ_j F_jy.

    By hand, since a GPU is busier starting the kernels of a loss so small, and of its gradient, than running them.
    """
    log = logits.log_softmax(-1)
    weights = log.gather(-1, y.expand(len(log), -1)[..., None]).softmax(0)  # (m, B, 1); where all F_iy underflow too
    is_y = y[:, None] == torch.arange(log.shape[-1], device=y.device)  # (B, K)
    return weights * (log.exp() - is_y.to(log.dtype))


def _unit(gradient: Tensor, generator: Generator) -> Tensor:
    """The gradient at norm 1; a random direction where it is zero."""
    random = torch.randn(gradient.shape, generator=generator, device=gradient.device)
    norm = _norm(gradient)
    return torch.where(norm > 0, gradient / norm, random / _norm(random))


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
