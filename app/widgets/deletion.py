"""Deleting a run, once more asked about."""

import streamlit as st

from app.widgets.attempt import attempt
from backend.home import runs_root
from backend.jobs.forget import forget, look
from backend.run import Run, RunError, find_run
from backend.spec import SpecError


def ask_and_delete() -> None:
    """Open the dialog for the run whose Delete was pressed, if one was. A page calls it once, outside its fragments."""
    if run_id := st.session_state.pop("delete", None):
        try:
            _dialog(find_run(run_id, runs_root()))
        except (RunError, SpecError) as error:
            st.error(f"This run is gone already: {error}")


@st.dialog("Delete this run?")
def _dialog(run: Run) -> None:
    """Say what goes, and delete it where that is wanted."""
    st.markdown(f"`{run.run_id}`")
    try:
        folder = look(run)
    except OSError as error:
        st.error(f"It cannot be read: {error.strerror}.")
        return
    st.markdown(
        f"Its folder goes with all {folder.files} files ({size(folder.size)}): settings, weights, certificates and log. "
        "It leaves every page of this dashboard. **This cannot be undone.**"
    )
    if folder.needed_by:
        st.warning(
            f"{len(folder.needed_by)} runs in the queue want its weights, and will fail: {folder.needed_by[0]}, …"
        )
    yes, no = st.columns(2)
    if yes.button("Delete for good", type="primary", icon=":material/delete:", width="stretch"):
        with st.spinner("Deleting …"):
            st.session_state["deleted"] = attempt(lambda: _delete(run), f"{run.run_id} was not deleted")
        st.rerun()
    if no.button("Keep it", width="stretch"):
        st.rerun()


def _delete(run: Run) -> str:
    forget([run])
    return f"{run.run_id} is deleted."


def size(count: int) -> str:
    """Bytes in a unit that suits."""
    return (
        f"{count:,} bytes" if count < 10_000 else f"{count / 1e3:,.0f} kB" if count < 1e7 else f"{count / 1e6:,.0f} MB"
    )
