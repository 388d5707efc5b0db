"""The training methods. One file here is one method; METHODS finds them by their names.

Importing this package loads no torch (a launch form reads the fields without it): a method's file imports torch
inside the functions that compute.
"""

import importlib
import pkgutil
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from backend.spec import KINDS, SpecError, check_fields, one_of

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


def find_methods() -> dict[str, type[Method]]:
    """METHOD of each file here. Raises SpecError, with the file's name, for one of which no flag or input could be made."""
    found, kinds = {}, {}
    for info in pkgutil.iter_modules(__path__):
        method = getattr(importlib.import_module(f"{__name__}.{info.name}"), "METHOD", None)
        try:
            _check(method, kinds)
        except SpecError as error:
            raise SpecError(f"backend/training/methods/{info.name}.py: {error}") from None
        found[info.name] = method
    return found


def _check(method, kinds: dict[str, type]) -> None:
    """Raise SpecError unless it is a method's class that states what it must. kinds: the type of each hyper-parameter so far; adds to it."""
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise SpecError("METHOD must be the method's class, derived from Method")
    if lacking := [name for name in ("title", "paper") if not isinstance(getattr(method, name, None), str)]:
        raise SpecError(f"{method.__name__} must have a {' and a '.join(lacking)}")
    for f in fields(method):
        kind, meta = type(f.default), f.metadata
        if "doc" not in meta:
            raise SpecError(f"{f.name} must be made by hyper(default, doc, ...)")
        if kind not in (int, float, str):
            raise SpecError(f"{f.name} must be a whole number, a number or one of several words, not {f.default!r}")
        if not meta["choices"] and (kind is str or meta["low"] is None):
            raise SpecError(f"{f.name} must have {'choices' if kind is str else 'a low or choices'}")
        if f.type not in (kind, kind.__name__):
            raise SpecError(f"{f.name} is declared otherwise than its default {f.default!r}, {KINDS[kind]}")
        if kinds.setdefault(f.name, kind) is not kind:
            raise SpecError(f"{f.name} must be {KINDS[kinds[f.name]]}, as in another method, or have another name")


METHODS = find_methods()
