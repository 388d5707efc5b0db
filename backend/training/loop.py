"""The only training loop: SGD over a whole data set kept on the device, for every method."""

import json
import time
from collections.abc import Iterator
from math import cos, isfinite, pi

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from backend.classifier.weights import build, pack
from backend.datasets import Dataset, Split
from backend.run import Checkpoint, Epoch
from backend.spec import Recipe, RunSpec
from backend.training.methods import Batch, make
from backend.training.noise import gaussian, stream, stream_seed


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says at which epoch, why, and what to try."""


def train(
    spec: RunSpec, dataset: Dataset, device: torch.device, checkpoint: bytes | None = None
) -> Iterator[Epoch | Checkpoint]:
    """Train the base classifier of a spec, from a checkpoint's epoch if one is given.

    Yields an Epoch and then a Checkpoint per epoch, and last the final Checkpoint, whose weights are rounded to the
    spec's dtype. Every epoch draws from streams of its own, so a resumed run ends with the same weights as one that
    was never stopped (on the same device and number of threads). Raises TrainingError for a loss that is not finite.
    """
    torch.manual_seed(stream_seed(spec.seed, "init", 0))  # the layers' own initialisers draw from the global stream
    classifier = build(spec.architecture, dataset, device).train()
    if spec.recipe.init == "kaiming":
        classifier.apply(_kaiming)
    optimiser = torch.optim.SGD(
        classifier.parameters(), spec.recipe.lr, spec.recipe.momentum, weight_decay=spec.recipe.weight_decay, fused=True
    )
    first = restore(checkpoint, classifier, optimiser) if checkpoint else 0
    split = dataset.load(train=True)
    images, labels = on_device(split, device)
    for epoch in range(first, spec.recipe.epochs):
        yield _one_epoch(spec, epoch, classifier, optimiser, images, labels, dataset.scale)
        yield Checkpoint(epoch + 1, snapshot(epoch + 1, classifier, optimiser))
    yield Checkpoint(spec.recipe.epochs, pack(classifier, spec.weights_dtype), final=True)


def on_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """A split's uint8 images (N, C, H, W) and labels (N,) as tensors on the device."""
    return torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The rate at `progress` epochs (a fraction within an epoch counts for the cosine alone)."""
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** (int(progress) // recipe.drop_every)
    if progress < recipe.warmup:
        return recipe.lr * progress / recipe.warmup
    return recipe.lr * 0.5 * (1 + cos(pi * (progress - recipe.warmup) / (recipe.epochs - recipe.warmup)))


def _one_epoch(
    spec: RunSpec, epoch: int, classifier: nn.Module, optimiser, images: Tensor, labels: Tensor, scale: int
) -> Epoch:
    method = make(spec.method, dict(spec.hyper))
    generator = stream(spec.seed, "epoch", epoch, images.device)
    order = torch.randperm(len(images), generator=generator, device=images.device)
    sums: dict[str, Tensor] = {}  # totals stay on the device: the loop never waits for it
    correct = torch.zeros((), device=images.device)
    start, steps, rate = time.perf_counter(), 0, 0.0
    for batch_start in range(0, len(order), spec.recipe.batch):
        for chunk in order[batch_start : batch_start + spec.recipe.batch].chunk(method.chunks):
            rate = learning_rate(spec.recipe, epoch + (batch_start + 1) / len(order))
            for group in optimiser.param_groups:
                group["lr"] = rate
            x, y = images[chunk].float().div_(scale), labels[chunk]
            noise = gaussian(method.noises, x, spec.sigma, generator)
            logits, terms = method.loss_terms(classifier, Batch(x, y, noise, spec.sigma, epoch, generator))
            optimiser.zero_grad(set_to_none=True)
            sum(terms.values()).backward()
            optimiser.step()
            steps += 1
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach()
            correct += (logits.detach().argmax(-1) == y).float().mean(0).sum()
    means = {name: float(value) / steps for name, value in sums.items()}
    seconds = time.perf_counter() - start
    if not isfinite(sum(means.values())):
        raise TrainingError(
            f"the loss of epoch {epoch + 1} is not finite ({means}); lower the learning rate ({spec.recipe.lr:g}) or λ"
        )
    return Epoch(
        epoch + 1, seconds, len(order) / seconds, rate, sum(means.values()), float(correct) / len(order), means
    )


def _kaiming(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def snapshot(epoch: int, classifier: nn.Module, optimiser: torch.optim.Optimizer) -> bytes:
    """Weights, momentum and the number of finished epochs as safetensors bytes."""
    tensors = {f"weight/{name}": value for name, value in classifier.state_dict().items()}
    for name, parameter in classifier.named_parameters():
        tensors[f"momentum/{name}"] = optimiser.state[parameter]["momentum_buffer"]
    cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(cpu, metadata={"epoch": str(epoch)})


def checkpoint_epoch(checkpoint: bytes | None) -> int:
    """How many epochs a checkpoint has behind it; 0 without one."""
    if checkpoint is None:
        return 0
    size = int.from_bytes(checkpoint[:8], "little")  # safetensors: length of the JSON header, the header, the data
    return int(json.loads(checkpoint[8 : 8 + size])["__metadata__"]["epoch"])


def restore(checkpoint: bytes, classifier: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Put a `snapshot` back and return its number of finished epochs."""
    tensors = safetensors.torch.load(checkpoint)
    classifier.load_state_dict(
        {name.removeprefix("weight/"): value for name, value in tensors.items() if name.startswith("weight/")}
    )
    for name, parameter in classifier.named_parameters():
        buffer = torch.empty_like(parameter).copy_(tensors[f"momentum/{name}"])  # the parameter's memory format
        optimiser.state[parameter]["momentum_buffer"] = buffer
    return checkpoint_epoch(checkpoint)
