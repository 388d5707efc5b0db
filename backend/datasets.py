"""The data sets. One entry of DATASETS is one data set; its loader runs only when the images are wanted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backend.home import data_root


class DatasetError(RuntimeError):
    """A data set that is not there and could not be fetched; the message names the path where it was expected."""


@dataclass(frozen=True)
class Split:
    """images: uint8 (N, C, H, W), to be divided by the data set's `scale`; labels: int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """shape is (C, H, W); `scale` is the integer that stands for 1.0; `note` is shown beside the name."""

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    scale: int
    architecture: str  # the default one
    quick_epochs: int  # of the quick recipe
    test_images: int
    note: str
    read: Callable[[bool], Split]

    def load(self, train: bool) -> Split:
        """The training or the test split. Raises DatasetError where the data is not there and cannot be fetched."""
        return self.read(train)


def _read_mnist(train: bool) -> Split:
    from torchvision.datasets import MNIST

    root = data_root()
    try:
        data = MNIST(root, train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise DatasetError(
            f"MNIST is not in {root / 'MNIST' / 'raw'} and could not be downloaded ({' '.join(str(error).split())}). "
            "Put the four *-ubyte files there, or set CERTSCOPE_DATA to a folder that holds MNIST/raw."
        ) from error
    return Split(data.data.numpy()[:, None], data.targets.numpy())


def _read_digits(train: bool) -> Split:
    from sklearn.datasets import load_digits

    data = load_digits()
    part = slice(None, 1347) if train else slice(1347, None)  # in the order of the writers: the test ones are unseen
    return Split(data.images[part, None].astype(np.uint8), data.target[part].astype(np.int64))


DIGITS = tuple("0123456789")
DATASETS = {
    d.name: d
    for d in (
        Dataset(
            "mnist",
            (1, 28, 28),
            DIGITS,
            255,
            "lenet",
            8,
            10_000,
            "handwritten digits, 28×28, 60 000 + 10 000",
            _read_mnist,
        ),
        Dataset(
            "digits",
            (1, 8, 8),
            DIGITS,
            16,
            "smallcnn",
            60,
            450,
            "handwritten digits, 8×8, 1 347 + 450, no download",
            _read_digits,
        ),
    )
}
