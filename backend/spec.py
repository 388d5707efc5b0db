"""RunSpec: everything that determines a run's result, as frozen, validated dataclasses with a JSON form.

Two equal specs whose hyper-parameters have the types of their method (`plan` sees to that) are one run: `run_id` is readable words and a hash of the values that differ from the defaults,
so that a field of the spec added later with a default leaves old ids as they are. (A method's hyper-parameters are
all hashed: one added later gives that method's new runs other ids.)
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any
from unicodedata import category

SOURCES = ("trained", "published", "brought")  # here; imported as a log; weights from elsewhere, certified here
SCHEDULES = ("step", "cosine")
INITS = ("default", "kaiming")
MODES = ("fixed", "anytime", "at-radius")
PRECISIONS = ("float32", "bfloat16")
WEIGHT_TYPES = ("float32", "float16")
WHOLE = 17  # significant digits of a radius that was never rounded to fewer
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # what follows is written the other way, or no longer
WORD = re.compile(r"[a-z0-9][a-z0-9_]*")


class SpecError(ValueError):
    """A spec that breaks a rule; the message states the rule, the value, and what is allowed."""


def hyper(default, doc: str, *, low=None, high=None, choices=(), of_epochs: int | None = None):
    """A method's hyper-parameter: a dataclass field with its range. It becomes a flag and a field of the form.

    of_epochs: the default is a number of epochs of a training that long; `plan` shrinks it with a shorter one.
    """
    known = {"doc": doc, "low": low, "high": high, "choices": tuple(choices), "of_epochs": of_epochs}
    return field(default=default, metadata=known)


def check_fields(record) -> None:
    """Raise SpecError unless each `hyper` field of a dataclass has its declared type and lies in its range."""
    for f in fields(record):
        value, meta, kind = getattr(record, f.name), f.metadata, type(f.default)
        name = f"{type(record).__name__.lower()}.{f.name}"
        if kind is float and type(value) in (int, float):
            with contextlib.suppress(OverflowError):
                value = float(value) + 0.0  # of -0.0 the usual 0
                object.__setattr__(record, f.name, value)
        if type(value) is not kind:
            raise SpecError(f"{name} must be {KINDS[kind]}, not {value!r}")
        if meta["choices"]:
            one_of(name, value, meta["choices"])
        if meta["low"] is not None:
            between(name, value, meta["low"], meta["high"])


def one_of(name: str, value, known) -> None:
    """Raise SpecError unless value is one of the known ones."""
    if value not in known:
        raise SpecError(f"{name} must be one of {', '.join(map(str, known))}, not {value!r}")


def between(name: str, value, low, high=None) -> None:
    """Raise SpecError unless value is a number in [low, high]; high None means unbounded. NaN is never inside."""
    bounded = f"from {low:.12g} to {high:.12g}" if high is not None else f"at least {low:.12g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{name} must be a number {bounded}, not {value!r}")
    if not (value >= low and (value <= high if high is not None else value < float("inf"))):
        raise SpecError(f"{name} must be {bounded}, not {value!r}")


def whole(name: str, value, low: int, high: int | None = None) -> None:
    """Raise SpecError unless value is an integer in [low, high]."""
    if type(value) is not int:
        raise SpecError(f"{name} must be a whole number, not {value!r}")
    between(name, value, low, high)


def six_digits(name: str, value: float) -> None:
    """Raise SpecError for a number of more than six significant digits, which pages and tables write: asked of new runs, whose words tell them apart."""
    if float(f"{value:g}") != value:
        raise SpecError(f"{name} must have at most six significant digits, not {value!r}; take {value:g}")


def _floats(record, *names: str) -> None:
    """Make floats of numbers that may have been given as whole ones, and 0 of -0.0: equal specs have one JSON form, so one id."""
    for name in names:
        if (value := getattr(record, name)) is not None:
            object.__setattr__(record, name, float(value) + 0.0)


@dataclass(frozen=True)
class Recipe:
    """How the weights are optimised: SGD with momentum. `name` says which named recipe it came from."""

    name: str = "quick"
    epochs: int = 8
    batch: int = 256  # loaded images; a method with m chunks takes m optimiser steps on each
    lr: float = 0.03  # peak
    schedule: str = "cosine"
    drop_every: int = 30  # epochs between drops by a factor of ten ("step")
    warmup: float = 0.5  # epochs of linear rise to the peak ("cosine")
    momentum: float = 0.9
    weight_decay: float = 1e-4
    init: str = "kaiming"
    precision: str = "float32"  # of the forward and backward passes; bfloat16: torch's autocast

    def __post_init__(self):
        if not isinstance(self.name, str) or not WORD.fullmatch(self.name):
            raise SpecError(f"a recipe's name must be a word of a-z, 0-9 and _, not {self.name!r}")
        whole("epochs", self.epochs, 1, 100_000)
        whole("batch", self.batch, 1, 1_000_000)
        whole("drop_every", self.drop_every, 1)
        between("lr", self.lr, 1e-9, 1e3)
        between("warmup", self.warmup, 0, self.epochs)
        between("momentum", self.momentum, 0, 1)
        between("weight_decay", self.weight_decay, 0, 1e3)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("init", self.init, INITS)
        one_of("precision", self.precision, PRECISIONS)
        _floats(self, "lr", "warmup", "momentum", "weight_decay")


RECIPES = {
    "quick": Recipe(),
    "paper": Recipe(name="paper", epochs=90, lr=0.01, schedule="step", drop_every=30, warmup=0.0, init="default"),
}


@dataclass(frozen=True)
class Certification:
    """CERTIFY's settings and the test images: every `every`-th from the first, at most `limit` of them.

    mode `fixed` is Cohen's: n samples, one look. `anytime` is a confidence sequence, valid at every look; it stops at
    `radius` (certified that much), at `width` (upper and lower bound of the radius that close), or at n. `at-radius`
    decides whether the radius is at least `radius`, with error probability alpha either way, or gives up at n.
    """

    n: int = 10_000
    n0: int = 100
    alpha: float = 0.001
    every: int = 20
    limit: int | None = None
    mode: str = "fixed"
    radius: float | None = None
    width: float | None = None
    float_sound: bool = False  # noise on the grid of 8-bit images: rounding errors cannot void the certificate

    def __post_init__(self):
        whole("n", self.n, 1, 1_000_000_000)
        whole("n0", self.n0, 1, 1_000_000_000)
        whole("every", self.every, 1, 1_000_000)
        if self.limit is not None:
            whole("limit", self.limit, 1, 1_000_000_000)
        between("alpha", self.alpha, 1e-12, 0.999)
        one_of("mode", self.mode, MODES)
        for name, modes in (("radius", ("anytime", "at-radius")), ("width", ("anytime",))):
            if (value := getattr(self, name)) is not None:
                between(name, value, 1e-6, 1e6)
                one_of(f"the mode of a certification with a {name}", self.mode, modes)
        if type(self.float_sound) is not bool:
            raise SpecError(f"float_sound must be true or false, not {self.float_sound!r}")
        if self.mode == "at-radius" and self.radius is None:
            raise SpecError("mode at-radius wants a radius to decide about, not none")
        _floats(self, "alpha", "radius", "width")

    @property
    def label(self) -> str:
        """The mode with what it stops at, equal exactly where two runs may be compared."""
        stops = [
            f"{name} {getattr(self, name):.12g}" for name in ("radius", "width") if getattr(self, name) is not None
        ]
        return ", ".join([self.mode, *stops, *(["float-sound"] if self.float_sound else [])])

    def chosen(self, size: int) -> list[int]:
        """The indices of the images, of a test split of `size`."""
        return list(range(0, size, self.every))[: self.limit]

    @property
    def image_set(self) -> str:
        """Words that are equal exactly where two runs certified the same choice of images of one data set."""
        return f"test/every {self.every}" + (f"/first {self.limit}" if self.limit else "")


@dataclass(frozen=True)
class RunSpec:
    """One run: a base classifier and, where `certification` is given, its certificates.

    The base classifier is trained by `recipe`, or is that of the run named in `weights_of` (then `recipe` and the
    method say how that one was trained), or was brought from elsewhere: `plan.of_file`.
    """

    dataset: str
    architecture: str
    method: str
    sigma: float  # sd of the noise, images in [0, 1]
    hyper: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    weights_of: str | None = None
    weights_dtype: str = "float32"  # what the weights are rounded to before anything is certified
    certification: Certification | None = None
    precision: str = "float32"
    source: str = "trained"
    radius_digits: int | None = None  # significant digits that published radii were rounded to, maybe upwards

    def __post_init__(self):
        for name in ("dataset", "architecture", "method"):
            if not isinstance(value := getattr(self, name), str) or not WORD.fullmatch(value):
                raise SpecError(f"{name} must be a word of a-z, 0-9 and _, not {value!r}")
        if not isinstance(self.hyper, Mapping) or not all(map(_is_hyper, self.hyper, self.hyper.values())):
            raise SpecError(
                f"hyper must map names of a-z, 0-9 and _ to finite numbers or words (at most 40 letters, digits and ._+-), not {self.hyper!r}"
            )
        values = {name: value + 0.0 if isinstance(value, float) else value for name, value in self.hyper.items()}
        object.__setattr__(self, "hyper", values)
        between("lam", self.hyper.get("lam", 0), 0)
        between("sigma", self.sigma, 1e-4, 100)
        _floats(self, "sigma")
        whole("seed", self.seed, 0, 2**63 - 1)
        one_of("weights_dtype", self.weights_dtype, WEIGHT_TYPES)
        one_of("precision", self.precision, PRECISIONS)
        one_of("source", self.source, SOURCES)
        if self.radius_digits is not None:
            whole("radius_digits", self.radius_digits, 1, WHOLE)
        if self.weights_of is not None:
            check_run_id(self.weights_of)

    @property
    def run_id(self) -> str:
        """Readable words and eight hex digits of the SHA-256 of the spec."""
        words = [self.dataset, self.architecture, self.method, f"s{self.sigma:g}"]
        if "lam" in self.hyper:
            words.append(f"l{self.hyper['lam']:g}")
        words.append(f"seed{self.seed}")
        digest = hashlib.sha256(json.dumps(_essential(self), sort_keys=True).encode()).hexdigest()
        return "-".join([*words, digest[:8]])

    def to_json(self) -> str:
        """All fields, in their order, as spec.json has them."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """Read `to_json`'s form. Raises SpecError for anything else, an unknown field included."""
        try:
            values = json.loads(text)
            values["recipe"] = Recipe(**values["recipe"])
            if values.get("certification") is not None:
                values["certification"] = Certification(**values["certification"])
            return cls(**values)
        except SpecError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpecError(f"this is not a spec that this version of Certscope reads: {error}") from error


def is_line(text: object) -> bool:
    """Whether it is a text that a page can send, and a terminal shows and does not obey: without characters that control it, or turn the line round."""
    return type(text) is str and not any(category(c) in ("Cc", "Cs") or c in TURNS for c in text)


def _is_hyper(name, value) -> bool:
    """Whether it can be a hyper-parameter: pages and tables show both, and a folder may be anybody's."""
    if not isinstance(name, str) or not WORD.fullmatch(name):
        return False
    if isinstance(value, str):
        return bool(re.fullmatch(r"[A-Za-z0-9._+-]{0,40}", value))
    return isinstance(value, int | float) and -1e300 < value < 1e300  # of any other number floats cannot be made


def check_run_id(run_id: str) -> str:
    """Return run_id, or raise SpecError where it could be anything but a folder's plain name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}", run_id) or ".." in run_id:
        raise SpecError(f"a run id is made of letters, digits, '.', '_', '+' and '-', not {run_id!r}")
    return run_id


def _essential(record) -> dict:
    """The fields of a dataclass whose values are not the defaults, nested dataclasses likewise."""
    out = {}
    for f in fields(record):
        value = getattr(record, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if value != default:
            out[f.name] = _essential(value) if hasattr(value, "__dataclass_fields__") else value
    return out
