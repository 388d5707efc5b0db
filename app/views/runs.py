"""Runs: start training and certification, watch it, stop it, go on with it."""

from dataclasses import fields
from subprocess import SubprocessError

import streamlit as st

from app.figures.palette import title
from app.figures.training import losses
from backend.datasets import DatasetError, dataset_names, find_dataset
from backend.home import runs_root
from backend.jobs import local
from backend.plan import plan, recipe_for, usual_values
from backend.run import EPOCH_COLUMNS, Run, RunError, all_runs
from backend.spec import RECIPES, Certification, SpecError
from backend.training.methods import METHODS

ICONS = {
    "queued": ":material/schedule:", "running": ":material/play_circle:", "finished": ":material/check_circle:",
    "failed": ":material/error:", "cancelled": ":material/cancel:", "interrupted": ":material/pause_circle:",
}  # fmt: skip
RECENT = 20


def hyper_inputs(method: str, dataset: str, sigma: float, recipe: str, epochs: int) -> dict:
    """One input per hyper-parameter of the method, with its range; the paper's value at this σ where there is one."""
    usual = usual_values(method, dataset, sigma, recipe, epochs)
    values = {}
    columns = st.columns(4)
    for place, f in enumerate(fields(METHODS[method])):
        column, default, meta = columns[place % 4], usual[f.name], f.metadata
        key = f"{method} {f.name} {dataset} {sigma} {recipe}" + (f" {epochs}" if meta["of_epochs"] else "")
        if meta["choices"]:
            values[f.name] = column.selectbox(
                f.name, meta["choices"], index=meta["choices"].index(default), help=meta["doc"], key=key
            )
        else:
            kind = type(f.default)
            values[f.name] = column.number_input(
                f.name, kind(meta["low"]), kind(meta["high"]), kind(default), kind(1), help=meta["doc"], key=key,
                format="%d" if kind is int else "%.4g",
            )  # fmt: skip
    return values


def launch_form() -> None:
    """Everything that a run needs, with defaults that finish soon."""
    one, two, three, four = st.columns(4)
    names = dataset_names()
    name = one.selectbox("Data set", names, index=names.index("digits"), key="launch dataset")
    try:
        dataset = find_dataset(name)
    except DatasetError as error:  # a folder of images that is not as it must be
        st.error(str(error))
        return
    one.caption(dataset.note)
    method = two.selectbox("Method", list(METHODS), format_func=title, key="launch method")
    two.caption(METHODS[method].paper)
    sigma = three.number_input(
        "Noise σ", 0.01, 10.0, 0.5, 0.25, help="sd of the Gaussian noise, images in [0, 1]", key="launch sigma"
    )
    seed = four.number_input(
        "Seed", 0, 2**31, 0, 1, help="Equal settings and seed give the same run.", key="launch seed"
    )
    one, two, three, four = st.columns(4)
    architecture = one.selectbox(
        "Network", dataset.architectures, key=f"launch network {name}",
        help="The command line takes every classification network of torchvision as well.",
    )  # fmt: skip
    recipe = two.selectbox(
        "Recipe", list(RECIPES), key="launch recipe",
        help="`quick`: cosine schedule, few epochs. `paper`: that of the paper's experiments (90 epochs on MNIST).",
    )  # fmt: skip
    epochs = three.number_input(
        "Epochs", 1, 1000, recipe_for(recipe, name).epochs, key=f"launch epochs {name} {recipe}"
    )
    values = hyper_inputs(method, name, sigma, recipe, epochs)
    one, two, three, four = st.columns(4)
    n = one.number_input(
        "Samples n", 1, 10_000_000, 10_000, help="for the bound; Cohen et al.: 100,000", key="launch n"
    )
    n0 = two.number_input("Samples n0", 1, 1_000_000, 100, help="that select the class", key="launch n0")
    alpha = three.number_input(
        "α", 1e-6, 0.5, 0.001, format="%g", help="probability that a certificate is wrong", key="launch alpha"
    )
    every = four.number_input(
        "Every …-th test image",
        1,
        10_000,
        dataset.every,
        help=f"of {dataset.test_images:,}",
        key=f"launch every {name}",
    )
    images = len(Certification(every=every).chosen(dataset.test_images))
    one, two, _, _ = st.columns(4)
    one.metric("Images", f"{images:,}", help="test images that will be certified")
    two.metric("Samples", f"{images * (n + n0):,}", help="noisy images that will pass through the network")
    if st.button("Start", type="primary", icon=":material/play_arrow:"):
        try:
            spec = plan(
                name, method, sigma, architecture=architecture, values=values, seed=seed, recipe=recipe, epochs=epochs,
                certification=Certification(n=n, n0=n0, alpha=float(alpha), every=every),
            )  # fmt: skip
            run = local.submit(spec)
        except (SpecError, RunError, DatasetError, SubprocessError) as error:
            st.error(f"This run was not started: {error}")
        except OSError as error:
            st.error(f"This run was not started: {error.strerror}: {error.filename}")
        else:
            state = run.state()["state"]
            st.toast(f"{run.run_id} is {state}" + (" already." if state == "finished" else "."))


@st.fragment(run_every=1.5)
def jobs() -> None:
    """The latest runs of this machine, with progress."""
    runs = sorted(
        all_runs(runs_root()), key=lambda run: run.state_file.stat().st_mtime if run.state_file.exists() else 0
    )
    if not runs:
        st.info(
            "Nothing was started here yet. The form above is set to a run on `digits`, which takes under a minute.",
            icon=":material/rocket_launch:",
        )
    for run in runs[: -RECENT - 1 : -1]:
        with st.container(border=True, key=f"job-{run.run_id}"):
            try:
                job(run)
            except (RunError, DatasetError, OSError, SubprocessError) as error:
                st.error(str(error))
    if len(runs) > RECENT:
        st.caption(f"The latest {RECENT} of {len(runs)} runs; `python -m backend runs` lists all that are finished.")


def job(run: Run) -> None:
    """One run: state, progress, what can be done."""
    spec, state = run.spec, run.state()
    name = state["state"]
    head, action = st.columns([5, 1], vertical_alignment="center")
    head.markdown(f"{ICONS[name]} **{run.run_id}** — {name}")
    ours = name == "queued" or (name == "running" and state.get("queue"))
    if ours and action.button("Cancel", key=f"cancel {run.run_id}", width="stretch"):
        local.cancel(run)
        st.rerun(scope="fragment")
    if name in ("failed", "cancelled", "interrupted") and action.button(
        "Resume", key=f"resume {run.run_id}", width="stretch", help="goes on from the last row"
    ):
        local.resume(run)
        st.rerun(scope="fragment")
    epochs, images = run.count()
    total = len(spec.certification.chosen(find_dataset(spec.dataset).test_images)) if spec.certification else 0
    if name == "finished":
        where = " Its results are on the **Trade-offs** page." if images else ""
        st.caption(f"{epochs} epochs, {images} images certified.{where}")
        if lost := _collapsed(run):
            st.warning(lost, icon=":material/trending_down:")
    elif images:
        st.progress(
            min(1.0, images / total), f"certifying: {images} of {total} images{_left(run, state, images, total)}"
        )
    elif spec.weights_of is None:
        st.progress(
            min(1.0, epochs / spec.recipe.epochs), f"training: epoch {epochs} of {spec.recipe.epochs}{_training(run)}"
        )
    if name == "failed":
        st.error(state.get("error", "no reason was written"))
    if st.toggle("Loss and log", key=f"details {run.run_id}"):
        if rows := run.epochs():
            st.plotly_chart(
                losses(rows, [column for column in rows[0] if column not in EPOCH_COLUMNS]),
                key=f"losses {run.run_id}", alt="loss terms and accuracy under noise per epoch",
            )  # fmt: skip
        st.code(_tail(run) or "no output yet", language=None)


def _collapsed(run: Run) -> str:
    """A sentence where the network gave up on classes by the end of training."""
    rows = run.epochs()
    missing = int(rows[-1].get("missing_classes", 0)) if rows else 0
    if not missing:
        return ""
    return (
        f"Training collapsed: under noise the network hardly ever answers {missing} of "
        f"{len(find_dataset(run.spec.dataset).classes)} classes. A smaller λ or σ, or more epochs, may help."
    )


def _training(run: Run) -> str:
    rows = run.epochs()
    if not rows:
        return ""
    last = rows[-1]
    left = (run.spec.recipe.epochs - last["epoch"]) * last["seconds"]
    return f", loss {last['loss']:.3f}, {last['images_per_second']:,.0f} images/s, {left:.0f} s left"


def _left(run: Run, state: dict, images: int, total: int) -> str:
    if state["state"] != "running":
        return ""
    seconds = sum(c.time for c in run.certificates()) / images
    return f", {run.spec.certification.n / seconds:,.0f} samples/s, {seconds * (total - images):.0f} s left"


def _tail(run: Run, lines: int = 12) -> str:
    if not run.log_file.exists():
        return ""
    with open(run.log_file, "rb") as file:
        file.seek(max(0, run.log_file.stat().st_size - 4096))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


st.title("Runs")
st.markdown("Train a network and certify it. A run goes on when this page is closed, and one that was stopped resumes.")
with st.expander("New run", expanded=True, icon=":material/add:"):
    launch_form()
st.subheader("On this machine")
jobs()
