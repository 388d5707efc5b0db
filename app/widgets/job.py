"""A run as it stands: its state, how far it is, and the buttons for it."""

import functools

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from app.figures.training import losses
from app.widgets.attempt import attempt, plain
from app.widgets.figure import draw_alone
from backend.datasets import DatasetError, find_dataset
from backend.home import read_only, runs_root
from backend.jobs import local
from backend.overview import DAMAGED, Listed, progress, tail
from backend.process import is_here
from backend.progress import duration
from backend.run import Run

ICONS = {
    "queued": ":material/schedule:", "running": ":material/play_circle:", "finished": ":material/check_circle:",
    "failed": ":material/error:", "cancelled": ":material/cancel:", "interrupted": ":material/pause_circle:",
    DAMAGED: ":material/broken_image:",
}  # fmt: skip
ASKED = {"clone", "delete"}  # names in the session, with a run id: what a button wants of the whole page
STOPPED = ("failed", "cancelled", "interrupted")


def run_link(run_id: str) -> None:
    """A link to a run's own page."""
    try:
        st.page_link("views/run.py", label="Open", icon=":material/open_in_full:", query_params={"run": run_id})
    except StreamlitPageNotFoundError:  # a page that is drawn alone, without the navigation of main.py
        st.markdown(f"[Open](run?run={run_id})")


def buttons(one: Listed) -> None:
    """Cancel, retry or resume, clone, delete: those that this state allows, for runs of elsewhere the third alone.

    Nothing on a read-only server. Clone and delete are left in the session for the whole page: see ASKED.
    """
    if read_only():
        return
    run, name, ours = one.run, one.name, one.run.path.parent == runs_root()
    key = functools.partial("{1} {0}".format, run.run_id)
    # Of a folder that was copied in mid-run nobody knows before it is cancelled that it runs nowhere.
    if ours and (name == "queued" or (name == "running" and (one.state.get("queue") or not is_here(one.state)))):
        st.button("Cancel", key=key("cancel"), icon=":material/cancel:", type="tertiary", on_click=cancel, args=(run,))
    if ours and name in STOPPED:
        st.button(
            "Retry" if name == "failed" else "Resume", key=key("resume"), icon=":material/replay:", type="tertiary",
            on_click=resume, args=(run,), help="goes on from the last row that was written",
        )  # fmt: skip
    if name != DAMAGED:
        st.button(
            "Clone", key=key("clone"), icon=":material/content_copy:", type="tertiary", help="fills the form with its settings",
            on_click=st.session_state.update, args=({"clone": run.run_id},),
        )  # fmt: skip
    if ours and name not in ("queued", "running"):
        st.button(
            "Delete", key=key("delete"), icon=":material/delete:", type="tertiary", help="asks before it deletes",
            on_click=st.session_state.update, args=({"delete": run.run_id},),
        )  # fmt: skip


def cancel(run: Run) -> None:
    def act() -> str:
        local.cancel(run)
        return f"{run.run_id} is cancelled; what it has written stays."

    attempt(act, f"{run.run_id} was not cancelled")


def resume(run: Run) -> None:
    def act() -> str:
        local.resume(run)
        return f"{run.run_id} is {run.state()['state']}; it goes on from its last row."

    attempt(act, f"{run.run_id} was not resumed")


def status(one: Listed) -> None:
    """How far a run is, with rates and the time left; or what it ended with. Raises RunError where it cannot be read."""
    spec, so_far = one.run.spec, progress(one.run)
    if one.name == "finished":
        trained = f"{so_far.epochs} epochs" if so_far.of_epochs else f"weights of {spec.weights_of}"
        st.caption(f"{trained}, {so_far.images} images certified")
    elif so_far.images and so_far.of_images:
        share = min(1.0, so_far.images / so_far.of_images)
        st.progress(share, f"certifying: {so_far.images} of {so_far.of_images} images{_rates(one, so_far)}")
    elif so_far.of_epochs:
        share = min(1.0, so_far.epochs / so_far.of_epochs)
        st.progress(share, f"training: epoch {so_far.epochs} of {so_far.of_epochs}{_rates(one, so_far)}")
    if one.name == "running" and not one.state.get("queue"):
        copied = "" if is_here(one.state) else " Cancel ends it here where nobody works on this folder, as in a copy."
        st.caption(
            f"Started from the command line on {plain(str(one.state.get('host')))}; it is stopped there.{copied}"
        )
    if one.name in ("failed", DAMAGED):
        st.error(plain(str(one.state.get("error", "no reason was written"))))
    if so_far.missing_classes:
        st.warning(
            f"Training collapsed: under noise the network hardly ever answers {so_far.missing_classes} of "
            f"{_classes(spec.dataset)} classes. A smaller λ or σ, or more epochs, may help.",
            icon=":material/trending_down:",
        )


def _rates(one: Listed, so_far) -> str:
    if one.name != "running":
        return ""
    words = []
    if so_far.images and so_far.samples_per_second:
        words.append(f"{so_far.samples_per_second:,.0f} samples/s")
    elif so_far.loss is not None:
        words += [f"loss {so_far.loss:.3f}", f"{so_far.images_per_second:,.0f} images/s"]
    if so_far.seconds_left is not None:
        words.append(f"{duration(so_far.seconds_left)} left")
    return "".join(f", {word}" for word in words)


def _classes(dataset: str) -> str:
    try:
        return str(len(find_dataset(dataset).classes))
    except DatasetError:
        return "the"


def loss_curves(run: Run, key: str) -> None:
    """The loss terms and the accuracy under noise, if an epoch is there."""
    if rows := run.epochs():
        draw_alone(losses(rows), "loss terms and accuracy under noise per epoch", key)


def log(run: Run, lines: int = 12) -> None:
    """The end of what the run printed."""
    st.code("\n".join(tail(run.log_file)[-lines:]) or "no output yet", language=None)
