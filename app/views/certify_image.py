"""Certify an image: bring one, watch the votes arrive, see what the radius means, take the certificate home."""

import time
from contextlib import closing
from itertools import cycle

import pandas as pd
import streamlit as st

from app.figures.bounds import Track, bounds
from app.figures.palette import COLOURS, colour, run_labels
from app.figures.rounding import round_down
from app.figures.votes import votes
from app.widgets.attempt import plain
from app.widgets.bring_image import bring_image, show_seen
from app.widgets.certificates import check_a_certificate, show_certificate, show_side_by_side, show_votes
from app.widgets.closer_look import show_attack, show_ball, show_copies
from app.widgets.figure import draw_alone
from app.widgets.run_choice import choose_dataset, choose_runs, choose_step, tell_absent, tell_unfit
from backend.datasets import DatasetError, find_dataset
from backend.images import Seen
from backend.plan import reach
from backend.run import Run, RunError
from backend.spec import Certification, SpecError
from backend.store import queries
from backend.store.snapshot import mark

MODES = {"anytime": "any time", "fixed": "fixed n", "at-radius": "robust at r?"}
PROVISIONAL = "provisional: it becomes a certificate when all samples are in"
MOST_MODELS, COPIES, NS = 4, 8, (1_000, 10_000, 100_000)

st.title("Certify an image")
st.markdown(
    "Bring an image, a handwritten digit or a garment for a start. The network votes on thousands of noisy copies of it; the votes prove, with an error "
    "probability of at most α, how far the image may be changed before the answer can change."
)


@st.cache_data(max_entries=8, ttl=60, show_spinner=False)
def models(snapshot: tuple) -> pd.DataFrame:
    """The runs of the store that have weights, one a network, the paper's first. snapshot: what names this state of the store."""
    runs = queries.runs()
    if runs.empty:
        return runs
    trained = runs[[run.source != "published" and Run(run.folder).weights_file.exists() for run in runs.itertuples()]]
    network = trained[["dataset", "architecture", "sigma"]].assign(of=trained.weights_of.fillna(trained.run_id))
    trained = trained[~network.duplicated()]  # one network, several certifications
    return trained.sort_values(
        ["dataset", "method"], key=lambda c: c.map(lambda v: (v not in ("mnist", "consistency"), v))
    )


def choose_models() -> tuple[str, dict[str, Run], dict[str, str]] | None:
    """A data set, up to four networks of it and their names, {run_id: …}; None where the store has none. Raises RunError for a folder that is gone."""
    known = models(mark())
    if known.empty:
        return None
    dataset = choose_dataset(st, list(known.dataset.unique()), "networks with weights")
    known = known[known.dataset == dataset]
    labels = run_labels(known)
    chosen = choose_runs(
        st, f"Models, at most {MOST_MODELS}", labels, list(labels)[:1], "model", {}, max_selections=MOST_MODELS, placeholder="Choose a network",
        help="Networks of finished runs; several are certified side by side. The noise level σ belongs to a network: it was trained "
        "for that much noise.", wrap=True,
    )  # fmt: skip
    folders = known.set_index("run_id").folder
    runs = {run_id: Run(folders[run_id]) for run_id in chosen}
    for run in runs.values():
        _ = run.spec  # of a folder that is gone RunError, here
    return dataset, runs, run_labels(known[known.run_id.isin(chosen)])


def choose_settings() -> Certification | None:
    """How to sample: mode, n, and what the mode asks for; None, with a sentence, where that cannot be."""
    mode = st.segmented_control(
        "Mode", list(MODES), default="anytime", required=True, format_func=MODES.get, key="mode", bind="query-params", **tell_absent("mode", "the mode", list(MODES.values()), ""),
        help="*any time*: the radius shown is a certificate at every moment; stop when you are satisfied. *fixed n*: one "
        "look at the end, as in the papers; a little more radius at the same n. *robust at r?*: a yes or no, often "
        "after a few hundred samples.",
    )  # fmt: skip
    radius = None
    with st.container():  # `run_choice` says why
        if mode == "at-radius":
            # Not bounded: of what is out of bounds Streamlit would keep the value before.
            radius = st.number_input(
                "Radius r to decide about", value=0.5, step=0.05, key="radius", **tell_unfit("radius")
            )  # fmt: skip
    n = choose_step(
        st, "Samples n" if mode == "fixed" else "Samples, at most", NS, 10_000, "n", "n =", "{:,}".format,
        help="More samples certify a larger radius, up to the ceiling σ Φ⁻¹(α^(1/n)), and take longer.",
    )  # fmt: skip
    try:
        return Certification(n=n, mode=mode, radius=radius)
    except SpecError as error:
        st.error(str(error))
        return None


def tell_out_of_reach(runs: dict[str, Run], labels: dict[str, str], settings: Certification) -> None:
    """Say at which networks the radius that is asked about can be denied, and never certified."""
    for run_id, run in runs.items():
        if (most := reach(settings, run.spec.sigma, run.spec.dataset)) < settings.radius:
            st.warning(
                f"{labels[run_id]}: {settings.n:,} samples certify a radius of at most {round_down(most)} at σ = {run.spec.sigma:g}, even "
                "where all agree. The answer can be *not robust*, never *robust*: take more samples or a smaller radius.",
                icon=":material/vertical_align_top:",
            )


def new_tracks(runs: dict[str, Run], labels: dict[str, str]) -> dict[str, Track]:
    """An empty track a network, in its method's colour; a second network of a method takes one that no other has."""
    methods = {run_id: run.spec.method for run_id, run in runs.items()}
    spare = cycle(shade for shade in COLOURS.values() if shade not in map(colour, methods.values()))
    used, tracks = set(), {}
    for run_id, method in methods.items():
        shade = colour(method) if method not in used else next(spare)
        used.add(method)
        tracks[run_id] = Track(labels[run_id], shade)
    return tracks


def certify(runs: dict[str, Run], labels: dict[str, str], seen: Seen, settings: Certification) -> None:
    """Draw the samples, show what they say meanwhile, and keep the results in the session."""
    place, below = st.empty(), st.empty()
    place.info("Loading the network…", icon=":material/hourglass_top:")
    # Here, since it loads torch, which takes seconds: only for those who certify, and when they know what they wait for.
    from backend.live import Session, others_first, watch_together

    sessions = {run_id: Session(run, seen.pixels, settings) for run_id, run in runs.items()}
    st.session_state.copies = {run_id: session.noisy_copies(COPIES) for run_id, session in sessions.items()}
    tracks = st.session_state.tracks = new_tracks(runs, labels)
    if others_first():
        place.info("Others are certifying; yours begins when one of them is through.", icon=":material/hourglass_top:")
    names, latest = list(runs), {}
    start, drawn, looks_drawn = time.monotonic(), 0.0, 0
    with closing(watch_together(list(sessions.values()))) as looks:  # the turn is given back when the visitor stops
        for position, look in looks:
            run_id = names[position]
            latest[run_id] = look
            if look.at_look:  # kept in case of Stop
                st.session_state.certificates[run_id] = sessions[run_id].certificate(look, seen.steps)
                tracks[run_id].add(look.done, look.radius, look.radius_upper)
            now = time.monotonic()
            if now - drawn > 0.3 and not all(a.stop for a in latest.values()):
                drawn = now
                with place.container():
                    show_progress(latest, labels, now - start, settings, len(runs), runs[run_id].spec.dataset)
                if looks_drawn < (taken := sum(len(track.samples) for track in tracks.values())):
                    looks_drawn = taken
                    with below.container():
                        show_tracks(settings)


def show_progress(latest, labels, seconds: float, settings: Certification, models: int, dataset: str) -> None:
    """How far the sampling is, {run_id: Look}, and what it says so far."""
    classes = find_dataset(dataset).classes
    done, stopped = (sum(look.done for look in latest.values()), sum(bool(look.stop) for look in latest.values()))
    wanted = sum(look.done if look.stop else settings.n for look in latest.values()) + settings.n * (
        models - len(latest)
    )
    st.progress(
        done / wanted, f"{done:,} of {wanted:,} samples, {seconds / done * (wanted - done):.0f} s left at most"
        + (f", {stopped} of {models} networks through" if models > 1 else ""),
    )  # fmt: skip
    for run_id, look in latest.items():
        standing = PROVISIONAL
        if look.certified:
            standing = "certified: stop when it is enough" if look.predict >= 0 else "no certificate yet"
        named = f" ({labels[run_id]})" if models > 1 else ""
        st.markdown(f"So far **{plain(classes[look.top])}**, radius {round_down(look.radius)} — {standing}.{named}")
    if models == 1:
        draw_alone(votes(look.counts, classes, look.top, look.p_lower), "votes so far")


def show_tracks(settings: Certification) -> None:
    """Lower and upper bounds against samples, where a mode looks more than once."""
    tracks = [track for track in st.session_state.tracks.values() if track.samples]
    if settings.mode == "fixed" or not tracks:
        return
    draw_alone(bounds(tracks, settings.n, settings.radius), "bounds of the radius against samples")
    st.caption(
        "Solid: certified, at least. Dotted: what more samples could still certify, at most (none as long as every vote is for one class). "
        f"All solid bounds of a network hold at once with probability 1 − α, so do the dotted ones, of which the least so far is drawn; α = {settings.alpha:g}."
    )


def show_results(runs: dict[str, Run], labels: dict[str, str], settings: Certification) -> str:
    """The certificates, and the network that the closer look is of."""
    certificates = {run_id: c for run_id, c in st.session_state.certificates.items() if run_id in runs}
    if len(runs) == 1:
        (run_id,) = certificates
        show_certificate(certificates[run_id])
        show_tracks(settings)
        return run_id
    show_side_by_side(certificates, labels)
    show_tracks(settings)
    run_id = st.pills(
        "A closer look at", list(certificates), default=next(iter(certificates)), required=True,
        format_func=lambda run_id: labels.get(run_id, run_id), key="closer", wrap=True,
    )  # fmt: skip
    show_votes(certificates[run_id])
    return run_id


left, right = st.columns([1, 1.1], gap="large")
with left:
    with st.container():
        try:
            choice = choose_models()
        except RunError as error:
            st.error(f"{error}. `python -m backend publish` brings the list of models up to date.")
            st.stop()
        if choice is None:
            st.info(
                "There is no trained network yet. Start a run on the **Runs** page.", icon=":material/model_training:"
            )
            st.stop()
        dataset, runs, labels = choice
        if not runs:
            st.info("Choose a model, or several to compare.", icon=":material/model_training:")
        try:
            data = find_dataset(dataset)
        except DatasetError as error:
            st.info(f"The images of this data set are not on this machine: {error}", icon=":material/folder_off:")
            st.stop()
    with st.container():
        seen = bring_image(data.name)
        if seen:
            show_seen(seen, data.scale)
    settings = choose_settings()
    if settings and settings.radius is not None:
        tell_out_of_reach(runs, labels, settings)
closer = None
with right:
    chosen = (tuple(runs), (seen.pixels.tobytes(), seen.steps) if seen else None, settings)
    if st.session_state.get("certified") != chosen:
        st.session_state.certificates = {}  # of another image, model or n
    ready = runs and seen is not None and settings is not None
    pressed = st.button("Certify", type="primary", disabled=not ready, icon=":material/verified:")
    if seen is None:
        st.caption("Bring an image first: take a sample, upload, draw or paste one.")
    if pressed:
        st.session_state.certified = chosen
        st.session_state.update(certificates={}, attacks={}, presses={})  # those are of an earlier press
        kept = "the radius shown stays certified" if settings.mode != "fixed" else "nothing is certified then"
        st.button("Stop", help=f"Ends the sampling; {kept}.")
        try:
            certify(runs, labels, seen, settings)
        except (RunError, ValueError, RuntimeError) as error:
            st.error(f"This model cannot certify the image: {plain(str(error))}")
        else:
            st.rerun()
    if st.session_state.certificates:
        closer = show_results(runs, labels, settings)
if closer:
    certificate = st.session_state.certificates[closer]
    show_copies(*st.session_state.copies[closer], certificate)
    if not certificate["abstained"]:
        other = st.session_state.attacks.get(closer)
        first, second = st.columns(2, gap="large")
        with first:
            show_ball(seen, certificate, other.pixels.numpy() if other else None)
        with second:
            show_attack(runs[closer], seen, certificate, settings)
with st.expander("Check a certificate", icon=":material/fact_check:"):
    check_a_certificate()
