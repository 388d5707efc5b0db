"""The training methods. One file here is one method; METHODS finds them by their names.

Importing this package loads no torch (a launch form reads the fields without it): a method's file imports torch
inside the functions that compute.
"""

import importlib
import pkgutil
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from backend.spec import SpecError, check_fields, one_of

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class Batch:
    """What one optimiser step trains on, all on one device."""

    x: "Tensor"  # (B, C, H, W) in [0, 1]
    y: "Tensor"  # (B,) int64
    noise: "Tensor"  # (m, B, C, H, W), N(0, σ²I), m = the method's `noises`
    sigma: float
    epoch: int  # 0 is the first
    generator: "Generator"  # for whatever else a method draws


@dataclass(frozen=True)
class Method:
    """What a method states: its hyper-parameters as `hyper` fields, how much noise it wants, and its loss terms."""

    title: ClassVar[str]
    paper: ClassVar[str]
    formula: ClassVar[str] = ""  # the loss of one image in LaTeX, line by line, for the Guide
    paper_values: ClassVar[dict[tuple[str, float], dict]] = {}  # (data set, σ) -> the paper's hyper-parameters
    quick_values: ClassVar[dict] = {}  # hyper-parameters that the recipe `quick` sets otherwise
    quick_values_at: ClassVar[dict[tuple[str, float], dict]] = {}  # and those that it does at (data set, σ) alone

    def __post_init__(self):
        check_fields(self)

    @property
    def noises(self) -> int:
        """Noise vectors per image in one step: the field m, or one."""
        return getattr(self, "m", 1)

    @property
    def chunks(self) -> int:
        """Optimiser steps that one loaded batch is split into: m, so that each sees as many noisy images as the batch has."""
        return self.noises

    def loss_terms(self, classifier: "nn.Module", batch: Batch) -> tuple["Tensor", dict[str, "Tensor"]]:
        """The logits (m, B, K) under noise that were trained on, and the named scalar terms whose sum is the loss."""
        raise NotImplementedError


ORDER = ("gaussian", "stability", "macer", "smoothadv", "consistency", "smoothadv_consistency")


def place(method: str) -> int:
    """Where a method is listed: baselines, then Consistency, and what is beyond the paper's table behind them."""
    return ORDER.index(method) if method in ORDER else len(ORDER)


def make(name: str, values: dict) -> Method:
    """The method of that name with these hyper-parameters, defaults for the rest. Raises SpecError."""
    one_of("method", name, METHODS)
    kind = METHODS[name]
    known = [f.name for f in fields(kind)]
    for value in values:
        if value not in known:
            raise SpecError(f"{name} has no hyper-parameter {value!r}; it has {', '.join(known) or 'none'}")
    return kind(**values)


METHODS: dict[str, type[Method]] = {
    info.name: importlib.import_module(f"{__name__}.{info.name}").METHOD for info in pkgutil.iter_modules(__path__)
}
