"""An image of the visitor's, in four ways: a sample, an upload, a drawing, or from the clipboard."""

from functools import partial
from threading import Lock

import streamlit as st

from app.widgets.pixels import enlarged
from app.widgets.run_choice import tell_absent
from app.widgets.sketch import draw_on_canvas, listen_for_paste
from backend.datasets import find_dataset
from backend.home import PRECOMPUTED
from backend.images import FORMATS, INVERSIONS, MAX_BYTES, ImageError, Seen, decode, from_browser, see


def bring_image(dataset: str) -> Seen | None:
    """What the network is to see of what the visitor brings; None so far, or where it is no image."""
    samples = sorted((PRECOMPUTED / "samples" / dataset).glob("*.png"))
    drawings, classes = find_dataset(dataset).ink is not None, find_dataset(dataset).classes
    ways = ["Sample"] * bool(samples) + ["Upload"] + ["Draw"] * drawings + ["Paste"]
    key = f"way {len(ways)}"
    st.session_state.setdefault(key, ways[0])  # and no default: a paste sets it
    way = st.segmented_control("Image", ways, required=True, key=key)
    pasted = listen_for_paste(way == "Paste", partial(st.session_state.__setitem__, key, "Paste"))
    try:
        if way == "Sample":
            key, named = f"sample_{dataset}", lambda path: classes[int(path.name.split("-")[0])]
            path = st.pills(
                "A test image of class", samples, default=samples[0], required=True, format_func=named, key=key,
                bind="query-params", wrap=True, **tell_absent(key, "a test image of class", list(map(named, samples)), ""),
            )  # fmt: skip
            return converted(path.read_bytes(), dataset, "no")
        if way == "Draw":
            drawn = draw_on_canvas()
            return converted(from_browser(drawn), dataset, "no") if drawn else None
        if way == "Paste":
            invert = choose_inversion(dataset)
            return converted(from_browser(pasted), dataset, invert) if pasted else None
        file = st.file_uploader(
            "PNG, JPEG, WebP, BMP, GIF or TIFF", type=[*map(str.lower, FORMATS), "jpg", "tif"],
            max_upload_size=MAX_BYTES // 2**20, key="upload",
        )  # fmt: skip
        invert = choose_inversion(dataset)
        return converted(file.getvalue(), dataset, invert) if file else None
    except ImageError as error:
        st.error(str(error), icon=":material/broken_image:")
        return None


def choose_inversion(dataset: str) -> str:
    """Whether dark on light is turned round; photos never are."""
    if find_dataset(dataset).ink is None:
        return "no"
    return st.segmented_control(
        "Invert", INVERSIONS, default="auto", required=True, key="invert",
        help="The networks know light on black. `auto` inverts an image whose border is light, as paper is.",
    )  # fmt: skip


DECODING = Lock()  # one file at a time, of all visitors': a large one takes 200 MB meanwhile


@st.cache_data(max_entries=64, show_spinner=False)
def converted(content: bytes, dataset: str, invert: str) -> Seen:
    """`see` of a file's bytes, once per file and not at every rerun."""
    with DECODING:
        return see(decode(content), find_dataset(dataset), invert)


def show_seen(seen: Seen, scale: int) -> None:
    """The pixels, enlarged without smoothing, and how they came about."""
    left, right = st.columns([1, 1.2])
    left.image(
        enlarged(seen.pixels, scale), caption="What the network sees", width=224, alt="the converted image, enlarged"
    )
    right.markdown("\n".join(f"1. {step}" for step in seen.steps))
