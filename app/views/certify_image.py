"""Certify an image: upload one or take a sample, watch the samples arrive, take the certificate home."""

import json
import time
from contextlib import closing
from math import floor

import numpy as np
import streamlit as st

from app.figures.palette import run_labels
from app.figures.votes import votes
from backend.datasets import DatasetError, find_dataset
from backend.home import PRECOMPUTED
from backend.images import FORMATS, INVERSIONS, MAX_BYTES, ImageError, Seen, decode, see
from backend.run import Run, RunError
from backend.spec import Certification
from backend.store import queries

MODES = {"anytime": "any time", "fixed": "fixed n", "at-radius": "robust at r?"}
BOUNDS = {
    "fixed": "one-sided Clopper–Pearson bound",
    "anytime": "Clopper–Pearson bound, valid at every look",
    "at-radius": "Clopper–Pearson bound, valid at every look",
}
DECISIONS = {
    "robust": "**Robust at r**: the certified radius reaches it.",
    "not robust": "**Not robust at r**: the exact radius is below it, with error probability at most α.",
    "undecided": "**Undecided**: the exact radius is too close to r for so few samples.",
    None: "**Undecided yet**: the sampling was stopped.",
}
PROVISIONAL = "provisional: it becomes a certificate when all samples are in"

st.title("Certify an image")
st.markdown(
    "Bring an image, a handwritten digit for a start. The network votes on thousands of noisy copies of it; the votes prove, with an error "
    "probability of at most α, how far the image may be changed before the answer can change."
)


def choose_run() -> Run | None:
    """A finished run of the store that has weights."""
    runs = queries.runs()
    trained = runs[runs.source == "trained"]
    trained = trained[~trained.weights_of.fillna(trained.run_id).duplicated()]  # one network, several certifications
    if trained.empty:
        return None
    trained = trained.sort_values(
        ["dataset", "method"], key=lambda c: c.map(lambda v: (v not in ("mnist", "consistency"), v))
    )
    words = run_labels(trained)
    labels = {run.run_id: f"{run.dataset}: {words[run.run_id]}" for run in trained.itertuples()}
    chosen = st.selectbox(
        "Model", list(labels), format_func=labels.get, key="model", bind="query-params",
        help="The network of a finished run. The noise level σ belongs to it: it was trained for that much noise.",
    )  # fmt: skip
    return Run(trained.set_index("run_id").folder[chosen])


def choose_image(dataset: str) -> Seen | None:
    """What the network is to see, from an upload or a sample."""
    samples = sorted((PRECOMPUTED / "samples" / dataset).glob("*.png"))
    ways = ["Sample", "Upload"] if samples else ["Upload"]
    way = st.segmented_control("Image", ways, default=ways[0], required=True, key=f"way {len(ways)}")
    if way == "Sample":
        path = st.pills(
            "A test image of class", samples, default=samples[0], required=True,
            format_func=lambda path: path.name.split("-")[0], key=f"sample {dataset}",
        )  # fmt: skip
        return converted(path.read_bytes(), dataset, "no")
    file = st.file_uploader(
        "PNG, JPEG, WebP, BMP, GIF or TIFF", type=[*map(str.lower, FORMATS), "jpg", "tif"],
        max_upload_size=MAX_BYTES // 2**20, key="upload",
    )  # fmt: skip
    invert = "no"
    if find_dataset(dataset).ink is not None:
        invert = st.segmented_control(
            "Invert", INVERSIONS, default="auto", required=True, key="invert",
            help="The networks know light on black. `auto` inverts an image whose border is light, as paper is.",
        )  # fmt: skip
    if file is None:
        return None
    try:
        return converted(file.getvalue(), dataset, invert)
    except ImageError as error:
        st.error(str(error), icon=":material/broken_image:")
        return None


@st.cache_data(max_entries=64, show_spinner=False)
def converted(content: bytes, dataset: str, invert: str) -> Seen:
    """`see` of a file's bytes, once per file and not at every rerun."""
    return see(decode(content), find_dataset(dataset), invert)


def show_seen(seen: Seen, scale: int) -> None:
    """The pixels, enlarged without smoothing, and how they came about."""
    pixels = seen.pixels.transpose(1, 2, 0).astype(np.float32) * (255 / scale)  # (H, W, C)
    enlarged = pixels.repeat(factor := max(1, 224 // len(pixels)), 0).repeat(factor, 1).astype(np.uint8)
    left, right = st.columns([1, 1.2])
    left.image(enlarged.squeeze(), caption="What the network sees", width=224, alt="the converted image, enlarged")
    right.markdown("\n".join(f"1. {step}" for step in seen.steps))


def choose_settings() -> Certification:
    """How to sample: mode, n, and what the mode asks for."""
    mode = st.segmented_control(
        "Mode", list(MODES), default="anytime", required=True, format_func=MODES.get, key="mode", bind="query-params",
        help="*any time*: the radius shown is a certificate at every moment; stop when you are satisfied. *fixed n*: one "
        "look at the end, as in the papers; a little more radius at the same n. *robust at r?*: a yes or no, often "
        "after a few hundred samples.",
    )  # fmt: skip
    radius = None
    if mode == "at-radius":
        radius = st.number_input("Radius r to decide about", 0.01, 10.0, 0.5, 0.05, key="radius", bind="query-params")
    n = st.select_slider(
        "Samples n" if mode == "fixed" else "Samples, at most", [1_000, 10_000, 100_000], value=10_000,
        format_func=lambda n: f"{n:,}", key="n", bind="query-params",
        help="More samples certify a larger radius, up to the ceiling σ Φ⁻¹(α^(1/n)), and take longer.",
    )  # fmt: skip
    return Certification(n=n, mode=mode, radius=radius)


def certify(run: Run, seen: Seen, settings: Certification) -> None:
    """Draw the samples, show what they say meanwhile, and keep the result in the session."""
    from backend.live import Session  # torch is loaded only for those who certify

    place = st.empty()
    place.info("Loading the network…", icon=":material/hourglass_top:")
    session = Session(run, seen.pixels, settings)
    if session.others_first():
        place.info("Others are certifying; yours begins when one of them is through.", icon=":material/hourglass_top:")
    classes = find_dataset(run.spec.dataset).classes
    start = time.monotonic()
    drawn = 0.0
    with closing(session.watch()) as looks:  # a turn is given back at once when the visitor stops
        for look in looks:
            if look.at_look:  # kept in case of Stop
                st.session_state.certificate = session.certificate(look, seen.steps)
            now = time.monotonic()
            if now - drawn > 0.3 and not look.stop:
                drawn = now
                left = (now - start) / look.done * (settings.n - look.done)
                standing = PROVISIONAL
                if look.certified:
                    standing = "certified: stop when it is enough" if look.predict >= 0 else "no certificate yet"
                with place.container():
                    st.progress(
                        look.done / settings.n, f"{look.done:,} of {settings.n:,} samples, {left:.0f} s left at most"
                    )
                    st.markdown(f"So far **{classes[look.top]}**, radius {round_down(look.radius)} — {standing}.")
                    st.plotly_chart(votes(look.counts, classes, look.top, look.p_lower), alt="votes so far")
    place.empty()


def show_certificate(certificate: dict) -> None:
    """The answer, what it rests on, and the download."""
    counts, classes = certificate["counts"], certificate["classes"]
    top = classes.index(certificate["selected"])
    share = counts[top] / certificate["samples"]
    if certificate["mode"] == "at-radius":
        st.info(f"{DECISIONS[certificate['stop']]} (r = {certificate['target']:g})", icon=":material/gavel:")
    if certificate["abstained"]:
        st.warning(
            f"**No certificate.** Of {certificate['samples']:,} noisy copies {share:.1%} were taken for "
            f"{certificate['selected']}: with an error probability of α = {certificate['alpha']:g} that proves only "
            f"p ≥ {round_down(certificate['p_lower'])}, and a radius needs more than ½. More samples help if the share "
            "is above ½; else this network is not sure at this much noise.",
            icon=":material/do_not_disturb_on:",
        )
    else:
        left, middle, right = st.columns(3)
        left.metric("Class", certificate["class"])
        middle.metric("Certified ℓ2 radius", round_down(certificate["radius"]), help="rounded down; pixels in [0, 1]")
        right.metric(
            "p_A at least", round_down(certificate["p_lower"]), help="lower bound of the class's share of votes"
        )
        st.markdown(
            f"Every change of these pixels with an ℓ2 norm below **{round_down(certificate['radius'])}** leaves the "
            f"smoothed classifier's answer at **{certificate['class']}**, with probability at least "
            f"{1 - certificate['alpha']:g} over the noise that was drawn."
        )
    st.plotly_chart(votes(counts, classes, top, certificate["p_lower"]), alt="votes per class")
    st.caption(
        f"{counts[top]:,} of {certificate['samples']:,} votes for the class that n0 = {certificate['n0']:,} other samples "
        f"selected; σ = {certificate['sigma']:g}, α = {certificate['alpha']:g}, {BOUNDS[certificate['mode']]} (orange line). "
        "The radius speaks of the image as the network sees it, and of this network; it does not say that the answer is right."
    )
    st.download_button(
        "Download the certificate (JSON)", json.dumps(certificate, indent=1), "certificate.json", "application/json",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def round_down(value: float) -> str:
    """Three decimals, never rounded up."""
    return f"{floor(value * 1000) / 1000:.3f}"


left, right = st.columns([1, 1.1], gap="large")
with left:
    try:
        run = choose_run()
    except RunError as error:
        st.error(f"{error}. `python -m backend publish` brings the list of models up to date.")
        st.stop()
    if run is None:
        st.info("There is no trained network yet. Start a run on the **Runs** page.", icon=":material/model_training:")
        st.stop()
    dataset = run.spec.dataset
    try:
        find_dataset(dataset)
    except DatasetError as error:
        st.info(f"The images of this model's data set are not on this machine: {error}", icon=":material/folder_off:")
        st.stop()
    seen = choose_image(dataset)
    if seen:
        show_seen(seen, find_dataset(dataset).scale)
    settings = choose_settings()
with right:
    chosen = (run.run_id, (seen.pixels.tobytes(), seen.steps) if seen else None, settings)
    if st.session_state.get("certified") != chosen:
        st.session_state.pop("certificate", None)  # of another image, model or n
    pressed = st.button("Certify", type="primary", disabled=seen is None, icon=":material/verified:")
    if seen is None:
        st.caption("Upload an image or take a sample first.")
    if pressed:
        st.session_state.certified = chosen
        st.session_state.pop("certificate", None)  # of an earlier press
        kept = "the radius shown stays certified" if settings.mode != "fixed" else "nothing is certified then"
        st.button("Stop", help=f"Ends the sampling; {kept}.")
        try:
            certify(run, seen, settings)
        except (RunError, ValueError, RuntimeError) as error:
            st.error(f"This model cannot certify the image: {error}")
        else:
            st.rerun()
    if "certificate" in st.session_state:
        show_certificate(st.session_state.certificate)
