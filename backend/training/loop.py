"""The only training loop: SGD over a data set that lies on the device or, as files, is streamed to it; for every method."""

import json
import time
from collections.abc import Iterator
from math import cos, pi

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from backend.classifier.weights import FRESH, build, pack
from backend.datasets import Dataset
from backend.image_files import ImageFiles
from backend.rows import EPOCH_COLUMNS, Checkpoint, Epoch
from backend.spec import WORD, Recipe, RunSpec
from backend.training.batches import InMemory, Streamed
from backend.training.distributed import add_up, rank, same_buffers, together, world
from backend.training.methods import Batch, make
from backend.training.noise import gaussian, stream, stream_seed
from backend.training.replay import replayed
from backend.training.sgd import SGD

CHECK_EVERY = 200  # steps between two looks at whether the loss is finite: each waits for the device


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
    with FRESH:
        torch.manual_seed(stream_seed(spec.seed, "init", 0))  # the layers' own initialisers draw from the global stream
        classifier = build(spec.architecture, dataset, device, spec.recipe.precision).train()
        if spec.recipe.init == "kaiming":
            classifier.apply(_kaiming)
    optimiser = SGD(classifier, spec.recipe)
    first = restore(checkpoint, classifier, optimiser) if checkpoint else 0
    images = training_images(dataset, device)
    if len(images.labels) < 2 * world():
        raise TrainingError(f"{dataset.name} has {len(images.labels)} training images: too few for {world()} processes")
    called = together(classifier, optimiser, device)
    for epoch in range(first, spec.recipe.epochs):
        same_buffers(classifier)
        yield _one_epoch(spec, epoch, called, optimiser, images, dataset)
        yield Checkpoint(epoch + 1, snapshot(epoch + 1, classifier, optimiser))
    yield Checkpoint(spec.recipe.epochs, pack(classifier, spec.weights_dtype), final=True)


def training_images(dataset: Dataset, device: torch.device) -> InMemory | Streamed:
    """The training split, on the device where it is an array, from its files else."""
    split = dataset.load(train=True)
    if isinstance(split.images, ImageFiles):
        return Streamed(split.images, split.labels, device)
    return InMemory(dataset, split.images, split.labels, device)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The rate at `progress` epochs (a fraction within an epoch counts for the cosine alone)."""
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** (int(progress) // recipe.drop_every)
    if progress < recipe.warmup:
        return recipe.lr * progress / recipe.warmup
    return recipe.lr * 0.5 * (1 + cos(pi * (progress - recipe.warmup) / (recipe.epochs - recipe.warmup)))


def _one_epoch(
    spec: RunSpec, epoch: int, classifier: nn.Module, optimiser: SGD, images: InMemory | Streamed, dataset: Dataset
) -> Epoch:
    method, device, start = make(spec.method, dict(spec.hyper)), images.labels.device, time.perf_counter()
    generator = stream(spec.seed, "epoch", epoch, device)
    total = len(images.labels)
    order = torch.randperm(total, generator=generator, device=device)
    # Dropout and the like draw from the global stream.
    torch.manual_seed(stream_seed(spec.seed, f"layers/{rank()}", epoch))
    if rank():
        generator = stream(spec.seed, f"epoch/{rank()}", epoch, device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=spec.recipe.precision == "bfloat16")
    tally = Tally(len(dataset.classes), device)

    def step(part: Tensor, y: Tensor, rate: float | Tensor) -> None:
        x = part.float().div_(dataset.scale)
        noise = gaussian(method.noises, x, spec.sigma, generator)
        with autocast:
            logits, terms = method.loss_terms(classifier, Batch(x, y, noise, spec.sigma, epoch, generator))
        check_terms(spec.method, logits, terms, (len(y), len(dataset.classes)))
        loss = sum(terms.values())
        optimiser.step(loss, rate)
        tally.add(logits.detach(), y, loss.detach(), terms)

    seen, steps, rate = 0, 0, 0.0
    with replayed(step, generator, resident=isinstance(images, InMemory)) as do:
        for loaded, wanted in images.epoch(order, spec.recipe.batch, method.chunks, spec.seed, epoch, generator):
            rate = learning_rate(spec.recipe, epoch + min(seen + 1, total - 0.5) / total)
            for part, y in zip(loaded.chunk(method.chunks), wanted.chunk(method.chunks), strict=True):
                do(part, y, rate)
                steps += 1
                if steps % CHECK_EVERY == 0:
                    tally.check(epoch, method.chunks, spec)
            seen += len(wanted) * world()
    tally.check(epoch, method.chunks, spec)
    add_up(tally.correct, tally.predicted, *tally.sums.values())
    means = {name: float(value) / steps / world() for name, value in tally.sums.items()}
    seconds = time.perf_counter() - start
    return Epoch(
        epoch + 1, seconds, seen / seconds, rate, sum(means.values()), float(tally.correct) / seen,
        means,
        tally.missing_classes(images.labels),
    )  # fmt: skip


def check_terms(method: str, logits: Tensor, terms: dict[str, Tensor], each: tuple[int, int]) -> None:
    """Raise TrainingError unless a method's `loss_terms` gave logits (m, B, K), each = (B, K), and scalars under names that a row can have."""
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if len(shape) != 3 or shape[1:] != each:
        raise TrainingError(f"loss_terms of {method} must return logits (m, {each[0]}, {each[1]}) first, not {shape}")
    if not (isinstance(terms, dict) and terms and all(isinstance(t, Tensor) and t.ndim == 0 for t in terms.values())):
        raise TrainingError(f"loss_terms of {method} must return named scalar tensors as terms, not {terms!r}")
    if wrong := [name for name in terms if not WORD.fullmatch(name) or name in EPOCH_COLUMNS]:
        raise TrainingError(
            f"a term of {method} must be a word other than {', '.join(EPOCH_COLUMNS)}, not {wrong[0]!r}"
        )


class Tally:
    """What an epoch is reported by. Everything stays on the device, in place: the loop never waits for it but in `check`."""

    def __init__(self, classes: int, device: torch.device):
        self.sums: dict[str, Tensor] = {}
        self.correct = torch.zeros((), device=device)
        self.predicted = torch.zeros(classes, dtype=torch.int64, device=device)
        self.sound_steps = torch.zeros((), dtype=torch.int64, device=device)  # before the first loss that is not finite
        self.classes = torch.arange(classes, device=device)
        self.sound = torch.ones((), dtype=torch.bool, device=device)

    def add(self, logits: Tensor, y: Tensor, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """One step: logits (m, B, K) under noise, labels (B,)."""
        for name, value in terms.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(value)
            self.sums[name] += value.detach()
        answers = logits.argmax(-1)  # (m, B)
        self.correct += (answers == y).float().mean(0).sum()
        self.predicted += (answers.flatten()[:, None] == self.classes).sum(0)  # bincount waits for the device
        self.sound &= loss.isfinite()
        self.sound_steps += self.sound

    def check(self, epoch: int, chunks: int, spec: RunSpec) -> None:
        """Raise TrainingError where a loss was not finite. (Of several processes each looks at its own.)"""
        if not self.sound:
            batch = int(self.sound_steps) // chunks + 1
            raise TrainingError(
                f"the loss of batch {batch} of epoch {epoch + 1} is not finite; lower the learning rate ({spec.recipe.lr:g}), "
                f"λ or another weight of the loss ({', '.join(f'{k} = {v}' for k, v in spec.hyper.items()) or 'none here'})"
            )

    def missing_classes(self, labels: Tensor) -> int:
        """How many classes were answered less than a tenth as often as they occur: above 0, training collapses."""
        there = torch.bincount(labels, minlength=len(self.predicted)) / len(labels)
        return int((self.predicted / self.predicted.sum() < there / 10).sum())


def _kaiming(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def snapshot(epoch: int, classifier: nn.Module, optimiser: SGD) -> bytes:
    """Weights, momentum and the number of finished epochs as safetensors bytes."""
    tensors = {f"weight/{name}": value for name, value in classifier.state_dict().items()}
    tensors |= {f"momentum/{name}": value for name, value in optimiser.velocity.items() if value is not None}
    cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(cpu, metadata={"epoch": str(epoch)})


def checkpoint_epoch(checkpoint: bytes | None) -> int:
    """How many epochs a checkpoint has behind it; 0 without one. Raises ValueError for one that is not whole."""
    if checkpoint is None:
        return 0
    try:
        safetensors.deserialize(checkpoint)
        size = int.from_bytes(checkpoint[:8], "little")  # safetensors: length of the JSON header, the header, the data
        return int(json.loads(checkpoint[8 : 8 + size])["__metadata__"]["epoch"])
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"it is no checkpoint: {error}") from error


def restore(checkpoint: bytes, classifier: nn.Module, optimiser: SGD) -> int:
    """Put a `snapshot` back and return its number of finished epochs."""
    tensors = safetensors.torch.load(checkpoint)
    classifier.load_state_dict(
        {name.removeprefix("weight/"): value for name, value in tensors.items() if name.startswith("weight/")}
    )
    for name, parameter in optimiser.parameters.items():
        if (value := tensors.get(f"momentum/{name}")) is not None:
            optimiser.velocity[name] = torch.empty_like(parameter.data).copy_(value)  # the parameter's memory format
    return checkpoint_epoch(checkpoint)
