"""What runs will cost, and the button that starts them."""

import streamlit as st

from app.widgets.attempt import attempt, plain
from app.widgets.job import run_link
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
    _metrics(specs, pending, cost)
    st.caption(" ".join(_about(specs, done, cost)))
    if not pending and len(specs) == 1:
        run_link(specs[0].run_id)
        return
    if len(specs) > 1:
        label += f" {len(pending)} runs" if len(pending) != 1 else " 1 run"
    if st.button(label, type="primary", icon=":material/play_arrow:", key=key, disabled=not pending):
        attempt(
            lambda: _start(specs, pending),
            "Not all of it was started" if len(specs) > 1 else "This run was not started",
        )


def _metrics(specs: list[RunSpec], pending: list[RunSpec], cost: Estimate) -> None:
    images, settings = images_of(specs[0]) or 0, specs[0].certification
    samples = len(pending) * images * (settings.n + settings.n0) if settings else 0
    early = bool(settings and settings.mode != "fixed")  # it may stop before n
    if not pending:
        time = "none"
    elif cost.seconds is None or (early and cost.missing):
        time = "not known"
    else:
        time = ("more than " if cost.missing else "about ") + duration(cost.seconds) + " or less" * early
    with st.container(horizontal=True, gap="large"):
        if len(specs) > 1:
            left = f"{len(pending):,} of " if len(pending) < len(specs) else ""
            st.metric(
                "Runs", f"{left}{len(specs):,}", width="content", help="to compute, of those that the form describes"
            )
        st.metric("Images", f"{images:,}", help="test images that a run certifies", width="content")
        st.metric(
            "Samples",
            f"{samples:,}",
            help=f"{'at most, ' if early else ''}of the runs to compute: noisy images to classify",
            width="content",
        )
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
    with st.spinner("Queueing …"):
        runs = local.submit(pending)
    if len(specs) == 1:
        return f"{runs[0].run_id} is {runs[0].state()['state']}."
    before = len(specs) - len(runs)
    return f"{len(runs)} runs are in the queue" + (f"; {before} were finished already." if before else ".")
