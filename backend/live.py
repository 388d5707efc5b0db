"""Certify one image that a person brings, with the networks of finished runs; attack it; put the answers into certificates."""

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from functools import lru_cache
from threading import BoundedSemaphore

import numpy as np
import torch
from torch import nn

from backend import __version__
from backend.certification import bracket
from backend.certification.smoothed_classifier import Look, SmoothedClassifier
from backend.classifier.folding import folded
from backend.classifier.weights import unpack
from backend.datasets import check_trained_on, find_dataset
from backend.pipeline import choose_device, circumstances
from backend.run import Run, RunError
from backend.spec import Certification
from backend.training.noise import stream

TURNS = BoundedSemaphore(os.cpu_count() or 1)
CLAIM = (
    "with probability at least 1 - alpha over the noise, the smoothed classifier answers `class` on every image within "
    "`radius` (l2, pixels in [0, 1]) of this one"
)
FORMAT = 1  # of a certificate; docs/certificate.md
BOUND = "Clopper-Pearson, one-sided"


class Session:
    """One image under one smoothed classifier."""

    def __init__(
        self, run: Run, pixels: np.ndarray, settings: Certification, device: str = "auto", seed: int | None = None
    ):
        """pixels: uint8 (C, H, W) in the data set's scale; seed: the operating system's unless given.

        Raises RunError where the run has no weights, or others than its rows rest on, and DatasetError where it was trained on other classes or sizes.
        """
        self.run, self.pixels, self.settings = run, pixels, settings
        self.seed = secrets.randbits(63) if seed is None else seed
        self.spec = run.spec
        self.dataset = find_dataset(self.spec.dataset)
        self.device = choose_device(device)
        weights = run.weights()
        if weights is None:
            raise RunError(f"{run.run_id} has no weights; train it first")
        now, then = {"classes": list(self.dataset.classes), "shape": list(self.dataset.shape)}, run.environment()
        check_trained_on(self.spec.dataset, now, then)
        self.weights_sha256 = hashlib.sha256(weights).hexdigest()
        if then.get("weights_sha256") not in (None, self.weights_sha256):
            raise RunError(f"the weights of {run.run_id} are not those that its {run.environment_file.name} names")
        self.network = _network(weights, self.spec.architecture, self.spec.dataset, self.device)

    def watch(self) -> Iterator[Look]:
        """CERTIFY, with a Look after each forward pass. Waits while as many others sample as there are processors."""
        with turn():
            yield from self._watch()

    def attack(self, answer: int, nth: int = 1) -> Iterator[bracket.Progress]:
        """Look for a near image with another answer than `answer`, which was certified for this one; `bracket.attack`.

        Waits as `watch` does. Its noise is the session's: another attack wants another session. The nth on one certificate has
        α / (n (n + 1)): whoever attacks until something is found is still wrong with probability at most α.
        """
        soft = deepcopy(self.network)  # whose weights others are certifying with meanwhile
        pixels, alpha = torch.from_numpy(self.pixels), self.settings.alpha / (nth * (nth + 1))
        with turn():
            yield from bracket.attack(self._smoothed(), soft, pixels, self.dataset.scale, answer, alpha)

    def noisy_copies(self, number: int) -> tuple[np.ndarray, list[str]]:
        """What the network sees when it votes, the same at every call: uint8 (number, C, H, W) in the data set's scale,
        clipped to it for display, and the network's answer on each before clipping.
        """
        image = torch.from_numpy(self.pixels).to(self.device).float().div_(self.dataset.scale)
        noisy, answers = self._smoothed().sampler.copies(image, number, stream(0, "show", 0, self.device))
        shown = noisy.mul(self.dataset.scale).round_().clamp_(0, self.dataset.scale).byte().cpu().numpy()
        return shown, [self.dataset.classes[answer] for answer in answers]

    def _watch(self) -> Iterator[Look]:
        image = torch.from_numpy(self.pixels).float().div_(self.dataset.scale)
        yield from self._smoothed().watch(image, self.settings)

    def _smoothed(self) -> SmoothedClassifier:
        grid = self.dataset.scale if self.settings.float_sound else None
        return SmoothedClassifier(
            self.network, len(self.dataset.classes), self.spec.sigma, self.device, self.seed, self.spec.precision, grid
        )

    def certificate(self, look: Look, preprocessing: tuple[str, ...]) -> dict:
        """Everything that the claim of a look rests on, for JSON (docs/certificate.md). Raises ValueError if it claims nothing yet."""
        if not look.at_look:
            raise ValueError(f"only {look.done} of {self.settings.n} samples are counted: this is no certificate yet")
        dataset = self.dataset
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
            "bound": BOUND,
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


@contextmanager
def turn() -> Iterator[None]:
    """A visitor's turn to sample; afterwards a GPU's memory is free for whoever else computes there."""
    with TURNS:
        try:
            yield
        finally:
            torch.cuda.empty_cache()


def others_first() -> bool:
    """Whether a visitor who samples now would have to wait for others."""
    return not TURNS.acquire(blocking=False) or bool(TURNS.release())


def watch_together(sessions: Sequence[Session]) -> Iterator[tuple[int, Look]]:
    """CERTIFY one image with several networks, a forward pass of each in turn: (position in sessions, Look).

    All of them take one visitor's turn. Ends when the last one stops.
    """
    with turn():
        going = dict(enumerate(session._watch() for session in sessions))
        while going:
            for position, looks in list(going.items()):
                look = next(looks, None)
                if look is None:
                    del going[position]
                else:
                    yield position, look


@lru_cache(maxsize=8)
def _network(weights: bytes, architecture: str, dataset: str, device: torch.device) -> nn.Module:
    return folded(unpack(weights, architecture, find_dataset(dataset), device), find_dataset(dataset).shape)
