"""A base classifier from and to safetensors bytes; never a pickle."""

import threading
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from backend.classifier.architectures import Normalize, network
from backend.datasets import Dataset
from backend.spec import SpecError

# Held while weights are initialised, from the one global stream of the process: whoever seeds that holds it before.
FRESH = threading.RLock()
NORMALISATION = ("0.mean", "0.sd")  # of `Normalize`, the first layer
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


def from_elsewhere(file: Path, architecture: str, dataset: Dataset) -> bytes:
    """The weights of a network that was trained elsewhere, as `pack` writes them: with the data set's normalisation before it where they have none.

    Raises WeightsError where they do not fit, SpecError for an unknown architecture, OSError for a file that cannot be read.
    """
    cpu = torch.device("cpu")
    wanted = build(architecture, dataset, cpu).state_dict()
    if file.stat().st_size > 2**20 + 8 * sum(value.numel() for value in wanted.values()):  # 8: bytes of a float64
        raise WeightsError(f"{file} is larger than weights of {architecture} for {dataset.name} can be")
    try:
        given = safetensors.torch.load(file.read_bytes())
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: of types that torch has not
        raise WeightsError(f"{file} is no safetensors file that torch reads: {error}") from error
    before = {name: wanted[name] for name in NORMALISATION if dataset.mean}
    forms = [given, {f"1.{name}": value for name, value in given.items()}]
    forms = [form if form.keys() & before.keys() else before | form for form in forms]
    fits = max(forms, key=lambda form: len(form.keys() & wanted.keys()))
    lacking, foreign = sorted(wanted.keys() - fits.keys()), sorted(fits.keys() - wanted.keys())
    lacking += [name for name in fits.keys() & wanted.keys() if _kind(fits[name]) != _kind(wanted[name])]
    if lacking or foreign:
        said = [
            f"{words} {', '.join(names[:3])}"
            for words, names in (("they lack", lacking), ("they have", foreign))
            if names
        ]
        raise WeightsError(f"these weights are not those of {architecture} for {dataset.name}: {'; '.join(said)}")
    if before and not (fits["0.sd"] > 0).all():
        raise WeightsError("0.sd must be above 0: images are divided by it")
    return pack(unpack(safetensors.torch.save(fits), architecture, dataset, cpu), "float32")


def _kind(value: Tensor) -> tuple:
    """What must be equal beside the name: the shape, and whether its numbers are real or whole."""
    return value.shape, value.is_floating_point(), value.is_complex()


def unpack(weights: bytes, architecture: str, dataset: Dataset, device: torch.device) -> nn.Module:
    """The network with these weights, computing in float32, in eval mode. Raises WeightsError where they do not fit."""
    classifier = build(architecture, dataset, device)
    try:
        state = safetensors.torch.load(weights)
        classifier.load_state_dict(state)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"these weights are not those of {architecture} for {dataset.name}: {error}") from error
    for name, value in classifier.state_dict().items():
        if not value.isfinite().all():
            raise WeightsError(f"{name} holds values that are not finite: a network of NaN votes for nothing")
    return classifier.eval().requires_grad_(False)
