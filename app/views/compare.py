"""Compare: runs or groups of seeds with one of them, image by image: how they differ, and how surely."""

import numpy as np
import pandas as pd
import streamlit as st

from app.figures.pairs import acr_by_samples, differences, p_distribution, radius_against_radius
from app.figures.palette import run_labels
from app.widgets.comparable import choose_comparable, fullest_training, look_again, trainings
from app.widgets.figure import draw
from app.widgets.glossary import TERMS
from app.widgets.images_changed import images_changed
from app.widgets.outcome import PLAINLY
from app.widgets.run_choice import choose_run, choose_runs, tell_unfit
from app.widgets.trainings import show_trainings
from backend.datasets import named
from backend.recipes import in_words
from backend.reproduction import usual
from backend.spec import WHOLE
from backend.statistics import NS, Paired, acr_by_n, comparable_radii, early_stop, seeds_apart
from backend.store import queries
from backend.store.snapshot import StoreError, mark

MOST = 6  # others beside the reference
UNLIKE = {"training": "training", "sigma": "σ", "architecture": "network"}

st.title("Compare runs")
st.markdown(
    "Networks that were certified on the same images with the same n and α, **image by image**: pairs tell apart what "
    "averages with their intervals cannot. Runs that differ in their seeds alone are compared as one."
)
snapshot = mark()
look_again(snapshot)
with st.container():  # one a part of the page: `run_choice` says why
    shown, _ = choose_comparable(queries.runs())
groups = queries.over_seeds(shown.run_id)
if len(groups) < 2:
    st.info(
        "A comparison wants two runs, or groups of seeds, that were certified with the same n, n0 and α on the same images. Choose others above, or start a run on the **Runs** page.",
        icon=":material/compare_arrows:",
    )
    st.stop()
seeds_of = dict(zip(groups.run_id, map(list, groups.run_ids), strict=True))
labels = run_labels(groups)
ids = list(labels)
facts = shown.assign(training=trainings(shown)).set_index("run_id")


def first_of(method: str, among: list[str]) -> str:
    """That method's run at σ = 0.5, else the first."""
    return next((i for i in among if facts.method[i] == method and facts.sigma[i] == 0.5), among[0])


group_of = {run_id: group for group, run_ids in seeds_of.items() for run_id in run_ids}
ordinary = set(shown.run_id[usual(shown)])  # no ablation, and not along λ
fullest = fullest_training(shown)
learned = [i for i in ids if not facts.missing_classes[i] > 0] or ids
common = [i for i in learned if facts.training[i] == fullest and i in ordinary] or learned
with st.container():
    left, right = st.columns([2, 3])
    a = choose_run(left, "Reference a", labels, first_of("gaussian", common), "a", group_of)
    others = {i: words for i, words in labels.items() if i != a}
    alike = [i for i in others if facts.training[i] == facts.training[a] and i in ordinary and i in learned]
    chosen = choose_runs(
        right, f"Compared with it: b, at most {MOST}", others, [first_of("consistency", alike or list(others))], "b", group_of,
        max_selections=MOST, placeholder="Choose one run or more", wrap=True,
    )  # fmt: skip
if not chosen:
    st.info("Choose at least one run to compare with the reference.", icon=":material/compare_arrows:")
    st.stop()
labels = run_labels(groups[groups.run_id.isin([a, *chosen])])  # what tells these apart, and no more
one = facts.loc[a]
if one.images < 2:
    st.info("One image says nothing of others: a comparison wants two or more.", icon=":material/compare_arrows:")
    st.stop()
low, high = comparable_radii(one["mode"])
early = early_stop(one["mode"])
if low > high:  # said above
    st.stop()
setting = f"{one.dataset}, {queries.terms(one)}"


def paired_with(b: str) -> tuple[list[str], list[str]]:
    """The runs of a and of b that are compared."""
    return queries.at_equal_seeds(seeds_of[a], seeds_of[b], facts.seed)


def names_of(b: str) -> tuple[str, str]:
    """What a and b are called beside each other, with as many seeds as are compared."""
    pair = groups[groups.run_id.isin([a, b])]
    compared = dict(zip((a, b), map(len, paired_with(b)), strict=True))
    said = run_labels(pair.assign(seeds=pair.run_id.map(compared)))
    return said[a], said[b]


def cover_seeds(b: str) -> bool:
    """Whether the intervals cover other training seeds too: `queries.paired`."""
    of_a, of_b = (set(facts.seed[runs]) for runs in paired_with(b))
    return of_a == of_b and len(of_a) > 2


def left_out(b: str) -> str:
    """Which seeds a comparison is of where it is not of all, in words; else nothing."""
    of_a, of_b = paired_with(b)
    if len(of_a) + len(of_b) == len(seeds_of[a]) + len(seeds_of[b]):
        return ""
    return f"{labels[b]} at seed {', '.join(f'{seed}' for seed in sorted(set(facts.seed[of_a])))}"


def verdict(told: int, more: str, less: str) -> str:
    """What `Paired` tells, in words."""
    return {1: more, -1: less, 0: "the two are **not told apart**"}[told]


def all_differences(pairs: dict, r: float) -> None:
    """Every b at a glance, where there are several."""
    table = pd.DataFrame(
        [(as_compared[b], facts.method[b], p.acr, p.acr_low, p.acr_high, p.accuracy, p.accuracy_low, p.accuracy_high) for b, p in pairs.items()],
        columns=["run", "method", "acr", "acr_low", "acr_high", "accuracy", "accuracy_low", "accuracy_high"],
    )  # fmt: skip
    places = iter(st.columns(2))
    if not early:
        with next(places):
            figure = differences(table, "acr", "ACR, b less a")
            draw(figure, "acr differences", "differences in ACR with intervals", table, setting)
    with next(places):
        draw(
            differences(table, "accuracy", f"certified accuracy at {r:g}, b less a"), "accuracy differences",
            "differences in certified accuracy at r with intervals", table.assign(r=r), setting,
        )  # fmt: skip


def in_detail(p: Paired, b: str, r: float) -> None:
    """How one b differs from a, in figures and in words."""
    cards = iter(st.columns(4))
    if not early:
        next(cards).metric(
            "ACR, b less a", f"{p.acr:+z.4f}", f"{p.acr_low:+z.4f} to {p.acr_high:+z.4f}", **PLAINLY,
            help=f"mean paired difference with its 95 % interval; over the images alone Student's paired test has p = {p.acr_p:.2g}",
        )  # fmt: skip
    next(cards).metric(
        f"Certified accuracy at {r:g}, b less a", f"{100 * p.accuracy:+z.2f} pp", f"{100 * p.accuracy_low:+z.2f} to {100 * p.accuracy_high:+z.2f} pp",
        **PLAINLY,
        help="mean paired difference of the seeds' shares, with its 95 % interval"
        if p.accuracy_p is None
        else f"with an interval over the choice of images that holds with 95 % at least and is wider than need be; McNemar's exact test decides: p = {p.accuracy_p:.2g}",
    )  # fmt: skip
    if p.gained is not None:
        next(cards).metric("Images gained", p.gained, help=f"answered correctly with radius at least {r:g} by b alone")
        next(cards).metric("Images lost", p.lost, help="by a alone")
    names = names_of(b)
    average = (
        ""
        if early
        else f"On average {verdict(p.acr_told, 'b certifies **larger radii**', 'b certifies **smaller radii**')}; "
    )
    at_r = verdict(p.accuracy_told, "b certifies **more images**", "b certifies **fewer images**")
    if p.accuracy_told and p.accuracy_p is not None:  # the interval, wider than need be, may hold 0
        at_r += f" (McNemar's exact test, p = {p.accuracy_p:.2g})"
    st.markdown(f"a: **{names[0]}**, b: **{names[1]}**. {average}{'At' if early else 'at'} r = {r:g} {at_r}.")
    differ = [
        f"{words} ({in_words(left)} and {in_words(right)})"
        for name, words in UNLIKE.items()
        if (left := facts[name][a]) != (right := facts[name][b])
    ]
    if differ:
        st.caption(
            f":material/rule: They differ in {' and in '.join(differ)} too: what is seen here is not the method's alone."
        )
    apart = seeds_apart(*(facts.acr.reindex(seeds_of[i]).dropna().to_numpy() for i in (a, b)))
    st.caption(
        f"{setting}. Intervals cover the choice of test images{' and of training seeds' if cover_seeds(b) else ', not that of the training seed'}: "
        + (
            f"the seeds alone, all of them, on these images, have Welch's 95 % interval {apart[0]:+z.4f} to {apart[1]:+z.4f} of the difference in ACR."
            if apart and not early
            else f"another seed of the same method moves {'accuracy' if early else 'ACR'} too."
        )
        + (" Radii of imported logs have three digits." if (facts.radius_digits.loc[[a, b]] < WHOLE).any() else "")
    )


def of_both(b: str, r: float) -> pd.DataFrame:
    """Each image by a and by b: label (its class), and gain, p and reached (a radius of at least r), of either."""
    of_a, of_b = (queries.images_of(runs, r) for runs in paired_with(b))
    both = of_a.merge(of_b.drop(columns="label"), on="idx", suffixes=("_a", "_b"))
    return both.assign(label=named(one.dataset, one.image_set, both.label))


@st.fragment
def at_radius(b: str) -> None:
    """What depends on a radius that the reader chooses."""
    st.header("How much, and how surely")
    r = low
    if low < high:
        most = min(high, 10.0)
        r = st.columns([1, 3])[0].number_input(
            "Radius r", low, most, min(high, 0.5), 0.05, key="r", help="for certified accuracy at r",
            **tell_unfit("r", low, most),
        )  # fmt: skip
    try:
        pairs = {i: queries.paired(*paired_with(i), r) for i in chosen}
    except StoreError as error:
        if mark() != snapshot:  # a run was deleted meanwhile: the whole page looks again
            st.rerun()
        st.warning(str(error), icon=":material/compare_arrows:")
        return
    with st.container():
        if said := "; ".join(filter(None, map(left_out, chosen))):
            st.caption(f":material/rule: Compared at the seeds that both have, not at all seeds: {said}.")
        if len(chosen) > 1:
            all_differences(pairs, r)
        in_detail(pairs[b], b, r)
    with st.container():
        images_changed(of_both(b, r), one.dataset, r, max(map(len, paired_with(b))) > 1)


b = chosen[0]
with st.container():
    if len(chosen) > 1:
        b = st.pills(
            "In detail", chosen, default=chosen[0], required=True, format_func=labels.get, key="detail", wrap=True
        )
compared = [a, *chosen]
runs_of = {a: paired_with(b)[0]} | {i: paired_with(i)[1] for i in chosen}
some = groups[groups.run_id.isin(compared)]
as_compared = run_labels(
    some.assign(seeds=[len(runs_of[i]) for i in some.run_id])
)  # with as many seeds as are compared
with st.container():
    at_radius(b)
folders = {as_compared[i]: facts.folder[runs_of[i]].to_list() for i in compared if facts.source[i] == "trained"}
show_trainings(folders, [facts.method[i] for i in compared if facts.source[i] == "trained"])
if early:  # what follows is of ACR and of every radius
    st.stop()

both, names = of_both(b, 0.0), names_of(b)
left, right = st.columns(2)
with left:
    st.header("Radius against radius")
    draw(radius_against_radius(both, names), "radii", "radius of each image by both runs", both, setting)
    st.caption("One point an image; above the line b certifies more. A wrong answer or an abstention counts as 0.")
with right:
    st.header("By class")
    of_a, of_b = map(queries.per_class, paired_with(b))
    classes = of_a.merge(of_b, on=["label", "images"], suffixes=(" a", " b"))
    classes["label"] = named(one.dataset, one.image_set, classes.label)
    accuracy = {"format": "percent", "help": TERMS["certified accuracy at 0"]}
    st.dataframe(
        classes[["label", "images", "acr a", "acr b", "certified_accuracy_0 a", "certified_accuracy_0 b"]],
        hide_index=True, alt="ACR and certified accuracy at 0 of each class by both runs",
        column_config={
            "label": "class", "acr a": st.column_config.NumberColumn("ACR a", format="%.3f"),
            "acr b": st.column_config.NumberColumn("ACR b", format="%.3f"),
            "certified_accuracy_0 a": st.column_config.NumberColumn("accuracy at 0, a", **accuracy),
            "certified_accuracy_0 b": st.column_config.NumberColumn("accuracy at 0, b", **accuracy),
        },
    )  # fmt: skip


def by_samples(run_ids: list[str]) -> dict[int, float]:
    """ACR at fewer samples, mean over the seeds of a group."""
    found = []
    for run_id in run_ids:
        rows = queries.certificates(run_id)
        right = (rows.predict == rows.label).to_numpy()
        found.append(acr_by_n(rows.top_count.to_numpy(), right, int(one.n), facts.sigma[run_id], one.alpha, run_id, NS))
    return {n: float(np.mean([at[n] for at in found])) for n in found[0]}


if one["mode"] == "fixed" and both[["p_a", "p_b"]].notna().all(axis=None):
    left, right = st.columns(2)
    methods = [facts.method[a], facts.method[b]]
    with left:
        st.header("How sure the votes are", help=TERMS["p_A"])
        shares = dict(zip(names, (both.p_a.to_numpy(), both.p_b.to_numpy()), strict=True))
        draw(p_distribution(shares, methods), "p", "distribution of p_A over the images, both runs", both, setting)
        st.caption(
            "The share of votes for the class that was selected, image by image: an estimate of p_A, not its bound."
        )
    with right:
        st.header("ACR at fewer samples", help=TERMS["n"])
        at = {name: by_samples(runs) for name, runs in zip(names, paired_with(b), strict=True)}
        draw(
            acr_by_samples(at, methods),
            "by n",
            "ACR of both runs at fewer samples",
            pd.DataFrame(at).rename_axis("n").reset_index(),
            setting,
        )
        st.caption(
            "A random part of each image's samples, bounded anew: what the same networks show at a smaller n. ACR grows with n until every "
            "image is at its own p_A, so levels at different n do not compare."
        )
else:
    st.caption(
        "No distribution of p_A and no ACR at fewer samples here: they are worked out for mode fixed with known vote counts."
    )
