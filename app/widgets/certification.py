"""The settings of a certification."""

import streamlit as st

from app.widgets.glossary import TERMS
from backend.datasets import Dataset
from backend.spec import MODES, PRECISIONS, Certification

MODE_WORDS = {
    "fixed": "fixed n, as in the papers", "anytime": "any time: stops when it is sure enough",
    "at-radius": "at a radius: decides whether it is reached",
}  # fmt: skip


def certification_inputs(dataset: Dataset, start: Certification, precision: str, key: str) -> tuple[Certification, str]:
    """Inputs that begin with `start` and `precision`; returns what they say. key: unique on the page.

    They are not bounded: of what is out of bounds Streamlit would keep the value before. Raises SpecError for settings that do not go together.
    """
    one, two, three, four = st.columns(4)
    n = one.number_input("Samples n", value=start.n, help=TERMS["n"], key=f"{key} n")
    n0 = two.number_input("Samples n0", value=start.n0, help=TERMS["n0"], key=f"{key} n0")
    alpha = three.number_input("α", value=start.alpha, step=0.001, format="%g", help=TERMS["α"], key=f"{key} alpha")
    every = four.number_input(
        "Every …-th test image",
        value=start.every,
        help=f"of {dataset.test_images:,}",
        key=f"{key} every {dataset.name}",
    )
    usual = Certification(n=start.n, n0=start.n0, alpha=start.alpha, every=start.every)
    with st.expander("More certification settings", expanded=start != usual or precision != PRECISIONS[0]):
        one, two, three, four = st.columns(4)
        limit = one.number_input(
            "At most … images", value=start.limit, step=1, placeholder="all of them", key=f"{key} limit"
        )
        mode = two.selectbox("Mode", MODES, MODES.index(start.mode), format_func=MODE_WORDS.get, key=f"{key} mode")
        radius = width = None
        if mode != "fixed":
            radius = three.number_input(
                "Radius r", value=start.radius or (0.5 if mode == "at-radius" else None), step=0.25, format="%g",
                help="at a radius: the one to decide about; any time: stop where it is certified", key=f"{key} radius {mode}",
            )  # fmt: skip
        if mode == "anytime":
            width = four.number_input(
                "Width", value=start.width, step=0.05, format="%g", key=f"{key} width",
                help="stop where the radius is known this closely",
            )  # fmt: skip
        one, two = st.columns(2)
        chosen = one.selectbox(
            "Precision of the network", PRECISIONS, PRECISIONS.index(precision), key=f"{key} precision",
            help="Part of the classifier: what is certified in bfloat16 is served in bfloat16.",
        )  # fmt: skip
        sound = two.checkbox(
            "Sound against rounding", start.float_sound, key=f"{key} sound",
            help="Noise on the grid of 8-bit images, so that rounding errors cannot void a certificate. Slower.",
        )  # fmt: skip
    settings = Certification(
        n=n,
        n0=n0,
        alpha=float(alpha),
        every=every,
        limit=limit,
        mode=mode,
        radius=radius,
        width=width,
        float_sound=sound,
    )
    return settings, chosen
