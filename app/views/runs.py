"""Runs: start training and certification, alone or as a grid; watch, stop, go on, clone, delete."""

import streamlit as st

from app.figures.palette import run_labels
from app.widgets.attempt import READ_ONLY, attempt, plain, say, tell
from app.widgets.deletion import ask_and_delete
from app.widgets.job import ASKED, ICONS, STOPPED, buttons, log, loss_curves, run_link, status
from app.widgets.launch import fill, launch_form
from app.widgets.run_choice import tell_absent
from backend.home import PRECOMPUTED, imported_root, read_only, runs_root
from backend.jobs import local
from backend.overview import Listed, counts, listing, stands_still
from backend.run import Run, RunError, find_run
from backend.spec import SpecError
from backend.store import queries

AT_ONCE = 10  # runs of a page of the list
FINISHED = "runs finished"  # as many as when the page was last drawn whole


def active(number: dict[str, int]) -> bool:
    """Whether anything runs or waits, by `counts`: then the list looks every two seconds, else every ten."""
    return bool(number.keys() & {"running", "queued"})


def jobs(was_active: bool) -> None:
    """The runs of this machine, a page of them at a time, with progress. was_active: when the page was last drawn whole."""
    if ASKED & set(st.session_state):
        st.rerun()
    everything = listing(runs_root())
    if active(counts(everything)) != was_active:
        st.rerun()
    if not everything:
        st.info(
            "Nothing was started here yet. " + ("" if read_only() else "The form above begins with a run on `digits`, which takes under a minute."),
            icon=":material/rocket_launch:",
        )  # fmt: skip
        return
    number = counts(everything)
    finished = number.get("finished", 0)
    if st.session_state[FINISHED] != finished:  # the form above estimates from what is finished
        st.rerun()
    st.markdown(" · ".join(f"{ICONS[name]} {count} {name}" for name, count in number.items()))
    with st.container(horizontal=True, vertical_alignment="center"):  # there or not: `run_choice` says why
        if stands_still(everything) and not read_only():
            st.markdown("No job has begun yet. Should this stay so (every worker was killed, or the disk is full):")
            st.button("Start the queue", on_click=go_on, icon=":material/play_arrow:")
    one, two = st.columns([3, 2], vertical_alignment="bottom")
    states = one.pills(
        "State", list(number), selection_mode="multi", key="state", bind="query-params", help="none chosen: all of them",
        **tell_absent("state", "the state", list(number)),
    )  # fmt: skip
    words = two.text_input("Find", key="find", bind="query-params", placeholder="words of the run id, e.g. macer s0.5")
    shown = [
        run
        for run in everything
        if (not states or run.name in states) and all(word in run.run.run_id for word in words.lower().split())
    ]
    with st.container():
        together(shown)
    pages = max(1, -(-len(shown) // AT_ONCE))
    page = st.pagination(pages, key="page", bind="query-params") if pages > 1 else 1
    if not shown:
        st.info("No run fits these filters.", icon=":material/filter_alt_off:")
    for run in shown[(page - 1) * AT_ONCE : page * AT_ONCE]:
        with st.container(border=True, key=f"job-{run.run.run_id}"):
            card(run)
    tell()


def together(shown: list[Listed]) -> None:
    """What can be done with many at once."""
    waiting = [one.run for one in shown if one.name == "queued"]
    stopped = [one.run for one in shown if one.name in STOPPED]
    if read_only() or max(len(waiting), len(stopped)) < 2:
        return
    with st.container(horizontal=True):
        if len(waiting) > 1:
            st.button(
                f"Cancel all {len(waiting)} queued", on_click=cancel_all, args=(waiting,), icon=":material/cancel:"
            )
        if len(stopped) > 1:
            st.button(
                f"Resume all {len(stopped)} stopped", on_click=resume_all, args=(stopped,), icon=":material/replay:"
            )


def go_on() -> None:
    attempt(lambda: local.start_worker() or "The queue is being worked on.", "The queue was not started")


def cancel_all(runs: list[Run]) -> None:
    """The last one first, so that none begins meanwhile; one that has begun goes on."""

    def act() -> str:
        cancelled = 0
        for run in reversed(runs):
            if run.state()["state"] == "queued":
                local.cancel(run)
                cancelled += 1
        return f"{cancelled} queued runs are cancelled."

    attempt(act, "Not all queued runs were cancelled")


def resume_all(runs: list[Run]) -> None:
    def act() -> str:
        others = local.enqueue(runs)
        left = f" Left as they are: {'; '.join(others)}." if others else ""
        return f"{len(runs) - len(others)} runs are in the queue again.{left}"

    attempt(act, "Not all were resumed")


def card(one: Listed) -> None:
    """One run: state, progress, what can be done."""
    head, actions = st.columns([3, 2], vertical_alignment="center")
    head.markdown(f"{ICONS[one.name]} **{one.run.run_id}** — {one.name}")
    # From the left: while a state changes, buttons come and go at the end, and those before them stay under the pointer.
    with actions, st.container(horizontal=True, vertical_alignment="center", gap="small"):
        run_link(one.run.run_id)
        buttons(one)
    try:
        status(one)
        if st.toggle("Loss and log", key=f"details {one.run.run_id}"):
            loss_curves(one.run, f"losses {one.run.run_id}")
            log(one.run)
    except (RunError, OSError) as error:
        st.error(plain(str(one.state.get("error") or error)))


def elsewhere() -> None:
    """The runs of the store that were not made here."""
    runs = queries.measured(queries.runs())
    runs = runs[~runs.folder.str.startswith(f"{runs_root()}/")]
    st.dataframe(
        runs.assign(run="/run?run=" + runs.run_id, what=runs.run_id.map(run_labels(runs)) if len(runs) else "")[["run", "what", "dataset", "architecture", "acr", "certified_accuracy_0", "sigma", "lam", "recipe", "source", "n", "images"]],
        hide_index=True, placeholder="–", alt="shipped and imported runs, with links to their pages",
        column_config={
            "run": st.column_config.LinkColumn("run", display_text=r"run=[^-]*-[^-]*-(.*)$", width="medium", pinned=True), "sigma": "σ", "lam": "λ",
            "dataset": "data set", "architecture": "network",
            "acr": st.column_config.NumberColumn("ACR", format="%.4f"),
            "certified_accuracy_0": st.column_config.NumberColumn("certified accuracy at 0", format="percent"),
        },
    )  # fmt: skip


st.session_state[FINISHED] = counts(listing(runs_root())).get("finished", 0)
st.title("Runs")
st.markdown(
    "What runs, waits and is finished on this machine."
    if read_only()
    else "Train a network and certify it. A run goes on when this page is closed, and one that was stopped resumes."
)
ask_and_delete()
st.session_state.pop("deleted", None)
if asked := st.session_state.pop("clone", None):
    try:
        left = fill(find_run(asked, runs_root(), imported_root(), PRECOMPUTED).spec)
        say(
            f"The form holds the settings of {asked}. Change what shall differ, then start. {left}",
            ":material/content_copy:",
        )
    except (RunError, SpecError) as error:
        say(f"{asked} cannot be cloned: {error}", ":material/error:")
if read_only():
    st.info(READ_ONLY, icon=":material/lock:")
else:
    with st.expander("New run", expanded=True, icon=":material/add:"):
        launch_form()
st.header("On this machine")
going = active(counts(listing(runs_root())))  # what was started above included
st.fragment(jobs, run_every=2 if going else 10)(going)
st.header("Shipped and imported")
elsewhere()
tell()
