"""Choosing runs, kept in the page's address by run id: their names in words change when the store gets another run."""

import streamlit as st


def choose_run(where, label: str, labels: dict[str, str], default: str, key: str, stands_for: dict[str, str]) -> str:
    """A selectbox of runs {run_id: words}; returns the id of the one that is chosen.

    stands_for: the one in labels by which another run is chosen: a group of seeds has the name of one of them.
    """
    wanted = [st.session_state.get(key), st.query_params.get(key), default]
    wanted = [stands_for.get(run_id, run_id) for run_id in wanted]
    st.session_state[key] = next(run_id for run_id in wanted if run_id in labels)
    return where.selectbox(label, list(labels), format_func=labels.get, key=key, on_change=_keep, args=(key,))


def choose_runs(
    where, label: str, labels: dict[str, str], default: list[str], key: str, stands_for: dict[str, str], **options
) -> list[str]:
    """A multiselect of runs {run_id: words}; returns the ids of those that are chosen, maybe none. stands_for: see `choose_run`."""
    wanted = st.session_state.get(key)
    if wanted is None:
        wanted = st.query_params.get_all(key)[: options.get("max_selections")] or default
    known = [run_id for run_id in dict.fromkeys(stands_for.get(i, i) for i in wanted) if run_id in labels]
    st.session_state[key] = known or (default if wanted else [])
    return where.multiselect(
        label, list(labels), format_func=labels.get, key=key, on_change=_keep, args=(key,), **options
    )


def _keep(key: str) -> None:
    st.query_params[key] = st.session_state[key]
