"""Trade-offs: what certified robustness costs, and whether Consistency buys more of it than the baselines."""

import json
from collections.abc import Callable
from functools import partial

import pandas as pd
import streamlit as st

from app.figures.curves import certified_accuracy
from app.figures.palette import run_labels, title
from app.widgets.along_lambda import show_along_lambda
from app.widgets.best_at_radius import best_at_radius
from app.widgets.claim import claim
from app.widgets.comparable import choose_comparable, look_again, one_training
from app.widgets.figure import draw
from app.widgets.glossary import TERMS
from app.widgets.launch import symbol
from app.widgets.published import beside_the_papers, reproduced
from app.widgets.run_choice import tell_absent
from backend.recipes import departures, in_papers, in_words, on_another, recipe_departures
from backend.reproduction import along_lambda, cells, usual, without_ablations
from backend.spec import PRECISIONS, WHOLE
from backend.statistics import comparable_radii, early_stop, share_band
from backend.store import queries
from backend.store.snapshot import mark
from backend.training.methods import METHODS

MOST_BANDS = 12  # lines of a figure: of more nobody can follow one

st.title("What does certified robustness cost?")
st.markdown(
    "A *smoothed* classifier answers what its network most often says under Gaussian noise. Its answer comes with a "
    "**radius**: no change of the image shorter than that (in ℓ2) can change it. More noise σ buys radius and costs accuracy. "
    "[Jeong & Shin, NeurIPS 2020](https://arxiv.org/abs/2006.04062) claim of *Consistency* regularization that its weight λ moves along this "
    "trade-off, and that it beats the baselines' **ACR**: the average certified radius, 0 where the answer is wrong. "
    "Everything below was certified with real samples."
)

snapshot = mark()
look_again(snapshot)
with st.container():  # one a part of the page: `run_choice` says why
    every, on_these_terms = choose_comparable(queries.runs())
if every.empty:
    st.info(
        "No certified run fits these filters. Choose another σ or method above, or start a run on the **Runs** page.",
        icon=":material/filter_alt_off:",
    )
    st.stop()
one = every.iloc[0]
fixed = one["mode"] == "fixed"
nearest, furthest = comparable_radii(one["mode"])
setting = f"{one.dataset}, {queries.terms(one)}"
terms = (one.dataset, int(one.n), int(one.n0), one.alpha, one.image_set)


@st.cache_resource(max_entries=500, show_spinner=False)
def made_once(snapshot: tuple, run_ids: tuple, name: str | tuple, _make: Callable):
    """What `_make` makes of these runs of this snapshot: once for all who look at them. name: what else it depends on."""
    return _make()


of_every = partial(made_once, snapshot, tuple(every.run_id))
# One setting a method, σ and recipe: the others are the path along λ, and ablations.
every_usual = every[of_every("usual", lambda: usual(every))]


def of_the_papers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at the σ and of the networks that are shown; none beside an adaptive mode."""
    return table[table.sigma.isin(every.sigma) & fixed & table.architecture.isin(every.architecture)]


released = of_the_papers(queries.published_groups(*terms))  # published networks on the same terms
their_path = along_lambda(released[released.method.isin(every.method)])
peers = without_ablations(released)
their_curves = queries.published_curves(*terms).merge(
    peers.loc[peers.method.isin(every.method), ["architecture", "method", "sigma", "lam", "hyper"]]
)
published = of_the_papers(queries.published(one.dataset)) if peers.empty else peers

with st.container():
    if imported := int((every.source == "published").sum()):
        st.caption(
            f":material/input: {imported} of these {len(every)} runs are imported from logs: their vote counts are not known"
            + (", and radii have three digits." if (every.radius_digits < WHOLE).any() else ".")
        )


def at_sigmas(sigmas: list[float]) -> str:
    return " at σ = " + " and ".join(f"{sigma:g}" for sigma in sorted(set(sigmas)))


def how_trained() -> None:
    """Recipes, and where hyper-parameters are not the paper's."""
    said = []
    trained = every_usual[every_usual.source == "trained"]
    if trained.empty:
        return
    recipes = sorted(set(zip(trained.recipe, trained.epochs, strict=True)))
    for (recipe, method), rows in trained.groupby(["recipe", "method"]):
        found: dict[str, list[float]] = {}
        for run in rows.itertuples():
            for name, (here, there) in departures(method, one.dataset, run.sigma, json.loads(run.hyper)).items():
                field = METHODS[method].__dataclass_fields__[name]
                at = found.setdefault(
                    f"{symbol(field)} = {in_words(here)} (paper{on_another(one.dataset)}: {in_words(there)})", []
                )
                at.append(run.sigma)
        words = [text + ("" if set(at) == set(rows.sigma) else at_sigmas(at)) for text, at in found.items()]
        whose = title(method) + (f", `{recipe}`" if len(recipes) > 1 else "")
        said += [f"{whose}: {', '.join(words)}"] if words else []
    named = ", ".join(f"`{name}` ({epochs} epochs)" for name, epochs in recipes)
    steps = [
        f"`{name}`: "
        + ", ".join(f"{field} = {in_words(here)} (paper{on_another(one.dataset)}: {in_words(there)})" for field, (here, there) in changes.items())
        for name in sorted(set(trained.recipe)) if (changes := recipe_departures(name, one.dataset))
    ]  # fmt: skip
    if other := sorted(set(trained.train_precision) - {PRECISIONS[0]}):
        steps.append(f"some in {' and '.join(other)} (paper: {PRECISIONS[0]})")
    with st.expander(
        "How these networks were trained, and where that departs from the paper", icon=":material/model_training:"
    ):
        st.markdown(
            f"Recipe {named}; "
            + (
                "the paper's networks: 90 epochs on MNIST, 150 on CIFAR-10"
                if in_papers(one.dataset)
                else f"the papers have no experiment on {one.dataset} that it could depart from"
            )
            + (
                f"; it has none of {one.dataset}, and those of its experiment{on_another(one.dataset)}, are taken"
                if on_another(one.dataset)
                else ""
            )
            + ".\n\n"
            + "\n".join(f"- {text}" for text in steps + said)
        )


def most_lines(drawn: pd.DataFrame, joint: bool) -> int:
    """How many lines of ours a figure has at most."""
    groups = queries.over_seeds(drawn.run_id)
    return len(groups) if joint else int(groups.groupby("sigma").size().max())


def curve_panels(drawn: pd.DataFrame, extras: list[str], joint: bool) -> dict:
    """{σ: (figure, its numbers)}; one under None, of all σ, if `joint`."""
    curves = queries.group_curves(drawn.run_id.to_list()).query("@nearest <= r <= @furthest")
    if "95 % bands" in extras:
        reached = (curves.certified_accuracy * curves.images).round().to_numpy()
        curves["low"], curves["high"] = share_band(reached, curves.images.to_numpy())
    theirs = their_curves[their_curves.sigma.isin(drawn.sigma)]
    if "published networks" not in extras:
        theirs = theirs.head(0)
    best = queries.envelope(drawn.run_id.to_list() if "envelope" in extras else []).query("@nearest <= r <= @furthest")
    lines, panels = drawn[drawn.run_id.isin(curves.group_id)], {}
    names = run_labels(lines.assign(seeds=lines.run_id.map(curves.groupby("group_id").seeds.first())))
    for sigma in [None] if joint else sorted(lines.sigma.unique()):
        here = lines if sigma is None else lines[lines.sigma == sigma]
        points = curves[curves.group_id.isin(here.run_id)]
        words = names if sigma is None else {i: name.replace(f", σ = {sigma:g}", "") for i, name in names.items()}
        there = theirs if sigma is None else theirs[theirs.sigma == sigma]
        figure = certified_accuracy(here, points, words, there, best)
        panels[sigma] = figure, points.assign(run=points.group_id.map(names))
    return panels


@st.fragment
def curves_of(drawn: pd.DataFrame) -> None:
    """Certified accuracy against radius: a panel a σ, or all in one."""
    theirs = ["published networks"] if not their_curves.empty else []
    offered = ["all σ in one", "95 % bands", "envelope", *theirs]
    extras = st.pills(
        "Also show", offered, selection_mode="multi", default=theirs, key="extras", bind="query-params", **tell_absent("extras", "the extra", offered, ""),
        help="*95 % bands*: Clopper–Pearson's interval over the choice of images; of several seeds that of their mean, wider than need be. "
        "*envelope*: " + TERMS["envelope"],
    )  # fmt: skip
    joint = "all σ in one" in extras or "envelope" in extras
    place = st.empty()
    if "95 % bands" in extras and (lines := most_lines(drawn, joint)) > MOST_BANDS:
        extras = [extra for extra in extras if extra != "95 % bands"]
        place.caption(
            f":material/filter_alt: Bands are drawn for at most {MOST_BANDS} lines in a figure, and there would be {lines}: choose fewer σ, methods or recipes."
        )
    panels = once(("curves", len(drawn), *sorted(extras)), lambda: curve_panels(drawn, extras, joint))
    for column, (sigma, (figure, points)) in zip(st.columns(len(panels)), panels.items(), strict=True):
        with column:
            draw(
                figure,
                "curves" if sigma is None else f"curves {sigma:.12g}",
                "Certified accuracy against radius"
                + ("" if sigma is None else f" at σ = {sigma:g}")
                + ", one line a run; the download has the numbers",
                points,
                setting,
            )


with st.container():
    if not early_stop(one["mode"]):
        claim(every_usual, published, setting, of_every)
    how_trained()

with st.container():
    if nearest < furthest:
        st.header("Certified accuracy against radius")
with st.container():
    shown = one_training(every, on_these_terms)
if shown.empty:
    st.info("Choose a recipe above, to draw the runs that were trained by it.", icon=":material/filter_alt_off:")
    st.stop()
once = partial(
    made_once, snapshot, (tuple(every.run_id), tuple(shown.run_id))
)  # beside whom the published stand: `every`
common = every_usual[every_usual.run_id.isin(shown.run_id)]
drawn = common
with st.container():
    if (
        nearest <= furthest
        and len(common) < len(shown)
        and st.toggle(
            "Every setting",
            key="every",
            bind="query-params",
            help="Other λ and ablations too, here and in the ranking.",
        )
    ):
        drawn = shown
with st.container():
    if (collapsed := drawn[drawn.missing_classes > 0]).shape[0]:
        names = run_labels(drawn)
        st.warning(
            "Training collapsed, and is shown as it is: "
            + "; ".join(f"{names[r.run_id].replace(', training collapsed', '')}, which hardly ever answers {int(r.missing_classes)} {'class' if r.missing_classes == 1 else 'classes'}" for r in collapsed.itertuples()),
            icon=":material/trending_down:",
        )  # fmt: skip
with st.container():
    if nearest < furthest:
        curves_of(drawn)
        st.caption(
            f"Share of images that are answered correctly with a radius of at least r: {setting}. An abstention counts as wrong. "
            "Runs that differ in their seeds alone are one line, their mean; a seed whose training collapsed is a line of its own. "
            + (
                ""
                if peers.empty
                else "Thin lines: the paper's released networks, methods and σ as chosen, on the same terms. "
            )
            + f"Vertical lines: the ceiling{' σ Φ⁻¹(α^(1/n))' if fixed else ''}, beyond which n samples certify nothing. Click a name to hide its line."
        )
with st.container():
    if nearest <= furthest:
        st.header("Which is best at a radius?")
        absent = [method for method in METHODS if method in set(every.method) - set(drawn.method)]
        others = their_curves[their_curves.method.isin(absent)]
        best_at_radius(drawn, absent, others, (nearest, furthest), setting, snapshot, once)

if not published.empty:
    beside_the_papers(shown, common, published, peers, setting, once)
reproduced(of_every("cells", lambda: cells(every, peers)))

if not early_stop(one["mode"]):
    show_along_lambda(shown, their_path, setting, once)

st.header("The runs")
told = ["run_id", "method", "sigma", "lam", "seed", *queries.MEASURES, "recipe", "epochs"]
rest = [name for name in (*queries.RUN_COLUMNS, "ceiling", "device", "git_commit") if name not in told]
table = pd.DataFrame(shown[[*told, *rest]])
if early_stop(one["mode"]):
    table = table.drop(columns=list(queries.MEASURES))
st.dataframe(
    table.assign(run_id="/run?run=" + table.run_id),
    hide_index=True,
    placeholder="–",
    alt="every run that is shown, with its settings and figures",
    column_config={
        "run_id": st.column_config.LinkColumn(
            "run", display_text=r"run=[^-]*-[^-]*-(.*)$", width="medium", pinned=True
        ),
        "acr": st.column_config.NumberColumn("ACR", format="%.4f", help=TERMS["ACR"]),
        "certified_accuracy_0": st.column_config.NumberColumn(
            "certified accuracy at 0", format="percent", help=TERMS["certified accuracy at 0"]
        ),
        "abstention": st.column_config.NumberColumn(format="percent", help=TERMS["abstention"]),
        "ceiling": st.column_config.NumberColumn(format="%.3f", help=TERMS["ceiling"]),
        "sigma": st.column_config.NumberColumn("σ", help=TERMS["σ"]),
        "lam": st.column_config.NumberColumn("λ", help=TERMS["λ"]),
    },
)
st.download_button(
    "Download as CSV", lambda: table.to_csv(index=False), "certscope-runs.csv", "text/csv", icon=":material/download:",
    on_click="ignore",
)  # fmt: skip
