"""Which images one run or group certifies at a radius and another does not."""

import numpy as np
import pandas as pd
import streamlit as st

from app.figures.rounding import round_down
from app.widgets.attempt import plain
from backend.datasets import DatasetError, find_dataset

PICTURES = 24  # at most


def images_changed(both: pd.DataFrame, dataset: str, r: float, several: bool) -> None:
    """The images that only one of a and b certifies at r (several: of groups, a larger share of its seeds), with their pictures where they are wanted.

    both: a row an image, with idx, label, and gain and reached (a radius of at least r) of either, as gain_a, gain_b, reached_a, reached_b.
    """
    st.header("Images gained and lost")
    changed = both[both.reached_a != both.reached_b].copy()
    if changed.empty:
        st.caption(f"None at r = {r:g}.")
        return
    place = st.empty()
    if several:
        place.caption(
            "Gained: more of b's seeds than of a's certify the image at r; lost: fewer do. Radii are means over the seeds."
        )
    changed["by_b"] = (changed.reached_b > changed.reached_a).map({True: "gained", False: "lost"})
    changed = changed.loc[(changed.gain_b - changed.gain_a).abs().sort_values(ascending=False).index]
    if st.toggle("Show the pictures", key="pictures", bind="query-params", help="Reads the data set's test images."):
        some = changed.head(PICTURES)
        captions = [
            f"{row.by_b}: "
            + (
                f"{row.reached_a:.0%} → {row.reached_b:.0%} of the seeds"
                if several
                else f"{round_down(row.gain_a, 2)} → {round_down(row.gain_b, 2)}"
            )
            + f", class {plain(str(row.label))}, image {row.idx}"
            for row in some.itertuples()
        ]
        try:
            st.image(_pictures(dataset, tuple(some.idx)), caption=captions, width=112)
        except (DatasetError, IndexError) as error:
            st.info(f"The test images are not on this machine: {error}", icon=":material/image_not_supported:")
        if len(changed) > PICTURES:
            st.caption(f"The {PICTURES} of {len(changed)} whose radius changes most.")
    changed[["gain_a", "gain_b"]] = np.floor(changed[["gain_a", "gain_b"]] * 1000) / 1000
    radius, share = (st.column_config.NumberColumn(format=form) for form in ("%.3f", "percent"))
    st.dataframe(
        changed[["by_b", "idx", "label", "gain_a", "gain_b", *["reached_a", "reached_b"] * several]], hide_index=True,
        alt="images that a and b do not both certify at r",
        column_config={"by_b": "by b", "idx": "test image", "label": "class", "gain_a": radius | {"label": "radius a"}, "gain_b": radius | {"label": "radius b"},
                       "reached_a": share | {"label": "seeds of a at r"}, "reached_b": share | {"label": "seeds of b at r"}},
    )  # fmt: skip


@st.cache_data(max_entries=8, show_spinner="Reading the test images…")
def _pictures(dataset: str, indices: tuple[int, ...]) -> list[np.ndarray]:
    """Test images (H, W) or (H, W, 3), 8 bits, enlarged to about 84 pixels without smoothing. Raises DatasetError."""
    known = find_dataset(dataset)
    pixels = known.load(train=False).images[list(indices)].transpose(0, 2, 3, 1) * (255.0 / known.scale)
    factor = max(1, 84 // pixels.shape[1])
    return [
        image.squeeze(-1) if image.shape[-1] == 1 else image
        for image in pixels.repeat(factor, 1).repeat(factor, 2).astype(np.uint8)
    ]
