"""A base classifier from and to safetensors bytes; never a pickle."""

import threading

import safetensors
import safetensors.torch
import torch
from torch import nn

from backend.classifier.architectures import Normalize, network
from backend.datasets import Dataset
from backend.spec import SpecError

# Held while weights are initialised, from the one global stream of the process: whoever seeds that holds it before.
FRESH = threading.RLock()
TYPES = {"float32": torch.float32, "float16": torch.float16}


class WeightsError(ValueError):
    """Weights that do not fit the network they are meant for."""


def layout(device: torch.device, precision: str) -> torch.memory_format:
    """The order of a network's tensors in memory: channels last, but on a GPU in float32, where cuDNN's kernels want them first.

    Measured on H200s, first against last: sampling about 1.2 times (LeNet, ResNets), training LeNet 1.08 to 1.15.
    """
    first = device.type == "cuda" and precision == "float32"
    return torch.contiguous_format if first else torch.channels_last


def build(architecture: str, dataset: Dataset, device: torch.device, precision: str = "float32") -> nn.Module:
    """A freshly initialised network on the device, in the layout for what it will compute in (its weights are float32).

    Raises SpecError for an unknown architecture.
    """
    try:
        with FRESH:
            built = network(architecture, dataset.shape, len(dataset.classes))
        with torch.inference_mode():
            logits = built.eval()(torch.zeros(1, *dataset.shape))  # many of torchvision's want 224×224
        if logits.shape != (1, len(dataset.classes)):
            raise ValueError(
                f"it answers with {tuple(logits.shape)} for one image, and {len(dataset.classes)} classes are there"
            )
        built.train()
    except (ValueError, RuntimeError, AssertionError) as error:
        raise SpecError(f"no network {architecture} for {dataset.name}: {error}") from error
    if dataset.mean:
        built = nn.Sequential(Normalize(dataset.mean, dataset.sd), built)
    return built.to(device, memory_format=layout(device, precision))


def pack(classifier: nn.Module, dtype: str) -> bytes:
    """The weights, rounded to dtype, as safetensors bytes. Whoever certifies does so with these, read back."""
    state = {
        name: (value.to(TYPES[dtype]) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in classifier.state_dict().items()
    }
    return safetensors.torch.save(state)


def from_elsewhere(weights: bytes, architecture: str, dataset: Dataset) -> bytes:
    """The weights of a network that was trained elsewhere, as `pack` writes them: with the data set's normalisation before it where they have none.

    Raises WeightsError where they do not fit, SpecError for an unknown architecture.
    """
    cpu = torch.device("cpu")
    wanted = build(architecture, dataset, cpu).state_dict()
    try:
        given = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"this is no safetensors file: {error}") from error
    before = {name: wanted[name] for name in ("0.mean", "0.sd") if dataset.mean}
    forms = (given, before | given, before | {f"1.{name}": value for name, value in given.items()})
    fits = next((form for form in forms if form.keys() == wanted.keys()), None)
    if fits is None:
        lacking, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        raise WeightsError(
            f"these weights are not those of {architecture} for {dataset.name}: that has {len(wanted)} tensors, {', '.join(lacking[:3]) or 'all of them there'}, …; "
            f"they have {len(given)}, {', '.join(foreign[:3])}, …"
        )
    return pack(unpack(safetensors.torch.save(fits), architecture, dataset, cpu), "float32")


def unpack(weights: bytes, architecture: str, dataset: Dataset, device: torch.device) -> nn.Module:
    """The network with these weights, computing in float32, in eval mode. Raises WeightsError where they do not fit."""
    classifier = build(architecture, dataset, device)
    try:
        state = safetensors.torch.load(weights)
        classifier.load_state_dict(state)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"these weights are not those of {architecture} for {dataset.name}: {error}") from error
    for name, value in state.items():
        if not value.isfinite().all():
            raise WeightsError(f"{name} holds values that are not finite: a network of NaN votes for nothing")
    return classifier.eval().requires_grad_(False)
