"""What runs will cost, and the button that starts them."""

import streamlit as st

from app.widgets.attempt import attempt, plain
from backend.estimate import Estimate, estimate, finished
from backend.jobs import local
from backend.overview import images_of
from backend.progress import duration
from backend.spec import RunSpec


def start_button(specs: list[RunSpec], label: str, key: str) -> None:
    """Say how many images, samples and how much time the runs want, and queue those that are not finished when it is pressed.

    specs: at least one, all with the same settings of certification. key: unique on the page.
    """
    done = finished(specs)
    pending = [spec for spec in specs if spec.run_id not in done]
    cost = estimate(pending)
    _metrics(specs, cost, bool(pending))
    st.caption(" ".join(_about(specs, done, cost)))
    if st.button(label, type="primary", icon=":material/play_arrow:", key=key):
        attempt(lambda: _start(specs, pending), "Nothing was started" if len(specs) > 1 else "This run was not started")


def _metrics(specs: list[RunSpec], cost: Estimate, pending: bool) -> None:
    images, settings = images_of(specs[0]) or 0, specs[0].certification
    samples = len(specs) * images * (settings.n + settings.n0) if settings else 0
    most = "at most, " if settings and settings.mode != "fixed" else ""
    if not pending:
        time = "none"
    elif cost.seconds is None:
        time = "not known"
    else:
        time = ("more than " if cost.missing else "about ") + duration(cost.seconds)
    with st.container(horizontal=True, gap="large"):
        if len(specs) > 1:
            st.metric("Runs", f"{len(specs):,}", width="content")
        st.metric("Images", f"{images:,}", help="test images that a run certifies", width="content")
        st.metric("Samples", f"{samples:,}", help=f"{most}of all runs: noisy images to classify", width="content")
        st.metric("Estimated time", time, width="content", help="of computing, one run after the other")


def _about(specs: list[RunSpec], done: set[str], cost: Estimate) -> list[str]:
    words = []
    if done:
        which = f"{len(done)} of the {len(specs)} runs" if len(specs) > 1 else specs[0].run_id
        words.append(f"Finished already, and not computed again: {which}.")
    if cost.basis:
        words.append(
            f"The time rests on {'; '.join(map(plain, cost.basis))}. The start of each run and waiting are not in it."
        )
    if cost.missing:
        shown = ", ".join(cost.missing[:4]) + (", …" if len(cost.missing) > 4 else "")
        words.append(f"No finished run tells yet how long this takes: {shown}.")
    return words


def _start(specs: list[RunSpec], pending: list[RunSpec]) -> str:
    if not pending:
        return (
            f"{specs[0].run_id} is finished already." if len(specs) == 1 else "All of these runs are finished already."
        )
    with st.spinner("Queueing …"):
        runs = local.submit(pending)
    if len(specs) == 1:
        return f"{runs[0].run_id} is {runs[0].state()['state']}."
    before = len(specs) - len(runs)
    return f"{len(runs)} runs are in the queue" + (f"; {before} were finished already." if before else ".")
