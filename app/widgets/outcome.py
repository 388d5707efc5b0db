"""What a run's certificates amount to, and how surely."""

import numpy as np
import pandas as pd
import streamlit as st

from app.figures.curves import certified_accuracy
from app.figures.palette import run_labels
from app.figures.rounding import round_down
from app.widgets.figure import draw
from app.widgets.glossary import TERMS
from backend.datasets import named
from backend.spec import WHOLE, RunSpec
from backend.statistics import acr_interval, comparable_radii, early_stop, share_band
from backend.store import queries

PLAINLY = {"delta_color": "off", "delta_arrow": "off"}  # an interval, no change


def results(run_id: str, spec: RunSpec) -> None:
    """What its certificates amount to, with how surely."""
    row = queries.run(run_id)
    if row.empty:
        st.info(
            "This run is not in the results store: it has no claims that could be shown.",
            icon=":material/database_off:",
        )
        return
    one, rows = row.iloc[0], queries.certificates(run_id)
    if rows.empty:
        st.info("It was trained and not certified.", icon=":material/verified:")
        return
    right = (rows.predict == rows.label).to_numpy()
    least, most = comparable_radii(one["mode"])
    if early := early_stop(one["mode"]):
        st.warning(early, icon=":material/timer_off:")
        for r in dict.fromkeys((least, most)) if least <= most else ():
            _accuracy(st, right & (rows.radius >= r).to_numpy(), r)
    else:
        cards = st.columns(4)
        _accuracy(cards[0], right, 0)
        between = "{:.4f} to {:.4f}".format(*acr_interval(np.where(right, rows.radius, 0.0))) if len(rows) > 1 else None
        cards[1].metric("ACR", f"{one.acr:.4f}", between, help=TERMS["ACR"], **PLAINLY)
        cards[2].metric("Abstention", f"{one.abstention:.2%}", help=TERMS["abstention"])
        cards[3].metric(
            "Right and at the ceiling", f"{one.at_ceiling:.1%}", f"ceiling {round_down(one.ceiling, 4)}", help=TERMS["ceiling"], **PLAINLY
        )  # fmt: skip
    digits = (
        ""
        if pd.isna(one.radius_digits) or one.radius_digits == WHOLE
        else f" Radii of the log have {one.radius_digits:.0f} digits, maybe rounded upwards."
    )
    st.caption(f"{queries.terms(one)}. Intervals are 95 % over the choice of images, not of the training seed.{digits}")
    if least < most:
        _curve(row, most)
    if not early:
        st.header("By class")
        _per_class(one)


def _accuracy(where, reached: np.ndarray, r: float) -> None:
    """Certified accuracy at r with its interval. reached: whether each image is right with a radius of at least r."""
    low, high = (float(bound) for bound in share_band(reached.sum(), len(reached)))
    words = TERMS["certified accuracy at 0"] if r == 0 else TERMS["certified accuracy"]
    where.metric(
        f"Certified accuracy at {r:g}", f"{reached.mean():.2%}", f"{low:.1%} to {high:.1%}", help=words, **PLAINLY
    )  # fmt: skip


def _curve(row: pd.DataFrame, most: float) -> None:
    """Certified accuracy against radius up to `most`, with its band over the choice of images."""
    points = queries.curves(row.run_id.to_list()).rename(columns={"run_id": "group_id"}).query("r <= @most")
    points["low"], points["high"] = share_band(
        (points.certified_accuracy * points.images).round().to_numpy(), points.images.to_numpy()
    )
    figure = certified_accuracy(row, points, run_labels(row)).update_layout(showlegend=False, height=360)
    st.header("Certified accuracy")
    draw(figure, "certified accuracy", "certified accuracy of this run at every radius, with its 95 % band", points)


def _per_class(run) -> None:
    table = queries.per_class([run.run_id])
    table["label"] = named(run.dataset, run.image_set, table.label)
    st.dataframe(
        table, hide_index=True, alt="images, ACR, certified accuracy and abstention of each class",
        column_config={
            "label": "class", "acr": st.column_config.NumberColumn("ACR", format="%.3f", help=TERMS["ACR"]),
            "certified_accuracy_0": st.column_config.NumberColumn("certified accuracy at 0", format="percent"),
            "abstention": st.column_config.NumberColumn(format="percent", help=TERMS["abstention"]),
        },
    )  # fmt: skip
    if run.missing_classes > 0:
        several = "classes are" if run.missing_classes > 1 else "class is"
        st.caption(
            f"{run.missing_classes} {several} hardly ever answered: wherever runs are compared, this one counts as collapsed."
        )
