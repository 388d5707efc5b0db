"""Compare: two runs image by image, how they differ and how surely."""

import pandas as pd
import streamlit as st

from app.figures.pairs import acr_by_samples, p_distribution, radius_against_radius
from app.figures.palette import run_labels
from app.widgets.comparable import choose_comparable
from backend.statistics import acr_by_n
from backend.store import queries

NS = [100, 1_000, 10_000, 100_000, 1_000_000]

st.title("Compare two runs")
st.markdown(
    "Two networks that were certified on the same images with the same n and α, **image by image**: pairs tell apart what two "
    "averages with their intervals cannot."
)
shown = choose_comparable(queries.runs())
if len(shown) < 2:
    st.info(
        "A comparison wants two certified runs of the same settings. Choose others above, or start a run on the **Runs** page.",
        icon=":material/compare_arrows:",
    )
    st.stop()
labels = run_labels(shown)
ids = shown.run_id.to_list()
usual = {
    m: next((r.run_id for r in shown.itertuples() if r.method == m and r.sigma == 0.5), None)
    for m in ("gaussian", "consistency")
}
left, right, third = st.columns([2, 2, 1])
a = left.selectbox(
    "Run a", ids, index=ids.index(usual["gaussian"] or ids[0]), format_func=labels.get, key="a", bind="query-params"
)
b = right.selectbox(
    "Run b", ids, index=ids.index(usual["consistency"] or ids[1]), format_func=labels.get, key="b", bind="query-params"
)
r = third.number_input(
    "Radius r", 0.0, 10.0, 0.5, 0.05, key="r", bind="query-params", help="for certified accuracy at r"
)
if a == b:
    st.info("Choose two different runs.", icon=":material/compare_arrows:")
    st.stop()
one, other = (shown.set_index("run_id").loc[run_id] for run_id in (a, b))
setting = f"{one['mode']}, n = {one.n:,.0f}, n0 = {one.n0:,.0f}, α = {one.alpha:g}, {one.images:,.0f} test images"
p = queries.paired(a, b, r)


def verdict(low: float, high: float, more: str, less: str) -> str:
    """What an interval of b less a says."""
    return more if low > 0 else less if high < 0 else "the two are **not told apart**"


first, second, gained, lost = st.columns(4)
first.metric(
    "ACR, b less a", f"{p.acr:+.4f}", f"{p.acr_low:+.4f} to {p.acr_high:+.4f}", delta_color="off", delta_arrow="off",
    help=f"mean paired difference with its 95 % interval over the choice of images; paired t test p = {p.acr_p:.2g}",
)  # fmt: skip
second.metric(
    f"Certified accuracy at {r:g}, b less a", f"{p.accuracy:+.2%}", f"{p.accuracy_low:+.2%} to {p.accuracy_high:+.2%}",
    delta_color="off", delta_arrow="off", help=f"McNemar's exact test p = {p.accuracy_p:.2g}",
)  # fmt: skip
gained.metric("Images gained", p.gained, help=f"answered correctly with radius at least {r:g} by b alone")
lost.metric("Images lost", p.lost, help="by a alone")
st.markdown(
    f"a: **{labels[a]}**, b: **{labels[b]}**. On average "
    + verdict(p.acr_low, p.acr_high, "b certifies **larger radii**", "b certifies **smaller radii**")
    + f"; at r = {r:g} "
    + verdict(p.accuracy_low, p.accuracy_high, "b certifies **more images**.", "b certifies **fewer images**.").rstrip(
        "."
    )
    + "."
)
st.caption(
    f"{setting}. Intervals cover the choice of test images, not that of the training seed: another seed of the same method moves ACR too. "
    + (
        "Radii of imported logs have three digits."
        if shown[shown.run_id.isin([a, b])].radius_digits.notna().any()
        else ""
    )
)

rows = {run_id: queries.certificates(run_id) for run_id in (a, b)}
gains = {run_id: table.radius.where(table.predict == table.label, 0.0) for run_id, table in rows.items()}
both = pd.DataFrame({"idx": rows[a].idx, "label": rows[a].label, "gain_a": gains[a], "gain_b": gains[b]})
left, right = st.columns(2)
with left:
    st.subheader("Radius against radius")
    st.plotly_chart(
        radius_against_radius(both, (labels[a], labels[b])), key="radii", alt="radius of each image by both runs"
    )
    st.caption("One point an image; above the line b certifies more. A wrong answer or an abstention counts as 0.")
with right:
    st.subheader("By class")
    classes = queries.per_class(a).merge(queries.per_class(b), on=["label", "images"], suffixes=(" a", " b"))
    st.dataframe(
        classes[["label", "images", "acr a", "acr b", "certified_accuracy_0 a", "certified_accuracy_0 b"]],
        hide_index=True,
        column_config={
            "label": "class", "acr a": st.column_config.NumberColumn("ACR a", format="%.3f"),
            "acr b": st.column_config.NumberColumn("ACR b", format="%.3f"),
            "certified_accuracy_0 a": st.column_config.NumberColumn("accuracy a", format="percent", help="certified, at r = 0"),
            "certified_accuracy_0 b": st.column_config.NumberColumn("accuracy b", format="percent", help="certified, at r = 0"),
        },
    )  # fmt: skip
if one["mode"] == "fixed" and all((table.top_count >= 0).all() for table in rows.values()):
    left, right = st.columns(2)
    methods = [one.method, other.method]
    with left:
        st.subheader("How sure the votes are")
        shares = {labels[i]: (table.top_count / table.n).to_numpy() for i, table in rows.items()}
        st.plotly_chart(p_distribution(shares, methods), key="p", alt="distribution of p_A over the images, both runs")
        st.caption(
            "The share of votes for the class that was selected, image by image: an estimate of p_A, not its bound."
        )
    with right:
        st.subheader("ACR at fewer samples")
        at = {
            labels[i]: acr_by_n(
                table.top_count.to_numpy(),
                (table.predict == table.label).to_numpy(),
                int(one.n),
                sigma,
                one.alpha,
                i,
                NS,
            )
            for (i, table), sigma in zip(rows.items(), (one.sigma, other.sigma), strict=True)
        }
        st.plotly_chart(acr_by_samples(at, methods), key="by n", alt="ACR of both runs at fewer samples")
        st.caption(
            "A random part of each image's samples, bounded anew: what the same networks show at a smaller n. ACR grows with n until every "
            "image is at its own p_A, so levels at different n do not compare."
        )
else:
    st.caption(
        "The vote counts of these runs are not known at a fixed n: no distribution of p_A, no ACR at fewer samples."
    )
changed = both[(both.gain_a >= r) != (both.gain_b >= r)] if r > 0 else both[(both.gain_a > 0) != (both.gain_b > 0)]
st.subheader("Images gained and lost")
if changed.empty:
    st.caption(f"None at r = {r:g}.")
else:
    st.dataframe(
        changed.assign(by=changed.gain_b.gt(changed.gain_a).map({True: "gained", False: "lost"})), hide_index=True,
        column_config={"idx": "test image", "label": "class", "gain_a": st.column_config.NumberColumn("radius a", format="%.3f"),
                       "gain_b": st.column_config.NumberColumn("radius b", format="%.3f"), "by": "by b"},
    )  # fmt: skip
st.download_button(
    "Download the pairs as CSV",
    both.to_csv(index=False),
    "certscope-pairs.csv",
    "text/csv",
    icon=":material/download:",
    on_click="ignore",
)
