"""A run: what it is, what came out, what it rests on, and the command that repeats it."""

import contextlib
import shlex
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from app.figures.palette import title
from app.figures.training import losses
from app.widgets.attempt import plain, tell
from app.widgets.certification import certification_inputs
from app.widgets.deletion import ask_and_delete
from app.widgets.figure import draw
from app.widgets.glossary import TERMS
from app.widgets.job import ICONS, buttons, log, run_link, status
from app.widgets.outcome import results
from app.widgets.run_facts import circumstances, settings
from app.widgets.start import start_button
from backend.datasets import DatasetError, find_dataset
from backend.files import place_of
from backend.home import PRECOMPUTED, imported_root, read_only, runs_root
from backend.overview import DAMAGED, Listed, listed, listing
from backend.plan import certify_again, command
from backend.recipes import recipe_in_words
from backend.run import Run, RunError, find_run
from backend.spec import Certification, RunSpec, SpecError
from backend.store import queries
from backend.store.snapshot import StoreError
from backend.transport import pack

PLACES = {runs_root(): "of this machine", imported_root(): "imported", PRECOMPUTED: "shipped with Certscope"}
ACTIVE = ("queued", "running")


def asked_for() -> tuple[Run, RunSpec] | None:
    """The run that the address names; else a sentence, and None."""
    run_id = st.query_params.get("run", "")
    try:
        run = find_run(run_id, *PLACES)
        return run, run.spec
    except SpecError:
        said = "The address of this page ends with `?run=` and the id of a run" + ("; this is none." if run_id else ".")
    except RunError:
        if st.session_state.pop("deleted", False):
            to_the_list()
        said = f"There is no run {plain(run_id)} here, or its folder cannot be read: it may have been deleted."
    st.title("Run")
    st.info(
        f"{said} The page **Runs** lists those of this machine, and the shipped and imported ones.",
        icon=":material/search_off:",
    )
    if st.button("Runs", icon=":material/play_circle:"):
        to_the_list()
    return None


def to_the_list() -> None:
    """Go to the page Runs."""
    with contextlib.suppress(StreamlitPageNotFoundError):  # drawn alone, without the navigation of main.py
        st.switch_page("views/runs.py")


@contextlib.contextmanager
def readable():
    """What cannot be read in a folder is said; the rest of the page stands."""
    try:
        yield
    except (RunError, OSError) as error:
        st.error(plain(str(error)), icon=":material/broken_image:")


@st.fragment(run_every=2)
def watch(run: Run) -> None:
    """A run that is not at its end: how far it is. Draws the whole page anew when it is."""
    one = listed(run.path)
    if one is None or (one.name not in ACTIVE and (one.name != "finished" or is_kept(run))):
        st.rerun()
    with readable():
        status(one)
    if one.name == "finished":
        st.caption(
            "Finished; its results are on their way into the store. A run that cannot be read, or claims more than its counts support, is left out of it: `python -m backend publish` says why."
        )
    with readable():
        training(run)
    tell()


def is_kept(run: Run) -> bool:
    """Whether the store has the results of this very folder: another one, of a root that comes after, may hold the same run."""
    try:
        return str(run.path) in set(queries.run(run.run_id).folder)
    except StoreError:  # there is none yet
        return False


def training(run: Run) -> None:
    """Loss curves."""
    rows = run.epochs()
    if not rows:
        st.caption(
            "No epoch was trained here."
            if run.spec.weights_of or run.spec.source != "trained"
            else "No epoch is done yet."
        )
        return
    draw(losses(rows), "training", "loss terms and accuracy under noise per epoch", pd.DataFrame(rows))
    st.caption(f"*Accuracy under noise*. {TERMS['accuracy under noise']}")


def repeat(run: Run, spec: RunSpec) -> None:
    try:
        words = shlex.join(["python", "-m", "backend", *command(spec)])
    except (SpecError, DatasetError) as error:
        st.caption(f"No command repeats it: {error}")
        return
    st.code(words, language="bash", wrap_lines=True)
    st.caption(
        "Equal settings are one run: where it is finished already, the command says so. Another device or number of threads may move the last digits."
    )
    if spec.source == "brought" and run.weights_file.exists():
        st.caption("The file is what **Weights** above downloads, under any name.")


def without_weights(run: Run) -> str:
    if run.path.parent == PRECOMPUTED:
        return (
            "Its weights are not shipped with Certscope: those of one network a method and σ are, the one trained longest. The command "
            "above trains them again."
        )
    if run.spec.source == "brought":
        return "Its weights are gone. The command above puts them back, from their file."
    return "It has no weights yet."


def again(run: Run, spec: RunSpec) -> None:
    """Certify the same weights in another way."""
    if not run.weights_file.exists():
        st.caption(without_weights(run))
        return
    try:
        dataset = find_dataset(spec.dataset)
        start = spec.certification or Certification(every=dataset.every)
        chosen, precision = certification_inputs(dataset, start, spec.precision, "again")
        other = certify_again(spec, run.run_id, chosen, precision)
    except (SpecError, DatasetError) as error:
        st.error(f"It cannot be certified like this: {error}")
        return
    if (chosen, precision) == (spec.certification, spec.precision):
        st.caption("These are the settings that it was certified with. Change one of them.")
        return
    start_button([other], "Certify these weights", "again start")


def of_these_weights(run: Run) -> list[Listed]:
    """The other runs of this machine that certify the weights of this one."""
    whole = [one for one in listing(runs_root()) if one.name != DAMAGED and one.run.run_id != run.run_id]
    return [one for one in whole if one.run.spec.weights_of == run.network and one.run.spec.certification]


def certified_again(run: Run, active: bool) -> None:
    """Those runs, with how far they are. active: some were on their way when the page was drawn; at their end it is drawn anew."""
    others = of_these_weights(run)
    if active and not any(one.name in ACTIVE for one in others):
        st.rerun()
    for one in others:
        settings = one.run.spec.certification
        words = f"n = {settings.n:,}, n0 = {settings.n0:,}, α = {settings.alpha:g}, {settings.label}, {settings.image_set}, {one.run.spec.precision}"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"{ICONS[one.name]} **{one.name}**: {words}", width="content")
            run_link(one.run.run_id)
        if one.name in ACTIVE:
            with readable():
                status(one)


def downloads(one: Listed, spec: RunSpec) -> None:
    run = one.run
    st.download_button(
        "Settings", spec.to_json(), f"{run.run_id}.json", "application/json", type="tertiary",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip
    for label, file in (("Certificates", run.certificates_file), ("Weights", run.weights_file)):
        there = place_of(file)
        if there.exists() and there.resolve().parent == run.path.resolve():  # no link to somewhere else
            st.download_button(
                label, partial(run.content, file), f"{run.run_id}-{file.name}", type="tertiary", icon=":material/download:",
                on_click="ignore",
            )  # fmt: skip
    if one.name == "finished" and not any(file.is_symlink() for file in run.portable()):
        st.download_button(
            "Whole run", lambda: packed(run), f"{run.run_id}.tar", "application/x-tar", type="tertiary", icon=":material/folder:",
            on_click="ignore", help="For another Certscope: `python -m backend precompute --unpack FILE` takes it in there.",
        )  # fmt: skip


def printed(run: Run) -> None:
    """What it printed last."""
    if run.log_file.exists():
        st.header("Log")
        with readable():
            log(run, 30)


def packed(run: Run) -> bytes:
    """Its folder as one file."""
    with TemporaryDirectory() as folder:
        out = Path(folder, "run.tar")
        pack([run], out)
        return out.read_bytes()


if (found := asked_for()) is None:
    tell()
    st.stop()
if "clone" in st.session_state:
    to_the_list()
run, spec = found
one = listed(run.path)
lam = f", λ = {spec.hyper['lam']:g}" if "lam" in spec.hyper else ""
st.title(f"{title(spec.method)}, σ = {spec.sigma:g}{lam}")
st.markdown(
    f"{ICONS[one.name]} **{one.name}**, {PLACES[run.path.parent]}, on {spec.dataset} with {spec.architecture}, seed {spec.seed}"
    + (f", recipe {recipe_in_words(spec)} ({spec.recipe.epochs} epochs)" if spec.source == "trained" else "")
    + (", with weights that were trained elsewhere" if spec.source == "brought" else "")
    + f". `{run.run_id}`"
)
with st.container(horizontal=True, gap="small"):
    buttons(one)
    downloads(one, spec)
ask_and_delete()
if one.name in ACTIVE or (one.name == "finished" and run.path.parent == runs_root() and not is_kept(run)):
    watch(run)
else:
    with readable():
        status(one)
    if one.name == "finished":
        results(run.run_id, spec)
    st.header("Training")
    with readable():
        training(run)
st.header("The command that repeats it")
repeat(run, spec)
if not read_only() and spec.source != "published":
    with st.expander("Certify these weights again, in another way", icon=":material/verified:"):
        again(run, spec)
if others := of_these_weights(run):
    st.header("These weights, certified again")
    active = any(one.name in ACTIVE for one in others)
    st.fragment(certified_again, run_every=2 if active else None)(run, active)
left, right = st.columns(2)
with left:
    st.header("Settings")
    settings(spec)
with right:
    st.header("Environment")
    with readable():
        circumstances(run)
st.fragment(printed, run_every=2 if one.name in ACTIVE else None)(run)
tell()
