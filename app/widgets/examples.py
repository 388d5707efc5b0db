"""The figures of the shipped runs, each with how it is read: the examples of the Guide."""

import pandas as pd
import streamlit as st

from app.figures.acr import beside_published, gains
from app.figures.along_lambda import against_accuracy
from app.figures.curves import certified_accuracy, ranking
from app.figures.pairs import acr_by_samples, p_distribution, radius_against_radius
from app.figures.palette import run_labels, title
from app.figures.votes import votes
from app.widgets.comparable import fullest_training, trainings
from app.widgets.figure import draw
from backend.certification.confidence import lower_bound
from backend.home import CHECKOUT, PRECOMPUTED
from backend.reproduction import along_lambda, gains_over_seeds, without_ablations
from backend.statistics import NS, acr_by_n, acr_shares, share_band
from backend.store import queries

READING = dict(
    part.split("\n\n", 1)
    for part in (CHECKOUT / "docs" / "guide" / "plots.md").read_text().removeprefix("## ").split("\n## ")
)
PAIR = ("gaussian", "consistency")


def beside(heading: str, figure, alt: str, table) -> None:
    """A live figure, and how to read it: a section of plots.md."""
    st.subheader(heading)  # above both: on a telephone the columns are stacked
    left, right = st.columns([3, 2], gap="large")
    right.markdown(READING[heading])
    with left:
        draw(figure, heading.lower(), alt, table)


def shipped() -> pd.DataFrame:
    """The shipped runs on MNIST of one setting, recipe and seed, one a method and σ and those along λ."""
    runs = queries.runs()
    runs = runs[runs.folder.str.startswith(str(PRECOMPUTED)) & (runs.dataset == "mnist") & (runs.images > 0)]
    if runs.empty:
        return runs
    runs = max((rows for _, rows in runs.groupby(queries.SETTINGS)), key=len)
    runs = runs[trainings(runs) == fullest_training(runs)]
    return runs[runs.seed == runs.seed.min()]


def trade_offs(runs: pd.DataFrame, common: pd.DataFrame) -> None:
    """The figures of the page Trade-offs."""
    labels, one = run_labels(runs), runs.iloc[0]
    two = common[common.method.isin(PAIR)]
    curves = queries.group_curves(two.run_id.to_list())
    two = two[two.run_id.isin(curves.group_id)]
    beside(
        "Certified accuracy against radius", certified_accuracy(two, curves, labels),
        "certified accuracy against radius of two methods at three noise levels", curves,
    )  # fmt: skip
    middle = common[common.sigma == 0.5]
    pairs = [(baseline, PAIR[1]) for baseline in middle.method if baseline != PAIR[1]]
    rows = gains_over_seeds(queries.acr_gains(middle.run_id, pairs), ["baseline", "sigma"])
    if len(rows):
        rows["label"] = rows.baseline.map(title)
        beside(
            "Gains over the baselines", gains(rows.assign(published_gain=None, published_source=None)),
            "ACR of Consistency less that of each baseline, with intervals", rows,
        )  # fmt: skip
    reached = queries.accuracy_at(1.0, middle.run_id.to_list())
    reached["low"], reached["high"] = share_band(reached.reached.to_numpy(), reached.images.to_numpy())
    reached["label"] = reached.run_id.map(labels)
    beside(
        "Which is best at a radius?", ranking(reached),
        "certified accuracy at radius 1, best run first, with intervals", reached,
    )  # fmt: skip
    terms = (one.dataset, int(one.n), int(one.n0), one.alpha, one.image_set)
    published = queries.published_groups(*terms).query("sigma == 0.5")
    published = without_ablations(published)
    beside(
        "Beside the paper's", beside_published(middle, published, 0.5),
        "ACR of each method beside the paper's at σ = 0.5", published,
    )  # fmt: skip
    beside(
        "Along λ", against_accuracy(queries.over_seeds(runs.run_id), 0.5, along_lambda(published)),
        "ACR against certified accuracy at r = 0 at σ = 0.5, one point a setting", runs.loc[runs.sigma == 0.5, ["run_id", "certified_accuracy_0", "acr"]],
    )  # fmt: skip


def comparison(common: pd.DataFrame) -> dict:
    """The figures of the pages Compare and Certify an image; what part of ACR the easiest images make up, {method: cumulative shares}."""
    pair = common[(common.sigma == 0.5) & common.method.isin(PAIR)].sort_values("method", ascending=False)
    if len(pair) != len(PAIR):
        return {}
    a, b = pair.itertuples()
    names, ids = [title(a.method), title(b.method)], [a.run_id, b.run_id]
    rows = [queries.certificates(run_id) for run_id in ids]
    right = [(table.predict == table.label).to_numpy() for table in rows]
    gained = [(table.radius * ok).to_numpy() for table, ok in zip(rows, right, strict=True)]
    both = pd.DataFrame({"idx": rows[0].idx, "label": rows[0].label, "gain_a": gained[0], "gain_b": gained[1]})
    beside(
        "Radius against radius", radius_against_radius(both, tuple(names)),
        "radius of each image by two networks", both,
    )  # fmt: skip
    shares = {name: (table.top_count / table.n).to_numpy() for name, table in zip(names, rows, strict=True)}
    beside(
        "How sure the votes are", p_distribution(shares, list(PAIR)),
        "distribution of the vote shares over the images, two networks", pd.DataFrame(shares),
    )  # fmt: skip
    at = {
        name: acr_by_n(table.top_count.to_numpy(), ok, int(a.n), a.sigma, a.alpha, run_id, [n for n in NS if n <= a.n])
        for name, table, ok, run_id in zip(names, rows, right, ids, strict=True)
    }
    beside(
        "ACR against n", acr_by_samples(at, list(PAIR)),
        "ACR of two networks at fewer samples", pd.DataFrame(at).rename_axis("n").reset_index(),
    )  # fmt: skip
    doubtful = rows[1].sort_values("top_count").iloc[len(rows[1]) // 10]
    counts = [int(doubtful.top_count), int(doubtful.n - doubtful.top_count)]
    beside(
        "Certify an image", votes(counts, ["selected", "all others"], 0, lower_bound(counts[0], int(doubtful.n), b.alpha)),
        f"{counts[0]:,} of {int(doubtful.n):,} votes for the selected class", pd.DataFrame({"class": ["selected", "others"], "votes": counts}),
    )  # fmt: skip
    return dict(zip(names, map(acr_shares, gained), strict=True))
