"""Check a certificate: does its claim follow from its counts, and do fresh samples of its network agree?"""

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backend.certification.confidence import looks, lower_bound, radius, upper_bound
from backend.datasets import DATASETS
from backend.run import Run, RunError
from backend.spec import Certification, SpecError

TOLERANCE = 2e-12  # claims are floored to twelve decimals
DOUBT = 1e-6  # a network that the certificate fits is refuted with at most this probability


@dataclass(frozen=True)
class Verdict:
    """word: `match` (sampled again with the same seed, the same counts), `consistent` (fresh samples do not contradict
    it), `unchecked` (follows from its counts; no network was at hand) or `refuted`; reason: why, in a sentence."""

    word: str
    reason: str


class Refuted(Exception):
    """A certificate that contradicts itself or its network."""


def verify(certificate: dict, find: Callable[[str], Run], device: str = "auto") -> Verdict:
    """Check a certificate as read from JSON; `find` gives the run folder of a run id, or raises RunError."""
    try:
        settings = _check_counts(certificate)
        try:
            run = find(certificate["run_id"])
        except (RunError, SpecError) as error:
            return Verdict("unchecked", f"the claim follows from the counts; its network is not at hand ({error})")
        return _sample_again(certificate, settings, run, device)
    except Refuted as error:
        return Verdict("refuted", str(error))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        return Verdict("refuted", f"it is not a certificate of format 1: {type(error).__name__} {error}")


def _check_counts(c: dict) -> Certification:
    """Recompute everything that follows from the counts and the pixels. Raises Refuted, or what a wrong type raises."""
    if c["format"] != 1:
        raise Refuted(f"this version reads certificates of format 1, not {c['format']!r}")
    settings = Certification(
        n=c["n"], n0=c["n0"], alpha=c["alpha"], mode=c["mode"], radius=c["target"] if c["mode"] != "fixed" else None,
        float_sound=c["float_sound"],
    )  # fmt: skip
    counts, selection, classes = c["counts"], c["selection_counts"], c["classes"]
    if not len(counts) == len(selection) == len(classes) or any(
        type(v) is not int or v < 0 for v in counts + selection
    ):
        raise Refuted("counts, selection_counts and classes must be equally long, and counts whole numbers from 0")
    if sum(selection) != settings.n0 or sum(counts) != c["samples"]:
        raise Refuted("the counts do not add up to n0 and samples")
    spent = dict(looks(settings.mode, settings.n, settings.alpha))
    if c["samples"] not in spent:
        raise Refuted(f"mode {settings.mode} with n = {settings.n} has no look at {c['samples']} samples")
    top = selection.index(max(selection))
    if c["selected"] != classes[top]:
        raise Refuted(f"the selection counts select {classes[top]}, not {c['selected']}")
    p_lower = lower_bound(counts[top], c["samples"], spent[c["samples"]])
    if c["p_lower"] > p_lower + TOLERANCE:
        raise Refuted(f"{counts[top]} of {c['samples']} votes prove p >= {p_lower:.6f}, not {c['p_lower']:.6f}")
    largest = radius(p_lower, c["sigma"])
    if c["radius"] > largest + TOLERANCE:
        raise Refuted(f"the counts certify a radius of {largest:.6f}, not {c['radius']:.6f}")
    if c["abstained"] != (p_lower <= 0.5) or c["class"] != (None if c["abstained"] else c["selected"]):
        raise Refuted("class and abstention do not follow from the counts")
    image = c["image"]
    pixels = np.array(image["values"], dtype=np.uint8)
    if hashlib.sha256(pixels.tobytes()).hexdigest() != image["sha256"]:
        raise Refuted("the pixels are not those of the image's SHA-256")
    return settings


def _sample_again(c: dict, settings: Certification, run: Run, device: str) -> Verdict:
    """Sample with the certificate's network: with its seed first, and with a new one where that gives other counts."""
    from backend.live import Session

    spec, image = run.spec, c["image"]
    for name in ("sigma", "dataset", "architecture", "precision"):
        if getattr(spec, name) != c[name]:
            raise Refuted(f"{name} is {c[name]!r} in the certificate and {getattr(spec, name)!r} in {run.run_id}")
    dataset = DATASETS[spec.dataset]
    if run.weights_sha256() != c["weights_sha256"]:
        raise Refuted(f"the weights of {run.run_id} are not those of the certificate's SHA-256")
    if tuple(image["shape"]) != dataset.shape or image["scale"] != dataset.scale:
        raise Refuted(f"the image does not have the shape and scale of {spec.dataset}")
    pixels = np.array(image["values"], dtype=np.uint8).reshape(image["shape"])
    same = next(
        look
        for look in Session(run, pixels, settings, device, c["seed"]).watch()
        if look.done >= c["samples"] or look.stop
    )
    if list(same.counts) == c["counts"] and list(same.selection) == c["selection_counts"]:
        return Verdict("match", f"sampled again with its seed, {run.run_id} gives the same {c['samples']} votes")
    many = Certification(n=max(10_000, c["samples"]), n0=c["n0"], float_sound=c["float_sound"])
    fresh = deque(Session(run, pixels, many, device).watch(), maxlen=1)[0]
    votes = fresh.counts[c["classes"].index(c["selected"])]
    highest = upper_bound(votes, fresh.done, DOUBT)
    if highest < c["p_lower"]:
        raise Refuted(
            f"{votes} of {fresh.done} fresh samples vote for {c['selected']}: p is at most {highest:.6f} "
            f"(error probability {DOUBT:g}), and the certificate claims p >= {c['p_lower']:.6f}"
        )
    return Verdict(
        "consistent",
        f"its seed gives other votes here (another device or version), and {votes} of {fresh.done} fresh samples agree with it",
    )
