"""Small images, large enough to look at."""

from collections.abc import Iterable

import numpy as np
import streamlit as st

from app.widgets.attempt import plain

SIDE = 112  # of a picture in a row: three fit on a phone


def enlarged(pixels: np.ndarray, scale: int, side: int = 224) -> np.ndarray:
    """(C, H, W) of 0 to scale as 8-bit (H', W') or (H', W', 3), H' about `side`, without smoothing."""
    image = pixels.transpose(1, 2, 0).astype(np.float32) * (255 / scale)
    factor = max(1, side // len(image))
    return image.repeat(factor, 0).repeat(factor, 1).astype(np.uint8).squeeze()


def difference(a: np.ndarray, b: np.ndarray, scale: int, side: int = 224) -> np.ndarray:
    """b less a, both (C, H, W): grey is no change, and the largest change is white or black."""
    change = b.astype(np.float32) - a
    most = max(1.0, float(np.abs(change).max()))
    return enlarged((0.5 + change / most / 2) * scale, scale, side)


def picture_row(pictures: Iterable[tuple[np.ndarray, str, str]]) -> None:
    """Pictures beside one another, as many as fit: (enlarged image, caption, what a screen reader says), in which a class may be called anything."""
    with st.container(horizontal=True, gap="xsmall"):
        for image, caption, alt in pictures:
            st.image(image, caption=plain(caption), alt=alt, width=SIDE)
