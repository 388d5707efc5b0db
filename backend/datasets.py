"""The data sets. One entry of DATASETS is one data set; its loader runs only when the images are wanted.

Beside those, every folder of images under `<data root>/folders` is a data set: `find_dataset`. Loads no torch.
"""

import contextlib
import fcntl
import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backend.home import data_root, read_only
from backend.spec import WORD

if TYPE_CHECKING:
    from PIL.Image import Image


class DatasetError(RuntimeError):
    """A data set that is not there and could not be fetched; the message names the path where it was expected."""


@dataclass(frozen=True)
class Split:
    """images: uint8 (N, C, H, W), to be divided by the data set's `scale`; labels: int64 (N,)."""

    images: "np.ndarray | ImageFiles"
    labels: np.ndarray


@dataclass(frozen=True)
class ImageFiles:
    """Images that are decoded when they are asked for: `files[list of indices]` is uint8 (len, 3, side, side).

    The `middle` of each.
    """

    paths: tuple[Path, ...]
    side: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Sequence[int]) -> np.ndarray:
        decoded = [np.asarray(middle(self.open(i), self.side)) for i in indices]
        return np.stack(decoded).transpose(0, 3, 1, 2) if decoded else np.empty((0, 3, self.side, self.side), np.uint8)

    def open(self, i: int) -> "Image":
        """Image i as 8-bit RGB, upright. Raises DatasetError where its file is damaged."""
        from PIL import Image

        path = self.paths[i]
        try:
            with Image.open(path) as image:
                return to_rgb(image)
        except (*DAMAGE, Image.DecompressionBombError) as error:
            raise DatasetError(f"{path} cannot be read ({error}): replace it or take it away") from None


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


class ScaleError(ValueError):
    """An image of which nobody can say what value is white; the message goes on after its name."""


def to_rgb(image: "Image") -> "Image":
    """An opened image as 8-bit RGB, upright, 16 bits and real numbers scaled to 8, transparency over white: what every network sees of a file.

    Raises ScaleError.
    """
    from PIL import Image, ImageOps

    image.load()
    kind = image.format  # the copy has none
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        eighth = np.rint(values * (255 / _white(image.mode, kind, float(values.min()), float(values.max()))))
        return Image.fromarray(eighth.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _white(mode: str, kind: str | None, low: float, high: float) -> int:
    """The value that stands for white, by the mode alone where it tells; else by the image's values, from low to high. kind: the file's format."""
    if mode.startswith("I;16") or (mode == "I" and kind == "PPM"):  # whose 16 bits are "I"
        return 65535
    if mode == "I" and low >= 0 and 255 < high <= 65535:
        return 65535
    if mode == "F" and low >= 0 and high <= 255:  # not where one is not a number
        return 1 if high <= 1 else 255
    kind = "real numbers" if mode == "F" else "whole numbers of 32 bits"
    raise ScaleError(
        f"has {kind} from {low:g} to {high:g} for pixels, and does not say what is white: save it with 8 or 16 bits"
    )


def middle(image: "Image", side: int) -> "Image":
    """The middle (side, side) of an image whose shorter side is scaled to `side`, or to 8/7 of it at 224."""
    from PIL import Image

    shorter = side * 8 // 7 if side == LARGE else side
    scale = shorter / min(image.size)
    if scale != 1:
        image = image.resize([max(shorter, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))


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


def _torchvision(kind: str, title: str, place: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as torchvision keeps them, downloaded where they are not there: not at the wish of a read-only server's visitor."""
    import torchvision.datasets

    root = data_root()
    with _alone(root, kind):
        there = (root / place).is_dir() and any((root / place).iterdir())
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
        if (train_classes := _classes(root / "train")) != classes and train:
            raise DatasetError(
                f"{root / 'train'} and {test} must hold the same folders of classes; only one of them has "
                f"{', '.join(sorted(set(train_classes) ^ set(classes)))}"
            )
        return _files(root / "train" if train else test, side)

    return Dataset(
        name, (3, side, side), classes, test_images, f"your folder {root}, {side}×{side}", read,
        ("resnet50", "resnet18") if side == LARGE else ("resnet20", "resnet110", "densenet40"),
        {"paper": LARGE_PAPER, "quick": {"epochs": 20, "lr": 0.1}}, 1, mean=IMAGENET_MEAN, sd=IMAGENET_SD,
        version=version,
    )  # fmt: skip


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
    split = _files(test, LARGE)
    if len(_classes(test)) < 2:
        raise DatasetError(f"{test} wants a folder for each of two classes or more")
    return len(split.labels), min(LARGE, *split.images.open(0).size), _classes(test), _version(test, split)


def _version(root: Path, split: Split) -> str:
    """Eight hex digits, of names and sizes of the files of a split under root."""
    sizes = "\n".join(f"{path.relative_to(root)} {path.stat().st_size}" for path in split.images.paths)
    return hashlib.sha256(sizes.encode()).hexdigest()[:8]


DAMAGE = (  # what Pillow's decoders raise on files that are not what they say
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, ZeroDivisionError,
    struct.error, MemoryError,
)  # fmt: skip
LARGE = 224
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGE_PAPER = {"epochs": 90, "lr": 0.1, "drop_every": 30}
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
            "mnist", (1, 28, 28), DIGITS, 10_000, "handwritten digits, 28×28, 60 000 + 10 000", _read_mnist,
            ("lenet",), place="MNIST/raw", ink=20 / 28,
        ),
        Dataset(
            "digits", (1, 8, 8), DIGITS, 450, "handwritten digits, 8×8, 1 347 + 450, no download", _read_digits,
            ("smallcnn",), {"quick": {"epochs": 60}}, every=5, scale=16, ink=20 / 28,
        ),
        Dataset(
            "fashion_mnist", (1, 28, 28), GARMENTS, 10_000, "garments, 28×28, 60 000 + 10 000", _read_fashion_mnist,
            ("lenet",), place="FashionMNIST/raw", ink=1.0, like="mnist",
        ),
        Dataset(
            "cifar10", (3, 32, 32), THINGS, 10_000, "photos of ten things, 32×32, 50 000 + 10 000", _read_cifar10,
            ("resnet20", "resnet110", "densenet40"),
            {"paper": {"epochs": 150, "lr": 0.1, "drop_every": 50}, "quick": {"epochs": 30, "lr": 0.1, "warmup": 2.0}},
            mean=(0.4914, 0.4822, 0.4465), sd=(0.2023, 0.1994, 0.2010), augment="crop-flip",
            place="cifar-10-batches-py",
        ),
        Dataset(
            "imagenet", (3, LARGE, LARGE), tuple(f"class {i}" for i in range(1000)), 50_000,
            "photos of 1 000 things, 224×224; imagenet/train and imagenet/val under the data root", _read_imagenet,
            ("resnet50", "resnet18"), {"paper": LARGE_PAPER, "quick": {"epochs": 20, "lr": 0.1}}, every=100,
            place="imagenet/val", mean=IMAGENET_MEAN, sd=IMAGENET_SD,
        ),
    )
}  # fmt: skip
