"""Choosing runs that may be compared: one data set, one n, one α, one set of images."""

import contextlib

import pandas as pd
import streamlit as st

from app.figures.palette import title
from app.widgets.glossary import TERMS
from app.widgets.run_choice import choose_dataset, tell_absent
from backend.datasets import DATASETS
from backend.spec import PRECISIONS
from backend.statistics import early_stop
from backend.store import queries
from backend.store.snapshot import StoreError, mark


@st.fragment(run_every=5)
def look_again(snapshot: tuple) -> None:
    """Draw the whole page anew when runs were published or deleted since it was drawn from that snapshot."""
    with contextlib.suppress(StoreError):  # what is shown stands until there is a store again
        if mark() != snapshot:
            st.rerun()


def choose_comparable(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Filters for data set, settings, σ and method, kept in the URL; returns the chosen certified runs (maybe none), and those of any σ and method."""
    certified = runs[runs.images.notna()]
    if certified.empty:
        return certified, certified
    first, second, third = st.columns([1, 2.4, 1.6])
    names = sorted(certified.dataset.unique(), key=lambda name: (name != "mnist", name))
    about = "; ".join(f"{name}: {DATASETS[name].note}" for name in names if name in DATASETS)
    dataset = choose_dataset(first, names, help=about)
    certified = certified[certified.dataset == dataset]
    alike = sorted((rows for _, rows in certified.groupby(queries.SETTINGS)), key=len, reverse=True)
    on_terms = {queries.terms(rows.iloc[0]): rows for rows in alike}
    chosen = second.selectbox(
        "Certified with", list(on_terms), key="settings", bind="query-params",
        help="Only runs certified in the same mode with the same n and α on the same images are drawn together: ACR grows with n.",
        **tell_absent("settings", "the settings", list(on_terms)),
    )  # fmt: skip
    certified = on_terms[chosen]
    place = st.empty()  # `run_choice` says why
    if early := early_stop(certified["mode"].iloc[0]):
        place.warning(early, icon=":material/timer_off:")
    levels = [f"{sigma:.12g}" for sigma in sorted(certified.sigma.unique())]
    sigmas = _all_of(third, "Noise σ", "sigma", "σ =", levels, help=TERMS["σ"])
    methods = _all_of(st, "Method", "method", "the method", sorted(certified.method.unique()), title)
    chosen = certified.sigma.map(lambda s: f"{s:.12g}" in sigmas) & certified.method.isin(methods)
    return certified[chosen], certified


def _all_of(where, label: str, key: str, what: str, options: list[str], format_func=str, **more) -> list[str]:
    """Pills, kept in the URL: at first all are chosen, and later also those that new runs or another data set bring. what: see `tell_absent`."""
    if not options:
        return []
    seen = st.session_state.get(f"{key} seen", options)
    if key in st.session_state and (new := [option for option in options if option not in seen]):
        st.session_state[key] = [option for option in options if option in new or option in st.session_state[key]]
    st.session_state[f"{key} seen"] = options
    return where.pills(
        label, options, selection_mode="multi", default=options, format_func=format_func, key=key, bind="query-params",
        **tell_absent(key, what, [format_func(option) for option in options]), **more,
    )  # fmt: skip


def one_training(chosen: pd.DataFrame, certified: pd.DataFrame) -> pd.DataFrame:
    """A filter where runs were trained in several ways; says what it leaves out of the chosen.

    At first `fullest_training` of `certified`, of the chosen where none of them had that. For what compares runs at large: a longer training is no better method.
    """
    training, trained = trainings(chosen[chosen.source == "trained"]), certified[certified.source == "trained"]
    if len(ways := sorted(set(trainings(trained)))) < 2:
        return chosen
    first = fullest_training(trained)
    if first not in set(training) and len(training):
        first = fullest_training(chosen.loc[training.index])
    wanted = st.pills(
        "Recipe of all that follows", ways, selection_mode="multi", default=[first], key="recipe", bind="query-params",
        help=f"{TERMS['recipe']} Methods compare within one training. Imported runs are always shown.", **tell_absent("recipe", "the recipe", ways),
    )  # fmt: skip
    if left := [
        f"{count} run{'s' * (count > 1)} by `{name}`"
        for name, count in training.value_counts().items()
        if name not in wanted
    ]:
        st.caption(f":material/filter_alt: Left out, trained otherwise: {', '.join(left)}.")
    return chosen.drop(training[~training.isin(wanted)].index)


def fullest_training(runs: pd.DataFrame) -> str:
    """The longest training that several methods among these runs (at least one) had, in words as in `trainings`; else the longest of all."""
    ways = runs.assign(training=trainings(runs)).groupby("training")
    ways = ways.agg(methods=("method", "nunique"), epochs=("epochs", "first"), number=("run_id", "size"))
    return ways.assign(several=ways.methods > 1).sort_values(["several", "epochs", "number"]).index[-1]


def trainings(runs: pd.DataFrame) -> pd.Series:
    """Recipe and epochs of each run in words, and the precision where it is not the usual one."""
    precision = (", " + runs.train_precision).where(runs.train_precision != PRECISIONS[0], "")
    return runs.recipe + ", " + runs.epochs.astype(str) + " epochs" + precision
