"""Which run certifies most images at a radius that the reader moves."""

from collections.abc import Callable
from math import floor

import pandas as pd
import streamlit as st

from app.figures.curves import ranking
from app.figures.palette import run_labels, title
from app.widgets.figure import draw
from app.widgets.run_choice import tell_unfit
from backend.statistics import share_band
from backend.store import queries
from backend.store.snapshot import mark

RANKED = 12  # at most, of the ranking


@st.fragment
def best_at_radius(
    drawn: pd.DataFrame, absent: list[str], theirs: pd.DataFrame, radii: tuple[float, float], setting: str, snapshot: tuple, once: Callable,
) -> None:  # fmt: skip
    """A ranking of the drawn runs at a radius, from … to … in radii.

    absent: methods that were asked for and have no run among the drawn; theirs: `queries.published_curves` of these, maybe no row;
    snapshot: the `mark` that drawn is of; setting, once: see `claim`.
    """
    left, right = st.columns([1, 3], gap="large")
    reach, end = radii[0], min(radii[1], float(floor(drawn.ceiling.max() * 100) / 100))
    if reach < end:
        reach = left.slider(
            "Radius r", reach, end, min(end, 0.5), 0.01, key="r", help="The change of the image, in ℓ2 norm of its pixels in [0, 1], that the answer is to survive.",
            **tell_unfit("r", reach, end),
        )  # fmt: skip
    ranked = _ranked(reach, drawn, once)
    if ranked.empty and mark() != snapshot:  # deleted meanwhile: the whole page looks again
        st.rerun()
    best = ranked.iloc[0]
    left.metric("Best here", f"{best.certified_accuracy:.1%}", help="certified accuracy at r")
    left.markdown(f"**{best.label}**" if best.certified_accuracy else "No run certifies an image that far.")
    if near := int((ranked.high.iloc[1:] >= best.low).sum()) if best.certified_accuracy else 0:
        left.caption(
            f"{best.low:.1%} to {best.high:.1%} on other images (95 %); {near} other{'s have intervals' if near > 1 else ' has an interval'} that overlap{'' if near > 1 else 's'} it: **Compare** tells pairs apart."
        )
    with right:
        draw(
            ranking(ranked.head(RANKED)), "ranking", f"certified accuracy at r = {reach:g}, the best first, with intervals",
            ranked.rename(columns={"low": "low_95", "high": "high_95"}).assign(r=reach), setting,
        )  # fmt: skip
    st.caption(
        f"Share of images answered correctly with a radius of at least {reach:g}: {setting}. Seeds are one bar, their mean. Whiskers are 95 % intervals over "
        "the choice of images: where they overlap widely, the order may be chance. The best of many runs, chosen on the test images, looks better "
        "than it is." + (f" The first {RANKED} of {len(ranked)}." if len(ranked) > RANKED else "")
    )
    if absent:
        names = " and ".join(map(title, absent))
        st.markdown(
            f":material/info: **Not among them: {names}**, of which there is no run by this recipe.{_of_theirs(reach, theirs)}"
        )


def _ranked(reach: float, drawn: pd.DataFrame, once: Callable) -> pd.DataFrame:
    """Certified accuracy at a radius of these runs, the mean over seeds and its interval low to high, the best first."""
    settings = once(("settings", len(drawn)), lambda: _settings(drawn))
    each = queries.accuracy_at(reach, drawn.run_id.to_list()).set_index("run_id").certified_accuracy
    rows = settings.explode("run_ids").merge(each.rename("at_r"), left_on="run_ids", right_index=True)
    setting = ["run_id", "label", "method", "sigma", "lam", "seeds", "images"]
    rows = rows.groupby(setting, as_index=False, dropna=False, sort=False).agg(certified_accuracy=("at_r", "mean"))
    reached = (rows.certified_accuracy * rows.images).round().to_numpy()
    rows["low"], rows["high"] = share_band(reached, rows.images.to_numpy())
    return rows.sort_values("certified_accuracy", ascending=False, kind="stable")


def _settings(drawn: pd.DataFrame) -> pd.DataFrame:
    """These runs, seeds together, and as `label` what they are called."""
    settings = queries.over_seeds(drawn.run_id)
    return settings.assign(label=settings.run_id.map(run_labels(settings)))


def _of_theirs(reach: float, theirs: pd.DataFrame) -> str:
    """What the paper's released networks reach at a radius, in words; "" where none is known."""
    at = theirs[(theirs.r - reach).abs() < 1e-9].sort_values("certified_accuracy", ascending=False)
    best = [
        f"{title(row.method)} {row.certified_accuracy:.1%} (σ = {row.sigma:g})"
        for row in at.drop_duplicates("method").itertuples()
    ]
    return (
        f" The paper's released networks on the same terms reach, at their best σ: {', '.join(best)}." if best else ""
    )
