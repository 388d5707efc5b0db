"""Choosing a data set and runs, kept in the page's address: runs by their ids, for their names in words change when the store gets another run.

A widget that is bound to the address must not shift: where elements before it in its container come or go, Streamlit draws it in its new place before
it clears the old one, which then takes the binding with it. So what may be there or not has a place of its own, `st.empty` or a container.
"""

from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import Any

import streamlit as st

from app.widgets.attempt import plain


def choose_run(where, label: str, labels: dict[str, str], default: str, key: str, stands_for: dict[str, str]) -> str:
    """A selectbox of runs {run_id: words}; returns the id of the one that is chosen.

    stands_for: the one in labels by which another run is chosen: a group of seeds has the name of one of them.
    """
    wanted = [st.session_state.get(key), st.query_params.get(key), default]
    wanted = [stands_for.get(run_id, run_id) for run_id in wanted]
    st.session_state[key] = next(run_id for run_id in wanted if run_id in labels)
    _tell_missing(key, label, labels, stands_for)
    return where.selectbox(label, list(labels), **_kept(key, labels))


def choose_runs(
    where, label: str, labels: dict[str, str], default: list[str], key: str, stands_for: dict[str, str], **options
) -> list[str]:
    """A multiselect of runs {run_id: words}; returns the ids of those that are chosen, maybe none. stands_for: see `choose_run`."""
    wanted = st.session_state.get(key)
    if wanted is None:
        wanted = st.query_params.get_all(key)[: options.get("max_selections")] or default
    known = [run_id for run_id in dict.fromkeys(stands_for.get(i, i) for i in wanted) if run_id in labels]
    st.session_state[key] = known or (default if wanted else [])
    _tell_missing(key, label, labels, stands_for, options.get("max_selections"))
    return where.multiselect(label, list(labels), **_kept(key, labels), **options)


def choose_dataset(where, names: list[str], of: str = "runs", **options) -> str:
    """A selectbox of the data sets that have some `of`."""
    return where.selectbox(
        "Data set", names, key="dataset", bind="query-params", **tell_absent("dataset", "the data set", names, of), **options
    )  # fmt: skip


def choose_step(
    where, label: str, options: Sequence, value, key: str, what: str, words: Callable[[Any], str] = str, **more
):
    """A select slider that is kept in the address, of options in these words; returns the chosen one. what: see `tell_absent`."""
    return where.select_slider(
        label, options, value, words, key=key, bind="query-params", **tell_absent(key, what, list(map(words, options)), ""), **more
    )  # fmt: skip


def tell_absent(key: str, what: str, there: list[str], of: str = "runs") -> dict:
    """Say which values the link that led here asks for that a widget does not offer; its options by which that ends when the visitor chooses.

    there: as they stand in the address, which is as they are shown. of: what there is none of; "" where nothing is missing, and the link alone is wrong.
    """
    asked = _on_this_page(f"{key} asked of {of}")
    st.session_state.setdefault(asked, st.query_params.get_all(key))
    place = st.empty()
    if absent := [value for value in st.session_state[asked] if value and value not in there]:  # "": none chosen
        named = ", ".join(plain(value, 40) for value in absent[:4])
        reason = f"of which there are no {of} here" if of else f"and offered are {', '.join(map(plain, there))}"
        place.warning(
            f"The link asks for {what} {named}, {reason}. What is shown is another choice.",
            icon=":material/link_off:",
        )
    return {"on_change": st.session_state.update, "kwargs": {asked: []}}


def tell_unfit(key: str, low: float = -inf, high: float = inf, kind: type[int] | type[float] = float) -> dict:
    """Say which number the link that led here asks for that a widget from low to high cannot take; its options, which bind it to the
    address and end that when the visitor chooses. Asked once: what fits another choice of runs later is the visitor's own.
    """
    asked = _on_this_page(f"{key} asked")
    if asked not in st.session_state:
        st.session_state[asked] = [value for value in st.query_params.get_all(key) if not _fits(value, low, high, kind)]
    place = st.empty()
    if unfit := st.session_state[asked]:
        bounds = f" from {low:g} to {high:g}" if high < inf else ""
        place.warning(
            f"The link asks for {key} = {plain(unfit[0], 40)}, which is no {'whole ' * (kind is int)}number{bounds}. What is shown is another choice.",
            icon=":material/link_off:",
        )
    # Streamlit would make a whole number of "inf", and fail.
    bound = None if unfit and kind is int else "query-params"
    return {"bind": bound, "on_change": st.session_state.update, "kwargs": {asked: []}}


def _on_this_page(name: str) -> str:
    """A name in the session; each page offers other values, and has its own bounds."""
    return f"{name} at {(st.context.url or '').partition('?')[0]}"


def _fits(text: str, low: float, high: float, kind: type[int] | type[float]) -> bool:
    try:
        return low <= kind(text) <= high and isfinite(kind(text))
    except (ValueError, OverflowError):
        return False


def _tell_missing(
    key: str, label: str, labels: dict[str, str], stands_for: dict[str, str], most: int | None = None
) -> None:
    """Say which runs the link that led here names that cannot be chosen; not after the visitor has chosen others."""
    link = st.session_state.setdefault(f"link {key}", st.query_params.get_all(key))
    if link != st.query_params.get_all(key):
        return
    if most and len(link) > most:
        st.warning(f"The link names {len(link)} runs, and {most} fit: those are the first.", icon=":material/link_off:")
    if missing := [run_id for run_id in link if stands_for.get(run_id, run_id) not in labels]:
        named = ", ".join(plain(run_id, 100) for run_id in missing[:4])
        st.warning(
            f"The link names {named} for *{label}*: not here, or not among these. What is shown is another choice.",
            icon=":material/link_off:",
        )


def _kept(key: str, labels: dict[str, str]) -> dict:
    """A widget's options by which what is chosen is kept in the address; a run that is gone meanwhile has its id for a name."""
    return {"format_func": lambda run_id: labels.get(run_id, run_id), "key": key, "on_change": _keep, "args": (key,)}


def _keep(key: str) -> None:
    st.query_params[key] = st.session_state[key]
