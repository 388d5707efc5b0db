"""Certify the chosen test images of a data set, a row an image."""

import time
from collections.abc import Container, Iterator

import torch
from torch import nn

from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.datasets import Dataset
from backend.run import Certificate
from backend.spec import RunSpec

TOGETHER = {"cpu": 4, "cuda": 32}  # images between two transfers of counts; a kill costs at most these


def certify(
    spec: RunSpec, classifier: nn.Module, dataset: Dataset, device: torch.device, done: Container[int] = ()
) -> Iterator[Certificate]:
    """CERTIFY every image of the spec's image set whose index is not in `done`, in the order of the indices."""
    settings = spec.certification
    split = dataset.load(train=False)
    smoothed = SmoothedClassifier(classifier, len(dataset.classes), spec.sigma, device, spec.seed)
    left = [idx for idx in settings.chosen(len(split.labels)) if idx not in done]
    for at in range(0, len(left), TOGETHER[device.type]):
        group = left[at : at + TOGETHER[device.type]]
        start = time.perf_counter()
        images = torch.from_numpy(split.images[group]).to(device).float().div_(dataset.scale)
        looks = smoothed.certify(images, group, settings.n0, settings.n, settings.alpha)
        seconds = (time.perf_counter() - start) / len(group)
        for idx, look in zip(group, looks, strict=True):
            label = int(split.labels[idx])
            yield Certificate(
                idx, label, look.predict, look.radius, int(look.predict == label), round(seconds, 6),
                look.counts[look.top], settings.n, settings.n0, look.p_lower,
            )  # fmt: skip
