"""Certify the chosen test images of a data set, a row an image."""

import time
from collections.abc import Container, Iterator

import torch
from torch import nn

from backend.certification.self_test import check_noise
from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.classifier.folding import folded
from backend.datasets import Dataset
from backend.rows import Certificate
from backend.spec import RunSpec

WINDOW = 1024  # images that are in memory at once


def certify(
    spec: RunSpec, classifier: nn.Module, dataset: Dataset, device: torch.device, done: Container[int] = ()
) -> Iterator[Certificate]:
    """CERTIFY every image of the spec's image set whose index is not in `done`, in about the order of the indices."""
    settings = spec.certification
    split = dataset.load(train=False)
    grid = dataset.scale if settings.float_sound else None
    classifier = folded(classifier, dataset.shape)
    smoothed = SmoothedClassifier(classifier, len(dataset.classes), spec.sigma, device, spec.seed, spec.precision, grid)
    check_noise(smoothed.sampler, spec.seed)
    left = [idx for idx in settings.chosen(len(split.labels)) if idx not in done]
    for window in range(0, len(left), WINDOW):
        some = left[window : window + WINDOW]
        images = torch.from_numpy(split.images[some]).to(device).float().div_(dataset.scale)
        start = time.perf_counter()
        for finished in smoothed.certify(images, some, settings):
            seconds = round((time.perf_counter() - start) / len(finished), 6)
            for position, look in finished.items():
                idx = some[position]
                label = int(split.labels[idx])
                yield Certificate(
                    idx, label, look.predict, look.radius, int(look.predict == label), seconds,
                    look.counts[look.top], look.done, settings.n0, look.p_lower, look.stop,
                )  # fmt: skip
            start = time.perf_counter()
