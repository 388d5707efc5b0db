"""Check a certificate: does its claim follow from its counts, and do fresh samples of its network agree?"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isfinite, prod

import numpy as np

from backend.certification.confidence import ROUNDING, lower_bound, radius, radius_upper, upper_bound
from backend.certification.grid_noise import spending
from backend.certification.smoothed_classifier import Look, why_stop
from backend.datasets import find_dataset
from backend.live import BOUND, CLAIM, FORMAT, Session
from backend.run import Run, RunError
from backend.spec import Certification, SpecError, between, check_run_id, is_line, whole

DOUBT = 1e-6  # a network that the certificate fits is refuted with at most twice this probability
MOST_BYTES = 50 * 2**20  # of a certificate
FIELDS = (
    "format", "certscope", "claim", "class", "abstained", "radius", "p_lower", "sigma", "alpha", "mode", "target", "stop", "float_sound", "n", "n0",
    "samples", "bound", "classes", "selected", "selection_counts", "counts", "run_id", "dataset", "architecture", "weights_sha256", "precision",
    "seed", "environment", "image", "made",
)  # fmt: skip
IMAGE_FIELDS = ("shape", "scale", "values", "sha256", "preprocessing")
MOST_REPLAYED, FRESH = 2_000_000, 100_000  # samples that a check draws with the certificate's seed, and anew, at most
FEWEST = 10_000  # anew, at least


@dataclass(frozen=True)
class Verdict:
    """word: `match` (sampled again with the same seed, the same counts, and fresh samples do not contradict it), `consistent`
    (the latter alone), `unchecked` (follows from its counts; no network was at hand) or `refuted`; reason: why, in a sentence."""

    word: str
    reason: str


class Refuted(Exception):
    """A certificate that contradicts itself or its network."""


def read(content: bytes, most: int = MOST_BYTES) -> object:
    """A file's JSON. Raises ValueError with a sentence where it has more than `most` bytes or is none."""
    if len(content) > most:
        raise ValueError(f"A certificate has at most {most // 2**20} MiB, and this file has more.")
    try:
        certificate = json.loads(content, parse_constant=_no_constant, object_pairs_hook=_each_once)
        json.dumps(certificate, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and can be shown nowhere
        return certificate
    except (ValueError, RecursionError) as error:
        raise ValueError(f"This file is not a certificate, which is JSON: {error}.") from None


def _no_constant(name: str):
    raise ValueError(f"{name} is no number of a certificate")


def _each_once(pairs: list[tuple[str, object]]) -> dict:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("it says something twice")
    return found


def verify(
    certificate: object, find: Callable[[str], Run], device: str = "auto", most_replayed: int = MOST_REPLAYED,
    on_look: Callable[[int, int], None] = lambda done, of: None,
) -> Verdict:  # fmt: skip
    """Check a certificate as read from JSON; `find` gives the run folder of a run id, or raises RunError.

    One of more than most_replayed samples is not sampled again with its own seed, only anew. on_look hears how many samples
    of how many are drawn, after each forward pass; what it raises ends the check.

    Raises SpecError for a device that is not there, SamplingError for a network that cannot vote.
    """
    try:
        settings, bounds = _check_counts(certificate)
    except Refuted as error:
        return Verdict("refuted", str(error))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        return Verdict(
            "refuted", f"it is not a certificate of format {FORMAT}: a field is missing or of another kind ({error})"
        )
    try:
        run = find(certificate["run_id"])
        if run.weights_sha256() is None:
            raise RunError(f"{run.run_id} has no weights here")
    except (RunError, SpecError):
        return Verdict(
            "unchecked",
            f"the claim follows from the counts; the weights of its run, {certificate['run_id']}, are not here",
        )
    try:
        return _sample_again(certificate, settings, bounds, run, device, most_replayed, on_look)
    except Refuted as error:
        return Verdict("refuted", str(error))


def _check_counts(c: dict) -> tuple[Certification, tuple[float, float]]:
    """Recompute everything that follows from the counts and the pixels: the settings and the bounds (lower, upper) of p.

    Raises Refuted, or what a wrong type raises.
    """
    _check_form(c)
    settings = Certification(
        n=c["n"], n0=c["n0"], alpha=c["alpha"], mode=c["mode"], radius=c["target"] if c["mode"] != "fixed" else None,
        float_sound=c["float_sound"],
    )  # fmt: skip
    counts, selection, classes = c["counts"], c["selection_counts"], c["classes"]
    if sum(selection) != settings.n0 or sum(counts) != c["samples"]:
        raise Refuted("the counts do not add up to n0 and samples")
    _check_image(c["image"])
    spent = dict(spending(settings, c["sigma"], c["image"]["scale"], len(c["image"]["values"])))
    if c["samples"] not in spent:
        raise Refuted(f"mode {settings.mode} with n = {settings.n} has no look at {c['samples']} samples")
    top = selection.index(max(selection))
    if c["selected"] != classes[top]:
        raise Refuted(f"the selection counts select {classes[top]}, not {c['selected']}")
    p_lower = lower_bound(counts[top], c["samples"], spent[c["samples"]])
    p_upper = upper_bound(max(counts), c["samples"], spent[c["samples"]])

    def follows(name: str, value: float) -> None:
        if type(c[name]) not in (int, float) or not isfinite(c[name]) or not abs(c[name] - value) <= ROUNDING:
            raise Refuted(f"{counts[top]} of {c['samples']} votes give {name} = {value:.6f}, not {c[name]}")

    follows("p_lower", p_lower)
    follows("radius", radius(c["p_lower"], c["sigma"]))  # what another machine rounds otherwise there is much more here
    if c["abstained"] != (p_lower <= 0.5) or c["class"] != (None if c["abstained"] else c["selected"]):
        raise Refuted("class and abstention do not follow from the counts")
    stop = why_stop(settings, c["radius"], radius_upper(p_upper, c["sigma"]), c["samples"] == settings.n)
    if c["stop"] != stop and not (settings.mode == "anytime" and c["stop"] == "width"):  # a width is not written down
        raise Refuted(f"the counts end the sampling with {stop!r}, not {c['stop']!r}")
    return settings, (p_lower, p_upper)


def _check_form(c: dict) -> None:
    """Raise Refuted, or what a wrong type raises, for what cannot be a certificate whatever its counts say."""
    if type(c["format"]) is not int or (c["format"], c["claim"], c["bound"]) != (FORMAT, CLAIM, BOUND):
        raise Refuted(
            f"this version reads certificates of format {FORMAT} with its own claim and bound, not {c['format']!r}"
        )
    for name in ("run_id", "dataset", "architecture", "precision", "weights_sha256", "certscope", "made"):
        if not is_line(c[name]):
            raise Refuted(f"{name} must be a word, not {c[name]!r}")
    check_run_id(c["run_id"])
    if more := sorted({*c} - {*FIELDS} | {*c["image"]} - {*IMAGE_FIELDS}):
        raise Refuted(f"a certificate of format {FORMAT} has no field {more[0]!r}: what it says there nobody can check")
    whole("samples", c["samples"], 1, 2**63 - 1)
    between("sigma", c["sigma"], 1e-4, 100)
    whole("seed", c["seed"], 0, 2**63 - 1)
    if type(c["abstained"]) is not bool:
        raise Refuted(f"abstained must be true or false, not {c['abstained']!r}")
    if c["mode"] == "fixed" and c["target"] is not None:
        raise Refuted(f"mode fixed has no target radius, and this one says {c['target']!r}")
    counts, selection, classes = c["counts"], c["selection_counts"], c["classes"]
    if not len(counts) == len(selection) == len(classes) or any(
        type(v) is not int or v < 0 for v in counts + selection
    ):
        raise Refuted("counts, selection_counts and classes must be equally long, and counts whole numbers from 0")
    if not all(map(is_line, classes)):
        raise Refuted("classes must be words")
    if len(set(classes)) < len(classes):
        raise Refuted("two classes have the same name")


def _check_image(image: dict) -> None:
    whole("scale", image["scale"], 1, 255)
    if any(type(v) is not int or not 0 <= v <= image["scale"] for v in image["values"]):
        raise Refuted("the image's values must be whole numbers from 0 to its scale")
    shape = image["shape"]
    if (
        type(shape) is not list
        or len(shape) != 3
        or any(type(side) is not int or not 1 <= side <= 10_000 for side in shape)
    ):
        raise Refuted("the image's shape must be three whole numbers from 1 to 10000")
    if prod(shape) != len(image["values"]):
        raise Refuted("the image does not have as many values as its shape says")
    if hashlib.sha256(bytes(image["values"])).hexdigest() != image["sha256"]:
        raise Refuted("the pixels are not those of the image's SHA-256")


def _sample_again(
    c: dict, settings: Certification, bounds: tuple[float, float], run: Run, device: str, most_replayed: int,
    on_look: Callable[[int, int], None],
) -> Verdict:  # fmt: skip
    """Sample with the certificate's network: with its seed, where that is not too long, and anew. Raises Refuted."""
    spec, image = run.spec, c["image"]
    for name in ("sigma", "dataset", "architecture", "precision"):
        if getattr(spec, name) != c[name]:
            raise Refuted(f"{name} is {c[name]!r} in the certificate and {getattr(spec, name)!r} in {run.run_id}")
    dataset = find_dataset(spec.dataset)
    if c["classes"] != run.environment().get("classes", list(dataset.classes)):
        raise Refuted(f"classes are not those of {spec.dataset}")
    if run.weights_sha256() != c["weights_sha256"]:
        raise Refuted(f"the weights of {run.run_id} here are not those of the certificate's SHA-256")
    if tuple(image["shape"]) != dataset.shape or image["scale"] != dataset.scale:
        raise Refuted(f"the image does not have the shape and scale of {spec.dataset}")
    pixels = np.array(image["values"], dtype=np.uint8).reshape(image["shape"])
    asked, same = c["samples"] + c["n0"] <= most_replayed, False
    if asked:
        again = _sampled(Session(run, pixels, settings, device, c["seed"]), c["samples"], on_look)
        same = list(again.counts) == c["counts"] and list(again.selection) == c["selection_counts"]
    # Also where the seed gives these votes: whoever made the certificate chose the seed, and may have looked for a lucky one.
    number = FEWEST if same else min(max(FEWEST, c["samples"]), FRESH)
    anew = Certification(n=number, n0=1, float_sound=settings.float_sound)
    fresh = _sampled(Session(run, pixels, anew, device), number, on_look)
    top = c["classes"].index(c["selected"])
    check_fresh(fresh.counts, top, c["selected"], bounds)
    votes = fresh.counts[top]
    if same:
        return Verdict(
            "match",
            f"sampled again with its seed, {run.run_id} gives the same {c['samples']} votes, and {votes} of {fresh.done} fresh samples agree with them",
        )
    seeded = (
        "gives other votes here (another device or version)" if asked else "was not drawn from, for its many samples"
    )
    return Verdict("consistent", f"its seed {seeded}, and {votes} of {fresh.done} fresh samples agree with it")


def check_fresh(counts: Sequence[int], top: int, selected: str, bounds: tuple[float, float]) -> None:
    """Raise Refuted where fresh votes (K,) contradict that p of class `top` is at least bounds[0], or that every class's is at most bounds[1].

    True bounds are refuted with probability at most 2 DOUBT.
    """
    done, most = sum(counts), max(counts)
    highest = upper_bound(counts[top], done, DOUBT)
    lowest = lower_bound(most, done, DOUBT / len(counts))  # whichever class it is
    if not highest >= bounds[0]:
        raise Refuted(
            f"{counts[top]} of {done} fresh samples vote for {selected}: p is at most {highest:.6f} "
            f"(error probability {DOUBT:g}), and the certificate claims p >= {bounds[0]:.6f}"
        )
    if not lowest <= bounds[1]:
        raise Refuted(
            f"{most} of {done} fresh samples agree: p is at least {lowest:.6f} "
            f"(error probability {DOUBT:g}), and the certificate says p <= {bounds[1]:.6f}"
        )


def _sampled(session: Session, samples: int, on_look: Callable[[int, int], None]) -> Look:
    """The look at so many samples, or where the sampling ended before."""
    with closing(session.watch()) as looked:  # gives its turn back at the end, also where on_look ends it
        for look in looked:
            on_look(look.done, samples)
            if look.done >= samples:
                break
    return look
