"""The data sets. One entry of DATASETS is one data set; its loader runs only when the images are wanted.

Beside those, every folder of images under `<data root>/folders` is a data set: `find_dataset`. Loads no torch.
"""

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from backend.home import data_root, read_only
from backend.image_files import LARGE, DatasetError, ImageFiles
from backend.spec import WORD, is_line


@dataclass(frozen=True)
class Split:
    """images: uint8 (N, C, H, W), to be divided by the data set's `scale`; labels: int64 (N,)."""

    images: np.ndarray | ImageFiles
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """shape is (C, H, W); `note` is shown beside the name."""

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    test_images: int
    note: str
    read: Callable[[bool], Split]
    architectures: tuple[str, ...]  # the first is the default
    recipes: Mapping[str, Mapping] = field(default_factory=dict)  # what a recipe of that name does otherwise here
    every: int = 20  # which test images are certified unless said: every so many-th
    scale: int = 255  # the integer that stands for 1.0
    mean: tuple[float, ...] = ()  # per channel, with `sd`, of the network's first layer; none: no such layer
    sd: tuple[float, ...] = ()
    augment: str = (
        "none"  # of the training images, on the device: "none" or "crop-flip" (files: resized crops and flips)
    )
    place: str = ""  # what is there under the data root where the data set is; none: it needs no files
    ink: float | None = None  # drawings: the side of the box that holds what is drawn, of the image's side; else photos
    like: str = ""  # the data set whose hyper-parameters are taken for this one; none: its own
    version: str = (
        ""  # eight hex digits that change with the test images of a folder; none: they are everywhere the same
    )

    def load(self, train: bool) -> Split:
        """The training or the test split. Raises DatasetError where the data is not there and cannot be fetched."""
        return self.read(train)


def find_dataset(name: str) -> Dataset:
    """The data set of that name: one of DATASETS, or a folder under `<data root>/folders`. Raises DatasetError."""
    if name in DATASETS:
        return DATASETS[name]
    root = data_root() / "folders" / name
    if WORD.fullmatch(name) and root.is_dir():
        return _folder(name, root)
    raise DatasetError(
        f"dataset must be one of {', '.join(dataset_names())}, not {name!r}. A data set of your own is a folder of images: "
        f"{data_root() / 'folders' / 'NAME'} with train/CLASS/… and val/CLASS/… (or test/CLASS/…); NAME is of a-z, 0-9 and _"
    )


def training_version(name: str) -> str:
    """Eight hex digits that change with the training images of a folder; none: they are everywhere the same. Raises DatasetError."""
    if name in DATASETS:
        return ""
    train = data_root() / "folders" / name / "train"
    return _version(train, _files(train, LARGE))


def check_trained_on(dataset: str, now: Mapping, trained: Mapping) -> None:
    """Raise DatasetError where a network was trained on images of a folder with other names of classes, in another order, or of another size, which many networks take.

    now: `classes` and `shape` of the data set as it is; trained: as they were, of an environment.json, where it says so.
    """
    classes, shape = now.get("classes") or [], now.get("shape") or []
    if (then := trained.get("classes")) and list(classes) != then:
        raise DatasetError(
            f"the classes of {dataset} are {', '.join(classes)} now, and the network was trained on {', '.join(map(str, then))}: "
            "its answers would get wrong names. Bring back the folders' names, or train it anew"
        )
    if (then := trained.get("shape")) and list(shape) != then:
        sizes = ["×".join(map(str, some[1:])) for some in (shape, then)]
        raise DatasetError(
            f"the images of {dataset} are {sizes[0]} now, the size of its first test image, and the network was trained on {sizes[1]}: bring back the one that was first then, or train it anew"
        )


def named(dataset: str, image_set: str, labels: Iterable[int]) -> list[str]:
    """The names of the classes of an image set; their numbers where the data set is not on this machine, or is another one by now."""
    try:
        known = find_dataset(dataset)
        classes = known.classes if known.version in image_set else ()
    except DatasetError:
        classes = ()
    return [classes[label] if label < len(classes) else str(label) for label in labels]


def dataset_names() -> list[str]:
    """The names of DATASETS and of the folders of images that are here."""
    folders = data_root() / "folders"
    own = sorted(p.name for p in folders.iterdir() if p.is_dir()) if folders.is_dir() else []
    return [*DATASETS, *(name for name in own if WORD.fullmatch(name) and name not in DATASETS)]


def is_there(place: str) -> bool:
    """Whether something lies at a data set's `place`, which an interrupted download leaves empty."""
    folder = data_root() / place
    return folder.is_dir() and any(folder.iterdir())


def _torchvision(kind: str, title: str, place: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as torchvision keeps them, downloaded where they are not there: not at the wish of a read-only server's visitor."""
    import torchvision.datasets

    root = data_root()
    with _alone(root, kind):
        there = is_there(place)
        try:
            data = getattr(torchvision.datasets, kind)(root, train=train, download=not read_only())
        except (RuntimeError, OSError, ValueError, AssertionError, EOFError) as error:
            why = " ".join(str(error).split())
            raise DatasetError(
                f"{title} in {root / place} is damaged or not whole ({why}). Delete that folder: where there is network, it is downloaded anew."
                if there
                else f"{title} is not in {root / place} and could not be downloaded ({why}). "
                f"Put its files there, or set CERTSCOPE_DATA to a folder that holds {place}."
            ) from error
    return np.asarray(data.data), np.asarray(data.targets, dtype=np.int64)


@contextlib.contextmanager
def _alone(root: Path, kind: str) -> Iterator[None]:
    """One process at a time: torchvision downloads and unpacks in place, and takes what another one has half written for the whole."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # nobody writes where nobody may
            if not read_only():
                root.mkdir(parents=True, exist_ok=True)
                lock = held.enter_context(open(root / f".fetching-{kind}", "a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_mnist(train: bool) -> Split:
    images, labels = _torchvision("MNIST", "MNIST", "MNIST/raw", train)
    return Split(images[:, None], labels)


def _read_fashion_mnist(train: bool) -> Split:
    images, labels = _torchvision("FashionMNIST", "Fashion-MNIST", "FashionMNIST/raw", train)
    return Split(images[:, None], labels)


def _read_cifar10(train: bool) -> Split:
    images, labels = _torchvision("CIFAR10", "CIFAR-10", "cifar-10-batches-py", train)
    return Split(images.transpose(0, 3, 1, 2), labels)


def _read_digits(train: bool) -> Split:
    rows = np.loadtxt(DIGITS_FILE, delimiter=",", dtype=np.int64)  # 64 pixels of 0 to 16, then the label
    rows = rows[:1347] if train else rows[1347:]  # in the order of the writers: the test ones are unseen
    return Split(rows[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8), rows[:, -1])


def _read_imagenet(train: bool) -> Split:
    root = data_root() / "imagenet"
    split = _files(root / ("train" if train else "val"), LARGE)
    if len(set(split.labels)) != len(DATASETS["imagenet"].classes):
        raise DatasetError(f"{root} wants 1000 folders of classes in train and in val, not {len(set(split.labels))}")
    if train:
        _check_same_classes(root / "train", root / "val")
    return split


def _files(root: Path, side: int) -> Split:
    """root/CLASS/… as a split whose labels are the places of the classes in the order of their names."""
    from torchvision.datasets import ImageFolder

    try:
        samples = ImageFolder(root).samples
    except OSError as error:
        raise DatasetError(
            f"no images in {root}: {error}. It wants one folder a class, with images in it; CERTSCOPE_DATA names another root."
        ) from error
    paths, labels = zip(*samples, strict=True)
    return Split(ImageFiles(tuple(map(Path, paths)), side), np.array(labels, dtype=np.int64))


def _folder(name: str, root: Path) -> Dataset:
    test = root / "test" if (root / "test").is_dir() else root / "val"
    test_images, side, classes, version = _looked_into(test, _mark(test))

    def read(train: bool) -> Split:
        if train:
            _check_same_classes(root / "train", test)
        return _files(root / "train" if train else test, side)

    return Dataset(
        name, (3, side, side), classes, test_images, f"your folder {root}, {side}×{side}", read,
        ("resnet50", "resnet18") if side == LARGE else ("resnet20", "resnet110", "densenet40"),
        FOLDER_RECIPES, 1, mean=IMAGENET_MEAN, sd=IMAGENET_SD,
        version=version,
    )  # fmt: skip


def _check_same_classes(train: Path, test: Path) -> None:
    """Raise DatasetError where the folders of two splits have other names: a label is the place of its name."""
    if other := sorted(set(_classes(train)) ^ set(_classes(test))):
        more = f" and {len(other) - 10} more" if len(other) > 10 else ""
        raise DatasetError(
            f"{train} and {test} must hold the same folders of classes; only one of them has {', '.join(other[:10])}{more}"
        )


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in root.iterdir() if p.is_dir())) if root.is_dir() else ()


def _mark(test: Path) -> tuple:
    """Changes where a class, or an image right in its folder, comes or goes."""
    try:
        return tuple((name, (test / name).stat().st_mtime_ns) for name in _classes(test))
    except OSError as error:
        raise DatasetError(f"{test} cannot be read: {error}") from error


@lru_cache(maxsize=32)
def _looked_into(test: Path, mark: tuple) -> tuple[int, int, tuple[str, ...], str]:
    """Number of images, side, classes and version, of a folder of that `_mark`: the side is the shorter one of the first image, at most
    224; the version, of names and sizes of the files.
    """
    if strange := [name for name in _classes(test) if not is_line(name)]:
        raise DatasetError(
            f"{test}: a class is called {strange[0]!a}, with characters that control a line or turn it round: give its folder another name, in train too"
        )
    split = _files(test, LARGE)
    if len(_classes(test)) < 2:
        raise DatasetError(f"{test} wants a folder for each of two classes or more")
    return len(split.labels), min(LARGE, *split.images.open(0).size), _classes(test), _version(test, split)


def _version(root: Path, split: Split) -> str:
    """Eight hex digits, of names and sizes of the files of a split under root."""
    sizes = "\n".join(f"{path.relative_to(root)} {path.stat().st_size}" for path in split.images.paths)
    return hashlib.sha256(sizes.encode()).hexdigest()[:8]


IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGE_PAPER = {"epochs": 90, "lr": 0.1, "drop_every": 30}
FOLDER_RECIPES = {"paper": LARGE_PAPER, "quick": {"epochs": 20, "lr": 0.1}}  # of every folder, also one that is gone
DIGITS = tuple("0123456789")
# E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, the test set, UCI Machine Learning
# Repository, https://doi.org/10.24432/C50P49, CC BY 4.0; the file as bundled with scikit-learn.
DIGITS_FILE = Path(__file__).with_name("digits.csv.gz")
GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DATASETS = {
    d.name: d
    for d in (
        Dataset(
            "mnist", (1, 28, 28), DIGITS, 10_000, "handwritten digits, 28×28, 60,000 + 10,000", _read_mnist,
            ("lenet",), place="MNIST/raw", ink=20 / 28,
        ),
        Dataset(
            "digits", (1, 8, 8), DIGITS, 450, "handwritten digits, 8×8, 1,347 + 450, no download", _read_digits,
            ("smallcnn",), {"quick": {"epochs": 60}}, every=5, scale=16, ink=20 / 28,
        ),
        Dataset(
            "fashion_mnist", (1, 28, 28), GARMENTS, 10_000, "garments, 28×28, 60,000 + 10,000", _read_fashion_mnist,
            ("lenet",), place="FashionMNIST/raw", ink=1.0, like="mnist",
        ),
        Dataset(
            "cifar10", (3, 32, 32), THINGS, 10_000, "photos of ten things, 32×32, 50,000 + 10,000", _read_cifar10,
            ("resnet20", "resnet110", "densenet40"),
            {"paper": {"epochs": 150, "lr": 0.1, "drop_every": 50}, "quick": {"epochs": 30, "lr": 0.1, "warmup": 2.0}},
            mean=(0.4914, 0.4822, 0.4465), sd=(0.2023, 0.1994, 0.2010), augment="crop-flip",
            place="cifar-10-batches-py",
        ),
        Dataset(
            "imagenet", (3, LARGE, LARGE), tuple(f"class {i}" for i in range(1000)), 50_000,
            "photos of 1,000 things, 224×224; imagenet/train and imagenet/val under the data root", _read_imagenet,
            ("resnet50", "resnet18"), {"paper": LARGE_PAPER, "quick": {"epochs": 20, "lr": 0.1}}, every=100,
            place="imagenet/val", mean=IMAGENET_MEAN, sd=IMAGENET_SD,
        ),
    )
}  # fmt: skip
