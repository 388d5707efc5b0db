"""execute(spec): train, then certify. Reads a spec, yields rows, touches no file of the run."""

import os
import platform
import re
from collections.abc import Container, Iterator

import numpy
import scipy
import torch

from backend import __version__
from backend.certification.certify import certify
from backend.classifier.weights import unpack
from backend.datasets import find_dataset
from backend.plan import check_certification
from backend.rows import Checkpoint, Row
from backend.spec import RunSpec, SpecError
from backend.training.distributed import leave, world
from backend.training.loop import checkpoint_epoch, train
from backend.training.noise import GENERATOR

__all__ = ["checkpoint_epoch", "choose_device", "circumstances", "execute"]


def execute(
    spec: RunSpec,
    device: torch.device,
    *,
    weights: bytes | None = None,
    checkpoint: bytes | None = None,
    done: Container[int] = (),
) -> Iterator[Row]:
    """Yield the rows of a run: epochs and checkpoints until it has weights, then certificates.

    What an earlier, interrupted execution of the same spec left is given back to it: `weights` where it had finished
    training, else its last `checkpoint`; `done`, the indices of the images that it had certified.
    """
    check_certification(spec)
    dataset = find_dataset(spec.dataset)
    if weights is None and spec.weights_of is not None:
        raise SpecError(f"this run certifies the weights of {spec.weights_of}, which were not given")
    if weights is None:
        if spec.certification is not None:
            # Test images that are not there are told of before hours of training.
            dataset.load(train=False)
        for row in train(spec, dataset, device, checkpoint):
            yield row
            if isinstance(row, Checkpoint) and row.final:
                weights = row.tensors
        leave()  # before the first process certifies, alone: the others may go
    if spec.certification is not None:
        classifier = unpack(weights, spec.architecture, dataset, device)
        yield from certify(spec, classifier, dataset, device, done)


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA where it is there, else the CPU. Raises SpecError where it is not there.

    Sets torch to what the results rest on: full float32 and deterministic kernels.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise SpecError(f"device must be auto, cpu, cuda or cuda:N, not {name!r}")
    kind, _, number = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise SpecError("device cuda was asked for, but torch sees no GPU; use --device cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise SpecError(f"device {name} was asked for, but torch sees {torch.cuda.device_count()} GPU, counted from 0")
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # torchrun gives each of its processes one GPU
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms loads torch's compiler: five seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # everything here is written before it is read
    return torch.device(name)


def circumstances(device: torch.device) -> dict:
    """What else a result may depend on: versions, device, threads."""
    return {
        "certscope": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "processes": world(),
        "generator": GENERATOR[device.type],
    }
