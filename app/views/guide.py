"""Guide: what a certificate is, the methods, how to read the plots, how to bring one's own, and what Certscope does not tell."""

from dataclasses import fields

import pandas as pd
import streamlit as st

from app.figures.rounding import round_down
from app.figures.samples import contributions, radius_by_p, samples_by_radius
from app.widgets.examples import PAIR, READING, comparison, shipped, trade_offs
from app.widgets.figure import draw
from app.widgets.glossary import TERMS
from app.widgets.run_choice import choose_step, tell_unfit
from backend.certification.confidence import ceiling, lower_bound, radius
from backend.certification.planning import chance, expected_radius, expected_votes, samples_for
from backend.datasets import DATASETS
from backend.home import CHECKOUT, PRECOMPUTED
from backend.recipes import in_words
from backend.reproduction import usual
from backend.statistics import NS
from backend.store import queries
from backend.training.methods import METHODS, Method, place

WORDS = CHECKOUT / "docs" / "guide"  # the chapters without figures
EXAMPLE = (WORDS / "logit_pairing.py").read_text()
CHAPTERS = {
    "certificate": "What a certificate is", "samples": "How many samples?", "methods": "The methods", "plots": "How to read the plots",
    "yours": "Your own method, images and network", "limits": "What Certscope does not tell", "words": "The words", "sources": "Sources",
}  # fmt: skip
P = [0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999]
SIGMAS = [0.12, 0.25, 0.5, 1.0]
ALPHA = 0.001
COLUMN = 860  # pixels: lines that the eye can follow
GRID = [1 - 10 ** (-i / 12) for i in range(4, 61)]  # p from 0.54 to 0.99999


def chapter(name: str) -> None:
    """A chapter's heading, at #name."""
    st.header(CHAPTERS[name], anchor=name)


def written(name: str) -> None:
    st.markdown((WORDS / f"{name}.md").read_text(), width=COLUMN)


def percent(share: float) -> str:
    """A chance in words that make no certainty of it."""
    return "above 99.9%" if share > 0.999 else "below 0.1%" if share < 0.001 else f"{share:.1%}"


@st.fragment
def how_far() -> None:
    """Votes, bound and radius for a chosen p_A and n."""
    one, two, three = st.columns(3)
    p = choose_step(one, "p_A", P, 0.99, "p", "p_A =", "{:g}".format, help=TERMS["p_A"])
    n = choose_step(two, "Samples n", NS, 10_000, "n", "n =", "{:,}".format, help=TERMS["n"])
    sigma = choose_step(three, "Noise σ", SIGMAS, 0.5, "sigma", "σ =", help=TERMS["σ"])
    most, exact, reached = ceiling(sigma, n, ALPHA), radius(p, sigma), expected_radius(p, sigma, n, ALPHA)
    k = expected_votes(p, n)
    shown = st.columns(4)
    shown[0].metric("Votes, if as expected", f"{k:,}", help="⌊p_A n⌋: real votes scatter around it")
    shown[1].metric(
        "p_A at least", round_down(lower_bound(k, n, ALPHA), 5), help="the Clopper–Pearson bound of these votes"
    )
    shown[2].metric("Certified radius", round_down(reached) if reached else "none", help=TERMS["radius"])
    shown[3].metric("Exact radius", f"{exact:.3f}", help="σ Φ⁻¹(p_A), which nobody knows")
    certified = [expected_radius(v, sigma, n, ALPHA) for v in GRID]
    draw(
        radius_by_p(GRID, [radius(v, sigma) for v in GRID], certified, most, (p, reached), n), "radius by p",
        f"Radius against p_A: {n:,} samples certify {round_down(reached)} of {exact:.3f} at p_A = {p:g}, and {round_down(most)} at most",
        pd.DataFrame({"p_A": GRID, "certified_radius": certified}),
    )  # fmt: skip
    st.caption(
        f"σ = {sigma:g}, α = {ALPHA:g}, votes at their expectation. Even {n:,} votes of {n:,} prove no more than p_A ≥ "
        f"{round_down(lower_bound(n, n, ALPHA), 5)}: the **ceiling** σ Φ⁻¹(α^(1/n)) = {round_down(most)}. Ten times fewer wrong votes add radius every time, a little less of it; "
        "a larger σ stretches everything, and makes p_A smaller."
    )


@st.fragment
def how_many() -> None:
    """The number of samples that certifies a wanted radius, in nine tries of ten."""
    one, two, three = st.columns(3)
    p = choose_step(one, "p_A of the image", P, 0.99, "p2", "p_A =", "{:g}".format, help=TERMS["p_A"])
    sigma = choose_step(two, "Noise σ of the network", SIGMAS, 0.5, "sigma2", "σ =", help=TERMS["σ"])
    r = three.number_input(
        "Radius to certify", 0.05, 5.0, 1.0, 0.05, key="r2", help=TERMS["radius"], **tell_unfit("r2", 0.05, 5.0)
    )  # fmt: skip
    exact, need = radius(p, sigma), samples_for(r, p, sigma, ALPHA)
    if need is None:
        st.markdown(
            f"**No number of samples** that can be drawn certifies {r:g}: the exact radius is {exact:.3f}. More noise, or another network, may."
        )
    else:
        st.markdown(
            f"About **{need:,} samples** certify r = {r:g} in nine tries of ten; the exact radius is {exact:.3f}. With 10,000 the chance is "
            f"{percent(chance(r, p, sigma, 10_000, ALPHA))}, with 100,000 it is {percent(chance(r, p, sigma, 100_000, ALPHA))}."
        )  # fmt: skip
    wanted = [exact * part / 100 for part in (5, *range(10, 100, 5), 96, 97, 98, 99)]
    points = [(v, n) for v in wanted if (n := samples_for(v, p, sigma, ALPHA))]
    draw(
        samples_by_radius(points, exact, (r, need) if need else None), "samples by radius",
        "Samples needed against the radius to certify, growing without bound towards the exact radius", pd.DataFrame(points, columns=["r", "n"]),
    )  # fmt: skip
    st.caption(
        f"α = {ALPHA:g}, a fixed n. Half of the exact radius is cheap, its last hundredth is not: the mode *robust at r?* uses that, and stops early where r is far from "
        "the exact radius."
    )


def methods() -> None:
    """Every method: what it is from, its loss, what it takes."""
    written("methods")
    for name in sorted(METHODS, key=place):  # from the simplest to compositions
        method = METHODS[name]
        st.subheader(method.title, anchor=f"method-{name}")
        st.markdown(f"*{method.paper}*")
        if method.formula:
            st.latex(f"\\begin{{gathered}} {method.formula} \\end{{gathered}}")
        st.text(" ".join(method.__doc__.split()))
        if listed := _values({f.name: f.default for f in fields(method)}):
            st.caption(f"`{name}`, with {listed} unless said otherwise.{_in_the_papers(method)}")


def _values(hyper: dict) -> str:
    return ", ".join(f"`{name}` = {in_words(value)}" for name, value in hyper.items())


def _in_the_papers(method: type[Method]) -> str:
    """What the papers' experiments take otherwise, equal values together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for (dataset, sigma), values in method.paper_values.items():
        alike.setdefault((_values(values), dataset), []).append(f"{sigma:g}")
    said = "; ".join(f"{values} on {dataset} at σ = {', '.join(at)}" for (values, dataset), at in alike.items())
    likewise = "; ".join(
        f"{other.name} as {other.like}"
        for other in DATASETS.values()
        if other.like in {dataset for _, dataset in alike}
    )
    return f" By the recipe `paper`: {'; '.join(filter(None, [said, likewise]))}." if said else ""


st.title("Guide")
st.markdown(
    "Certscope trains image classifiers whose answers carry a proof: *no small change of this image changes the answer*. This page says what such a proof is worth, and what it is not."
)
st.markdown("\n".join(f"{i}. [{words}](#{name})" for i, (name, words) in enumerate(CHAPTERS.items(), 1)))

chapter("certificate")
written("certificate")
st.subheader("Try it: from votes to a radius", anchor="try")
how_far()

chapter("samples")
st.markdown(
    "You want a radius r, and the network gives an image the probability p_A under noise. How many noisy copies must vote until r is certified? It depends on how near r is to the exact radius."
)
how_many()

chapter("methods")
methods()

chapter("plots")
runs = shipped()
shares = {}
if runs.empty:
    st.info(
        "The figures of this chapter are drawn from the shipped results, which this store does not hold. `python -m backend publish` brings them.",
        icon=":material/database_off:",
    )
else:
    one = runs.iloc[0]
    st.caption(
        f"Drawn from the shipped runs on MNIST: {queries.terms(one)}, recipe `{one.recipe}` ({one.epochs} epochs), one seed a run."
    )
    common = runs[usual(runs)]
    trade_offs(runs, common)
    shares = comparison(common)
st.subheader("Playground")
st.markdown(READING["Playground"])

chapter("yours")
written("own_method")
st.code(EXAMPLE, wrap_lines=True)
written("own")
st.markdown(
    "**Any other network** is certified from Python, in this folder: a `torch.nn.Module` in eval mode that gives logits (B, K) for images "
    "(B, C, H, W) in [0, 1], in the place of `network` here, on any images of yours. It should have been trained under noise of this σ."
)
st.code((WORDS / "own_network.py").read_text(), language="python")

chapter("limits")
written("limits")
if shares:
    draw(
        contributions(shares, list(PAIR)), "shares", "share of ACR that the easiest images make up", pd.DataFrame(shares),
    )  # fmt: skip
    st.caption(
        "Of the two networks above: how much of ACR the images with the largest radii make up. Images that are wrong or abstained on add nothing, whatever their number."
    )

chapter("words")
words = pd.DataFrame({"word": TERMS.keys(), "meaning": TERMS.values()})
st.table(words, hide_index=True, alt="the field's words and what they mean")

chapter("sources")
written("sources")
with st.expander("Where the published numbers come from", icon=":material/menu_book:"):
    st.markdown((PRECOMPUTED / "published" / "README.md").read_text().split("\n", 2)[2])
