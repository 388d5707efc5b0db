"""Trade-offs: what certified robustness costs, and whether Consistency buys more of it than the baselines."""

import json
from math import floor

import pandas as pd
import streamlit as st

from app.figures.acr import against_clean_accuracy, beside_published
from app.figures.curves import certified_accuracy, ranking
from app.figures.palette import run_labels, title
from app.widgets.comparable import choose_comparable
from backend.plan import departures
from backend.statistics import share_band
from backend.store import queries

st.title("What does certified robustness cost?")
st.markdown(
    "A *smoothed* classifier answers what its network most often says under Gaussian noise. Its answer comes with a "
    "**radius**: no change of the image shorter than that (in ℓ2) can change it. More noise σ or a stronger "
    "regularisation λ buys radius and costs accuracy. Each point below is a network that was certified with real samples."
)

CARDS = 6  # at most, of the claim
RANKED = 12  # at most, of the ranking

runs = queries.runs()
shown = choose_comparable(runs)
if shown.empty:
    st.info(
        "No certified run fits these filters. Choose another σ or method above, or start a run on the **Runs** page.",
        icon=":material/filter_alt_off:",
    )
    st.stop()
n0 = int(shown.n0.iloc[0])
dataset, n, alpha, images = shown.dataset.iloc[0], int(shown.n.iloc[0]), shown.alpha.iloc[0], int(shown.images.iloc[0])
mode = "" if shown["mode"].iloc[0] == "fixed" else f"{shown['mode'].iloc[0]}, at most "
setting = f"{mode}n = {n:,}, α = {alpha:g}, {images:,} test images"
image_set, papers_mode = shown.image_set.iloc[0], shown["mode"].iloc[0] == "fixed"


def of_the_papers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at the σ and of the networks that are shown; none beside an adaptive mode."""
    return table[table.sigma.isin(shown.sigma) & papers_mode & table.architecture.isin(shown.architecture)]


terms = (dataset, n, n0, alpha, image_set)
peers = of_the_papers(queries.published_groups(*terms))  # published networks on the same terms
peers = peers[
    peers.seeds == peers.groupby(["architecture", "method", "sigma"]).seeds.transform("max")
]  # not their ablations
published = of_the_papers(queries.published(dataset)) if peers.empty else peers.assign(source="same terms")


if imported := int((shown.source == "published").sum()):
    st.caption(
        f":material/input: {imported} of these {len(shown)} runs are imported from published logs: their radii have three digits, "
        "and their vote counts are not known."
    )
if (collapsed := shown[shown.missing_classes.fillna(0) > 0]).shape[0]:
    names = run_labels(shown)
    st.warning(
        "Training collapsed, and is shown as it is: "
        + "; ".join(f"{names[r.run_id]} hardly ever answers {int(r.missing_classes)} classes" for r in collapsed.itertuples()),
        icon=":material/trending_down:",
    )  # fmt: skip


def claim() -> None:
    """Consistency's gain in ACR over Gaussian, image by image, beside the paper's gain at the same λ."""
    gains = queries.acr_gains(dataset, "gaussian", "consistency")
    gains = gains[gains.run_id.isin(shown.run_id)]
    if gains.empty:
        return
    st.subheader("Does Consistency beat Gaussian?")
    labels = run_labels(shown)
    paper = published[published.source.isin(["released", "same terms"])]
    columns = st.columns(min(len(gains), 3))
    for place, gain in enumerate(gains.head(CARDS).itertuples()):
        half = 1.96 * gain.gain_se
        verdict = "above" if gain.gain > half else "below" if gain.gain < -half else "not told apart from"
        theirs = ""
        at = paper[
            (paper.sigma == gain.sigma) & (paper.architecture == shown.set_index("run_id").architecture[gain.run_id])
        ]
        ours, base = at[(at.method == "consistency") & (at.lam == gain.lam)], at[at.method == "gaussian"]
        if len(ours) == len(base) == 1:
            theirs = f" The paper's gain: {ours.acr.iloc[0] - base.acr.iloc[0]:+.4f}."
        with columns[place % len(columns)].container(border=True):
            st.metric(
                f"ACR of {labels[gain.run_id]}",
                f"{gain.acr:.4f}",
                f"{gain.gain:+.4f} ± {half:.4f}",
                help=f"Difference to the Gaussian run with ACR {gain.baseline_acr:.4f}, same seed and recipe, on the same "
                f"{gain.images:,} images; ± is the 95 % interval of the mean paired difference. It covers the choice "
                "of test images, not the choice of training seed.",
            )
            st.caption(f"{verdict.capitalize()} Gaussian ({gain.baseline_acr:.4f}, seed {gain.seed}).{theirs}")
    more = (
        f" The first {CARDS} of {len(gains)} runs are shown; the filters choose others." if len(gains) > CARDS else ""
    )
    theirs = ""
    if not paper.empty:
        theirs = " The paper's: its released networks, mean over their seeds, "
        theirs += (
            "on the same terms."
            if not peers.empty
            else "n = 100,000, 10,000 images: gains at different n compare roughly."
        )
    st.caption(f"Ours: {setting}, one seed a run.{theirs}{more}")


claim()

if not published.empty:
    said = []
    for method, rows in shown[shown.source == "trained"].groupby("method"):
        here = [departures(method, dataset, run.sigma, json.loads(run.hyper)) for run in rows.itertuples()]
        merged = {name: pair for one in here for name, pair in one.items() if name != "lam" or rows.lam.nunique() == 1}
        if merged:
            said.append(f"{title(method)}: " + ", ".join(f"{k} = {a} (paper: {b})" for k, (a, b) in merged.items()))
    recipes = ", ".join(
        f"`{name}` ({epochs} epochs)" for name, epochs in sorted(set(zip(shown.recipe, shown.epochs, strict=True)))
    )
    st.caption(
        f"Trained by recipe {recipes}; the paper's networks: 90 epochs on MNIST. "
        + " ".join(f"{text}." for text in said)
    )

st.subheader("Certified accuracy against radius")
curves = queries.group_curves(shown.run_id.to_list())
their_curves = queries.published_curves(*terms).merge(
    peers.loc[peers.method.isin(shown.method), ["architecture", "method", "sigma", "lam", "hyper"]]
)
extras = st.pills(
    "Also show", ["95 % bands", "best at every radius", "published networks"], selection_mode="multi",
    default=["published networks"], key="extras", bind="query-params",
    help="*95 % bands*: Clopper–Pearson's interval over the choice of images, for lines of one seed. *best at every radius*: of "
    "each method the best of its runs, at whatever σ: the envelope.",
)  # fmt: skip
curves["low"], curves["high"] = curves.certified_accuracy - curves.sd, curves.certified_accuracy + curves.sd
if "95 % bands" in extras:
    single = curves.seeds == 1
    low, high = share_band((curves.certified_accuracy * curves.images).round().to_numpy(), curves.images.to_numpy())
    curves["low"], curves["high"] = curves.low.where(~single, low), curves.high.where(~single, high)
if "published networks" not in extras:
    their_curves = their_curves.head(0)
best_of_method = queries.envelope(shown.run_id.to_list() if "best at every radius" in extras else [])
st.plotly_chart(
    certified_accuracy(shown[shown.run_id.isin(curves.group_id)], curves, their_curves, best_of_method),
    key="curves",
    alt="Certified accuracy against radius, one line a run; the same numbers are in the table below",
)
st.caption(
    f"Share of images that are answered correctly with a radius of at least r: {setting}. An abstention counts as wrong. "
    "Runs that differ in their seeds alone are one line, their mean, with ± sd. "
    + (
        "Thin lines: the paper's released networks, methods and σ as chosen, on the same terms. "
        if not peers.empty
        else ""
    )
    + "Thin vertical lines: the ceiling σ Φ⁻¹(α^(1/n)), beyond which n samples certify nothing. Click a name to hide its line."
)

st.subheader("Which is best at a radius?")
left, right = st.columns([1, 3], gap="large")
reach = left.slider(
    "Radius r", 0.0, float(floor(shown.ceiling.max() * 100) / 100), 0.5, 0.01, key="r", bind="query-params",
    help="The change of the image, in ℓ2 norm of its pixels in [0, 1], that the answer is to survive.",
)  # fmt: skip
ranked = queries.accuracy_at(reach, shown.run_id.to_list())
ranked["low"], ranked["high"] = share_band(ranked.reached.to_numpy(), ranked.images.to_numpy())
ranked["label"] = ranked.run_id.map(run_labels(shown))
best = ranked.iloc[0]
left.metric("Best here", f"{best.certified_accuracy:.1%}", help="certified accuracy at r")
left.markdown(f"**{best.label}**" if best.reached else "Nothing is certified that far: n samples reach no further.")
right.plotly_chart(
    ranking(ranked.head(RANKED)),
    key="ranking",
    alt="certified accuracy at the chosen radius, best run first, with intervals",
)
st.caption(
    f"Share of images answered correctly with a radius of at least {reach:.2f}: {setting}. Bars are 95 % intervals over the choice of "
    "images: where they overlap widely, the order may be chance. The best of many runs, chosen on the test images, looks better "
    "than it is." + (f" The first {RANKED} of {len(ranked)}." if len(ranked) > RANKED else "")
)

if not published.empty:
    st.subheader("Average certified radius beside the paper's")
    sigmas = sorted(shown.sigma.unique())
    for column, sigma in zip(st.columns(len(sigmas)), sigmas, strict=True):
        column.plotly_chart(
            beside_published(shown, published, sigma),
            key=f"acr {sigma}",
            alt=f"ACR of each method at σ = {sigma:g} beside the paper's",
        )
    st.caption(
        f"Filled: runs of this store, {setting}, one point a run, with the 95 % interval over the choice of images (not of the seed). "
        + (
            "Hollow: the paper's released networks **on the same terms**, mean ± sd over seeds"
            + (
                f": their logs of n = 100,000, cut down to the same {images:,} images and, at random, to {n:,} of the samples of each."
                if peers.recomputed.any()
                else ", from their logs."
            )
            if not peers.empty
            else "Hollow: what papers report, at n = 100,000. Where n or images differ, so do the ceilings, and the levels are **not** "
            "comparable one to one. "
            + " ".join(f"*{source}*: {rows.reference.iloc[0]}." for source, rows in published.groupby("source"))
        )
    )

st.subheader("Accuracy against robustness, along λ")
st.plotly_chart(
    against_clean_accuracy(shown), key="trade-off", alt="ACR against certified accuracy at r = 0, one point a run"
)
st.caption(
    f"Up is more robust, right is more accurate: {setting}. Nothing beats a run on the wide grey front in both. λ = 0 is plain Gaussian training. ACR never stands alone: easy "
    "images dominate it. More λ: `python -m backend sweep --methods consistency --lams 1 5 10 20`, or the **Runs** page."
)

st.subheader("The runs")
table = pd.DataFrame(shown[[*queries.RUN_COLUMNS, "recipe", "epochs", "ceiling", "device", "git_commit"]])
st.dataframe(
    table,
    hide_index=True,
    column_config={
        "acr": st.column_config.NumberColumn("ACR", format="%.4f"),
        "certified_accuracy_0": st.column_config.NumberColumn("certified accuracy at 0", format="percent"),
        "abstention": st.column_config.NumberColumn(format="percent"),
        "ceiling": st.column_config.NumberColumn(format="%.3f"),
    },
)
st.download_button(
    "Download as CSV",
    table.to_csv(index=False),
    "certscope-runs.csv",
    "text/csv",
    icon=":material/download:",
    on_click="ignore",
)
