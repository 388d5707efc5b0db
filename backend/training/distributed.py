"""One training run on several GPUs: torch's DistributedDataParallel, in processes that torchrun starts.

Every process takes its share of each loaded batch and draws noise of its own; gradients are averaged, so that a step is
one over the whole batch. Batch norms keep the first process's statistics. The first process alone writes rows.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backend.training.sgd import SGD


def rank() -> int:
    """This process's number; 0 for the first one, and without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes train this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def together(classifier: nn.Module, optimiser: SGD, device: torch.device) -> nn.Module:
    """The module to call in the loop: the classifier itself, or, of several processes, one that averages gradients."""
    if world() == 1:
        return classifier
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    for value in optimiser.velocity.values():
        if value is not None:
            dist.broadcast(value, 0)
    return DistributedDataParallel(
        classifier, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )


def same_buffers(classifier: nn.Module) -> None:
    """Give every process the first one's batch statistics, as a run that is resumed does."""
    if world() > 1:
        for buffer in classifier.buffers():
            dist.broadcast(buffer, 0)


def share(part: Tensor) -> Tensor:
    """This process's part of the indices (B,) of a loaded batch; as many for each, so up to `world` − 1 are left out."""
    return part[: len(part) // world() * world()][rank() :: world()]


def add_up(*totals: Tensor) -> None:
    """Replace each tensor by its sum over the processes."""
    if world() > 1:
        for total in totals:
            dist.all_reduce(total)


def leave() -> None:
    """End the group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
