"""Training images, a loaded batch at a time, as uint8 on the device."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from backend.datasets import Dataset
from backend.image_files import ImageFiles
from backend.training.distributed import share, world
from backend.training.noise import stream

FEW = 512  # images that are decoded in this process: workers take longer to start
PADDING = 4
Batches = Iterator[tuple[Tensor, Tensor]]


def parts(order: Tensor, batch: int, chunks: int) -> list[Tensor]:
    """The order (N,) in batches, this process's share of each. A rest too small for two images a chunk joins the batch before it:
    one image has no batch statistics.
    """
    batches = list(order.split(batch))
    if len(batches) > 1 and len(batches[-1]) < 2 * chunks * world():
        batches[-2:] = [torch.cat(batches[-2:])]
    return [own for part in batches if len(own := share(part))]


class InMemory:
    """A small data set, whole on the device; crops and flips are done there."""

    def __init__(self, dataset: Dataset, images: np.ndarray, labels: np.ndarray, device: torch.device):
        self.images, self.labels = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
        self.augment = dataset.augment

    def epoch(self, order: Tensor, batch: int, chunks: int, seed: int, epoch: int, generator: Generator) -> Batches:
        """Images (B, C, H, W) and labels (B,) in that order of indices (N,); the generator decides the crops."""
        for part in parts(order, batch, chunks):
            images = self.images[part]
            yield crop_and_flip(images, generator) if self.augment == "crop-flip" else images, self.labels[part]


class Streamed:
    """Image files: decoded, cropped and flipped by processes of their own, each image from a stream of its own."""

    def __init__(self, images: ImageFiles, labels: np.ndarray, device: torch.device):
        self.images, self.labels, self.device = images, torch.from_numpy(labels).to(device), device

    def epoch(self, order: Tensor, batch: int, chunks: int, seed: int, epoch: int, generator: Generator) -> Batches:
        """As `InMemory.epoch`; crops are drawn per image, the same whatever the number of workers."""
        own = parts(order, batch, chunks)
        workers = 0 if len(self.labels) <= FEW else min(8, os.cpu_count() or 1)
        loader = DataLoader(
            Decoded(self.images, seed, epoch), batch_sampler=[part.tolist() for part in own], num_workers=workers,
            pin_memory=self.device.type == "cuda", generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        for images, part in zip(loader, own, strict=True):
            yield images.to(self.device, non_blocking=True), self.labels[part]


class Decoded(TorchDataset):
    """uint8 (3, side, side) of image i in one epoch: a random resized crop, flipped half of the time."""

    def __init__(self, images: ImageFiles, seed: int, epoch: int):
        self.images, self.seed, self.number = images, seed, epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        from torchvision.transforms import Compose, PILToTensor, RandomHorizontalFlip, RandomResizedCrop

        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from the global generator
            own = stream(self.seed, "augment", self.number * len(self.images) + i, torch.device("cpu"))
            torch.set_rng_state(own.get_state())
            random = Compose([RandomResizedCrop(self.images.side), RandomHorizontalFlip(), PILToTensor()])
            return random(self.images.open(i))


def crop_and_flip(images: Tensor, generator: Generator) -> Tensor:
    """Each of images (B, C, H, W) moved by up to 4 pixels either way, black coming in, and flipped half of the time."""
    count, _, height, width = images.shape
    padded = pad(images, (PADDING,) * 4)
    draw = {"generator": generator, "device": images.device}
    down, right = torch.randint(2 * PADDING + 1, (2, count, 1), **draw)
    rows = down + torch.arange(height, device=images.device)  # (B, H)
    columns = torch.arange(width, device=images.device).expand(count, -1)  # (B, W)
    columns = right + torch.where(torch.randint(2, (count, 1), **draw).bool(), columns.flip(1), columns)
    image = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
