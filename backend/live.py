"""Certify one image that a person brings, with the network of a finished run, and put the answer into a certificate."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from threading import BoundedSemaphore

import numpy as np
import torch
from torch import nn

from backend import __version__
from backend.certification.smoothed_classifier import Look, SmoothedClassifier
from backend.classifier.weights import unpack
from backend.datasets import find_dataset
from backend.pipeline import choose_device, circumstances
from backend.run import Run, RunError
from backend.spec import Certification

TURNS = BoundedSemaphore(os.cpu_count() or 1)
CLAIM = (
    "with probability at least 1 - alpha over the noise, the smoothed classifier answers `class` on every image within "
    "`radius` (l2, pixels in [0, 1]) of this one"
)
FORMAT = 1  # of a certificate; docs/certificate.md


class Session:
    """One image under one smoothed classifier."""

    def __init__(
        self, run: Run, pixels: np.ndarray, settings: Certification, device: str = "auto", seed: int | None = None
    ):
        """pixels: uint8 (C, H, W) in the data set's scale; seed: the operating system's unless given.

        Raises RunError where the run has no weights.
        """
        self.run, self.pixels, self.settings = run, pixels, settings
        self.seed = secrets.randbits(63) if seed is None else seed
        self.spec = run.spec
        self.device = choose_device(device)
        weights = run.weights()
        if weights is None:
            raise RunError(f"{run.run_id} has no weights; train it first")
        self.weights_sha256 = hashlib.sha256(weights).hexdigest()
        self.network = _network(weights, self.spec.architecture, self.spec.dataset, self.device)

    def others_first(self) -> bool:
        """Whether `watch` would have to wait for other visitors."""
        return not TURNS.acquire(blocking=False) or bool(TURNS.release())

    def watch(self) -> Iterator[Look]:
        """CERTIFY, with a Look after each forward pass. Waits while as many others sample as there are processors."""
        with TURNS:
            yield from self._watch()

    def _watch(self) -> Iterator[Look]:
        dataset = find_dataset(self.spec.dataset)
        image = torch.from_numpy(self.pixels).float().div_(dataset.scale)
        grid = dataset.scale if self.settings.float_sound else None
        smoothed = SmoothedClassifier(
            self.network, len(dataset.classes), self.spec.sigma, self.device, self.seed, self.spec.precision, grid
        )
        yield from smoothed.watch(image, self.settings)

    def certificate(self, look: Look, preprocessing: tuple[str, ...]) -> dict:
        """Everything that the claim of a look rests on, for JSON (docs/certificate.md). Raises ValueError if it claims nothing yet."""
        if not look.at_look:
            raise ValueError(f"only {look.done} of {self.settings.n} samples are counted: this is no certificate yet")
        dataset = find_dataset(self.spec.dataset)
        return {
            "format": FORMAT,
            "certscope": __version__,
            "claim": CLAIM,
            "class": dataset.classes[look.predict] if look.predict >= 0 else None,
            "abstained": look.predict < 0,
            "radius": look.radius,
            "p_lower": look.p_lower,
            "sigma": self.spec.sigma,
            "alpha": self.settings.alpha,
            "mode": self.settings.mode,
            "target": self.settings.radius,
            "stop": look.stop,
            "float_sound": self.settings.float_sound,
            "n": self.settings.n,
            "n0": self.settings.n0,
            "samples": look.done,
            "bound": "Clopper-Pearson, one-sided",
            "classes": list(dataset.classes),
            "selected": dataset.classes[look.top],
            "selection_counts": list(look.selection),
            "counts": list(look.counts),
            "run_id": self.run.run_id,
            "dataset": self.spec.dataset,
            "architecture": self.spec.architecture,
            "weights_sha256": self.weights_sha256,
            "precision": self.spec.precision,
            "seed": self.seed,
            "environment": circumstances(self.device),
            "image": {
                "shape": list(self.pixels.shape),
                "scale": dataset.scale,
                "values": self.pixels.flatten().tolist(),
                "sha256": hashlib.sha256(self.pixels.tobytes()).hexdigest(),
                "preprocessing": list(preprocessing),
            },
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }


@lru_cache(maxsize=8)
def _network(weights: bytes, architecture: str, dataset: str, device: torch.device) -> nn.Module:
    return unpack(weights, architecture, find_dataset(dataset), device)
