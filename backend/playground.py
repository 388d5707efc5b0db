"""Certified classifiers in the plane: points of [0, 1]², and networks that train on them in a second or two.

A point is an image of one row and two pixels, so everything else is what it is for images: the training loop, the methods' loss
terms, CERTIFY and its noise. Loads torch only when something is trained.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from backend.datasets import Dataset, Split
from backend.plan import has_lam
from backend.recipes import usual_values
from backend.rows import Certificate
from backend.spec import Certification, Recipe, RunSpec, one_of
from backend.training.methods import METHODS, make

if TYPE_CHECKING:
    from torch import nn

# What a visitor may choose from: all of it is bounded, since anybody may press the button of a public server.
SIGMAS = (0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4)  # in sides of the plane
LAMS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
NS = (100, 1_000, 10_000)
SEEDS = range(100)

TRAIN, TEST = 512, 200  # points
SCALE = 1000  # points lie on a grid of thousandths of the side
RECIPE = Recipe(name="playground", epochs=160, batch=TRAIN, lr=0.05, warmup=5.0)
GRID, FINER = 101, 2  # points a side of the grids that are drawn; the smoothing works on one so many times finer
REACH = 4.0  # sd of the noise, beyond which the smoothing takes the plane for constant
KEPT = 64  # results that are kept for whoever asks for the same
TURN = threading.BoundedSemaphore(1)  # one training at a time: torch's initialisers draw from one stream a process
PATIENCE = 0.3  # seconds between two signs of life while waiting


@dataclass(frozen=True)
class Plane:
    """A data set of the plane: `place(rng, y)` puts points (N, 2) of the classes y (N,)."""

    title: str
    classes: tuple[str, ...]
    place: Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _moons(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
    turn = np.pi * rng.random(len(y))
    x = np.where(y == 0, np.cos(turn), 1 - np.cos(turn))  # two half circles of radius 1, one in the other's arms
    height = np.where(y == 0, np.sin(turn), 0.5 - np.sin(turn))
    return np.stack([0.15 + 0.7 * (x + 1) / 3, 0.25 + 0.5 * (height + 0.5) / 1.5], 1) + rng.normal(
        0, 0.025, (len(y), 2)
    )


def _rings(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
    return _polar(np.array([0.0, 0.2, 0.38])[y], 2 * np.pi * rng.random(len(y))) + rng.normal(0, 0.03, (len(y), 2))


def _spirals(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
    along = np.sqrt(rng.random(len(y)))
    turn = 1.2 * np.pi * along + 2 * np.pi / 3 * y
    return _polar(0.06 + 0.36 * along, turn) + rng.normal(0, 0.015, (len(y), 2))


def _blobs(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
    return np.array([[0.25, 0.25], [0.75, 0.3], [0.3, 0.75], [0.72, 0.72]])[y] + rng.normal(0, 0.075, (len(y), 2))


def _polar(radius: np.ndarray, turn: np.ndarray) -> np.ndarray:
    return 0.5 + np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)


PLANES = {
    "moons": Plane("Two moons", ("A", "B"), _moons),
    "rings": Plane("Rings", ("A", "B", "C"), _rings),
    "spirals": Plane("Three spirals", ("A", "B", "C"), _spirals),
    "blobs": Plane("Four blobs", ("A", "B", "C", "D"), _blobs),
}


@dataclass(frozen=True)
class Settings:
    """What determines a result, on equal machines. `lam` is None for a method that has none. Raises SpecError outside the choices."""

    plane: str
    method: str
    sigma: float
    lam: float | None
    seed: int
    n: int

    def __post_init__(self):
        for name, known in (("plane", PLANES), ("method", METHODS), ("sigma", SIGMAS), ("seed", SEEDS), ("n", NS)):
            one_of(name, getattr(self, name), known)
        if not has_lam(self.method):
            object.__setattr__(self, "lam", None)
        else:
            one_of("lam", self.lam, LAMS)
            self.spec()  # a method may allow less

    def spec(self) -> RunSpec:
        """The run that is trained and certified. ε of SmoothAdv and the step of SmoothMix are σ: the papers' are for images."""
        values = usual_values(self.method, self.plane, self.sigma, "quick", RECIPE.epochs)
        here = {"lam": self.lam, "epsilon": self.sigma, "step": self.sigma, "steps": 2}
        values |= {name: value for name, value in here.items() if name in values}
        return RunSpec(
            self.plane, "mlp", self.method, self.sigma, asdict(make(self.method, values)), seed=self.seed, recipe=RECIPE,
            certification=Certification(n=self.n, every=1),
        )  # fmt: skip


@dataclass(frozen=True)
class Step:
    """How far `play` is."""

    doing: str  # "waiting" for other visitors, "training" (epochs) or "certifying" (test points)
    done: int
    total: int


@dataclass(frozen=True)
class Played:
    """A network of the plane: what it answers, what is certified. Grids are (K, GRID, GRID), rows along the second coordinate."""

    settings: Settings
    base: np.ndarray  # softmax of the base classifier
    smoothed: np.ndarray  # P(f(x + δ) = c), by convolution on a finer grid: drawn, never a certificate
    certificates: tuple[Certificate, ...]  # of the test points, in their order
    base_accuracy: float  # on the test points, without noise
    missing_classes: int  # answered less than a tenth as often as they occur, in the last epoch

    @property
    def gains(self) -> np.ndarray:
        """1[correct] · radius of each test point (TEST,): their mean is ACR."""
        return np.array([c.correct * c.radius for c in self.certificates])

    @property
    def right(self) -> np.ndarray:
        """Whether each test point is answered right with a certificate (TEST,)."""
        return np.array([bool(c.correct) for c in self.certificates])


@dataclass(frozen=True)
class Diverged:
    """Training whose loss, or network whose answers, are not finite; and why."""

    settings: Settings
    why: str


_kept: OrderedDict[Settings, Played | Diverged] = OrderedDict()


def points(plane: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) in [0, 1]² and their classes (N,), equally many of each; always the same."""
    known, count = PLANES[plane], TRAIN if train else TEST
    y = np.arange(count) % len(known.classes)
    placed = known.place(np.random.default_rng([int(train), *plane.encode()]), y)
    return np.rint(placed.clip(0, 1) * SCALE) / SCALE, y


def dataset(plane: str) -> Dataset:
    """The plane as a data set of images (1, 1, 2)."""

    def read(train: bool) -> Split:
        x, y = points(plane, train)
        return Split(np.rint(x * SCALE).astype(np.int16).reshape(-1, 1, 1, 2), y)

    known = PLANES[plane]
    return Dataset(
        plane, (1, 1, 2), known.classes, TEST, known.title, read, ("mlp",), every=1, scale=SCALE, mean=(0.5,), sd=(0.25,)
    )  # fmt: skip


def kept(settings: Settings) -> Played | Diverged | None:
    """The result of equal settings, where somebody had it made lately."""
    return _kept.get(settings)


def play(settings: Settings) -> Iterator[Step | Played | Diverged]:
    """Train and certify: Steps, and last the result, which is kept. Waits, with signs of life, while somebody else trains."""
    while not TURN.acquire(timeout=PATIENCE):
        yield Step("waiting", 0, 1)
    try:
        result = kept(settings)  # somebody else may just have made it
        if result is None:
            for result in _play(settings):
                if isinstance(result, Step):
                    yield result
            _kept[settings] = result
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
    finally:
        TURN.release()
    yield result


def _play(settings: Settings) -> Iterator[Step | Played | Diverged]:
    from backend.certification.sampler import SamplingError
    from backend.classifier.weights import WeightsError
    from backend.training.loop import TrainingError

    try:
        yield from _trained_and_certified(settings)
    except (TrainingError, WeightsError, SamplingError) as error:
        yield Diverged(settings, str(error))


def _trained_and_certified(settings: Settings) -> Iterator[Step | Played]:
    from backend.certification.certify import certify
    from backend.classifier.weights import unpack
    from backend.pipeline import choose_device
    from backend.rows import Epoch
    from backend.training.loop import train

    spec, data, device = settings.spec(), dataset(settings.plane), choose_device("cpu")
    for row in train(spec, data, device):
        if isinstance(row, Epoch):
            last = row
            yield Step("training", row.epoch, RECIPE.epochs)
        elif row.final:
            weights = row.tensors
    classifier = unpack(weights, spec.architecture, data, device)
    base, smoothed = regions(classifier, settings.sigma, len(data.classes))
    certificates = []
    for certificate in certify(spec, classifier, data, device):
        certificates.append(certificate)
        yield Step("certifying", len(certificates), TEST)
    x, y = points(settings.plane, train=False)
    yield Played(
        settings, base, smoothed, tuple(sorted(certificates, key=lambda c: c.idx)),
        float((softmax(classifier, x).argmax(1) == y).mean()), last.missing_classes,
    )  # fmt: skip


def softmax(classifier: "nn.Module", x: np.ndarray) -> np.ndarray:
    """The base classifier's softmax (N, K) at points (N, 2)."""
    import torch

    with torch.inference_mode():
        parts = torch.from_numpy(x.astype(np.float32)).view(-1, 1, 1, 2).split(1 << 16)
        return torch.cat([classifier(part).softmax(1) for part in parts]).numpy()


def regions(classifier: "nn.Module", sigma: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The base classifier's softmax and the smoothed classifier's P(f(x + δ) = c) on [0, 1]², both (K, GRID, GRID).

    The second is the Gaussian convolution of the base classifier's decision regions on a finer grid that reaches 4σ beyond the plane.
    """
    from scipy.ndimage import gaussian_filter

    step = 1 / (GRID - 1) / FINER
    beyond = ceil(REACH * sigma / step / FINER) * FINER
    line = np.arange(-beyond, FINER * (GRID - 1) + beyond + 1) * step
    x = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    p = softmax(classifier, x).T.reshape(classes, len(line), len(line))
    answers = p.argmax(0)
    shown = slice(beyond, len(line) - beyond, FINER)
    smoothed = [
        gaussian_filter((answers == c).astype(np.float32), sigma / step, mode="nearest", truncate=REACH)[shown, shown]
        for c in range(classes)
    ]
    return np.ascontiguousarray(p[:, shown, shown]), np.stack(smoothed)


def margins(p: np.ndarray) -> np.ndarray:
    """By how much each class of p (K, …) leads the best other one (K, …): zero on the boundary between two answers."""
    best, second = np.sort(p, 0)[[-1, -2]]
    return p - np.where(p == best, second, best)
