"""From image files to 8-bit RGB: the same for a folder of images, which is certified, and for an upload. Loads Pillow when one is read."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

LARGE = 224
DAMAGE = (  # what Pillow's decoders raise on files that are not what they say
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, ZeroDivisionError,
    struct.error, MemoryError,
)  # fmt: skip


class DatasetError(RuntimeError):
    """A data set that is not there and could not be fetched; the message names the path where it was expected."""


class ScaleError(ValueError):
    """An image of which nobody can say what value is white; the message goes on after its name."""


def to_rgb(image: "Image") -> "Image":
    """An opened image as 8-bit RGB, upright, 16 bits and real numbers scaled to 8, transparency over white: what every network sees of a file.

    Raises ScaleError.
    """
    from PIL import Image, ImageOps

    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        white = _white(image.mode, image.format, float(values.min()), float(values.max()))
        eighth, clear = np.empty(values.shape, np.uint8), image.info.get("transparency")
        for row in range(len(values)):  # in real numbers all of them would take eight times the memory
            eighth[row] = np.rint(values[row].astype(np.float64) * (255 / white))
            if isinstance(clear, int):
                eighth[row][values[row] == clear] = 255
        return Image.fromarray(eighth).convert("RGB")
    if image.has_transparency_data:
        over = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), over)
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
