"""From a file that a person brings to the pixels that a network sees. Loads no torch."""

import base64
import binascii
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from backend.datasets import Dataset
from backend.image_files import DAMAGE, LARGE, ScaleError, middle, to_rgb

MAX_BYTES = 10 * 2**20
MAX_PIXELS = 25_000_000  # photos of 24 million are common
MAX_SIDE = 65_535  # pixels, as in a JPEG; Pillow keeps the place of every row
MAX_SCANS = 100  # of a progressive JPEG (or of several in one file, MPO), which has about ten; each costs a pass over all pixels
MAX_URL = 2 * 2**20  # characters of a drawn or pasted image, which a browser has scaled down
DATA_URL = "data:image/png;base64,"
LONGEST = 8  # of a photo's longer side, in shorter ones; the rest is cut off before anything is scaled
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
INVERSIONS = ("auto", "yes", "no")


class ImageError(ValueError):
    """A file that is no usable image; the message is a sentence for the person who brought it."""


@dataclass(frozen=True)
class Seen:
    """pixels: uint8 (C, H, W) in the data set's scale, what is certified; steps: how they came about, in words."""

    pixels: np.ndarray
    steps: tuple[str, ...]


def decode(content: bytes) -> Image.Image:
    """The image of a file as 8-bit RGB, upright, transparency over white. Raises ImageError."""
    if len(content) > MAX_BYTES:
        raise ImageError(f"The file has {len(content) / 2**20:.1f} MiB; at most {MAX_BYTES // 2**20} MiB are read.")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:  # known from the header, before anything is unpacked
            raise ImageError(f"The image is {width} × {height} pixels; at most {MAX_PIXELS // 10**6} million are read.")
        if max(width, height) > MAX_SIDE:
            raise ImageError(f"The image is {width} × {height} pixels; at most {MAX_SIDE} a side are read.")
        if image.format in ("JPEG", "MPO") and (scans := content.count(b"\xff\xda")) > MAX_SCANS:
            raise ImageError(f"The image is a JPEG of {scans} scans; at most {MAX_SCANS} are read. Save it anew.")
        moves, rgb = getattr(image, "is_animated", False), to_rgb(image)
        clear = image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255
        rgb.info |= {"first of several": moves, "over white": clear}
        return rgb
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"This file is not an image that can be read here ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError:
        raise ImageError(f"The image has too many pixels; at most {MAX_PIXELS // 10**6} million are read.") from None
    except ScaleError as error:
        raise ImageError(f"The image {error}.") from None
    except DAMAGE as error:
        raise ImageError(f"The image is damaged or cut off: {error}.") from None


def from_browser(url: object) -> bytes:
    """The bytes of a PNG that the page's own script drew or pasted, a data URL; they are no more trusted than an upload's.

    Raises ImageError.
    """
    if not isinstance(url, str) or not url.startswith(DATA_URL):
        raise ImageError("The browser sent something that is not an image. Draw or paste it again, or upload a file.")
    if len(url) > MAX_URL:
        raise ImageError(
            f"The image has {len(url) / 2**20:.1f} MiB; at most {MAX_URL // 2**20} MiB are taken that way."
        )
    try:
        return base64.b64decode(url.removeprefix(DATA_URL), validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("The image was damaged on its way. Draw or paste it again, or upload a file.") from None


def see(image: Image.Image, dataset: Dataset, invert: str = "auto") -> Seen:
    """Convert 8-bit RGB to what the networks of a data set see. An image of just the right size keeps its pixels.

    Drawings become light on black, cut out and centred; photos are scaled and cut to their middle. `invert` is of
    drawings alone. Raises ImageError where nothing is drawn.
    """
    steps = [f"{image.width}×{image.height} pixels"]
    if image.info.get("first of several"):
        steps.append("of several frames the first")
    if image.info.get("over white"):
        steps.append("what is transparent stands on white")
    values = _photo(image, dataset, steps) if dataset.ink is None else _drawing(image, dataset, invert, steps)
    pixels = np.rint(values * (dataset.scale / 255)).clip(0, dataset.scale).astype(np.uint8)
    side = dataset.shape[1]
    steps.append(f"{side}×{side} values from 0 to {dataset.scale}, which stand for 0 to 1")
    return Seen(pixels, tuple(steps))


def _photo(image: Image.Image, dataset: Dataset, steps: list[str]) -> np.ndarray:
    """(C, side, side) from 0 to 255: the middle square, scaled."""
    side = dataset.shape[1]
    if max(image.size) > (long := LONGEST * min(image.size)):  # scaled whole, a line of pixels would fill the memory
        image = ImageOps.fit(image, [min(length, long) for length in image.size], Image.Resampling.NEAREST)
        steps.append(f"cut to {image.width}×{image.height} around its middle")
    if (image.width, image.height) != (side, side):
        image = middle(image, side)
        steps.append(
            f"scaled, and its middle {side}×{side} cut out: the middle square"
            + (", less a rim" if side == LARGE else "")
        )
    if dataset.shape[0] == 1:
        image = image.convert("L")
        steps.append("in grey")
    return np.asarray(image, dtype=np.float32).reshape(side, side, -1).transpose(2, 0, 1)


def _drawing(image: Image.Image, dataset: Dataset, invert: str, steps: list[str]) -> np.ndarray:
    """(1, side, side) from 0 to 255, light on black."""
    side = dataset.shape[1]
    grey = np.asarray(image.convert("L"))
    steps.append("in grey")
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if invert == "yes" or (invert == "auto" and np.median(border) > 127):
        grey = 255 - grey
        steps.append("inverted: what is drawn must be light on dark")
    if grey.max() - float(np.median(grey)) < 16:
        raise ImageError(
            "Nothing stands out from the background (white, where the image is transparent): draw in a colour that contrasts with it."
        )
    if (image.width, image.height) != (side, side):
        grey = _centred(grey, side, round(side * dataset.ink), steps)
    return grey[None].astype(np.float32)


def _centred(grey: np.ndarray, side: int, box: int, steps: list[str]) -> np.ndarray:
    """The drawing in uint8 (H, W), cut out, scaled into (box, box), its centre of mass in the middle of (side, side)."""
    background, brightest = float(np.median(grey)), float(grey.max())
    floor = background + 0.25 * (brightest - background)
    lit = grey > floor
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    ink = ((np.arange(256, dtype=np.float32) - floor) / (brightest - floor)).clip(0, 1) * 255  # of each value
    drawing = ink.astype(np.uint8)[grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]]
    factor = box / max(drawing.shape)
    size = [max(1, round(length * factor)) for length in drawing.shape]
    small = np.asarray(Image.fromarray(drawing).resize(size[::-1], Image.Resampling.BOX), np.float32)
    mass = small.sum()
    if mass == 0:
        raise ImageError(
            "What is drawn is too thin for its extent: nothing of it is left at the size that networks see."
        )
    corner = []
    for axis, length in enumerate(size):
        centre = (small.sum(1 - axis) * (np.arange(length) + 0.5)).sum() / mass
        corner.append(min(max(round(side / 2 - centre), 0), side - length))
    canvas = np.zeros((side, side), np.float32)
    canvas[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = small
    steps.append(f"background set to black, the drawing cut out, scaled into {box}×{box} and centred by its mass")
    return canvas
