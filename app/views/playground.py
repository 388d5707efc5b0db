"""Playground: two methods on one data set of the plane, trained while one waits: regions, boundaries, certified balls."""

from contextlib import closing

import numpy as np
import pandas as pd
import streamlit as st

from app.figures.palette import title
from app.figures.playground import curves, data, regions
from app.widgets.attempt import plain
from app.widgets.figure import draw, draw_alone
from app.widgets.glossary import TERMS
from app.widgets.outcome import PLAINLY
from app.widgets.run_choice import choose_step, tell_absent, tell_unfit
from backend import playground
from backend.certification.confidence import ceiling
from backend.certification.metrics import abstention, certified_accuracy
from backend.plan import has_lam
from backend.playground import LAMS, NS, PLANES, SEEDS, SIGMAS, TEST, TRAIN, Diverged, Played, Settings
from backend.spec import SpecError
from backend.statistics import mean_interval, paired, share_band
from backend.training.methods import METHODS

BALLS = 20  # test points that are drawn, of those that are certified
RADII = 101  # of the curves
LAM = 5.0  # at first
PRESETS = {  # name: σ, λ, what it is about if not σ alone, what to look for
    "First look": (0.1, LAM, "consistency", "Consistency straightens the boundary; at n = 1,000, on moons and spirals it gives up a few points, and the balls of the others grow; on rings it wins points, and balls shrink; on blobs little changes"),
    "Little noise": (0.03, LAM, "", "nearly everything is right, but the balls stay small: none is larger than the ceiling, which grows with σ"),
    "Much noise": (0.3, LAM, "", "the noise reaches across the plane: details are lost for good, and the methods come to resemble each other"),
    "Strong λ": (0.2, 100.0, "λ", "the regulariser outweighs the labels, and training may collapse to one answer everywhere, or diverge"),
}  # fmt: skip
DOING = {
    "waiting": "others are training; yours begins when they are through",
    "training": "{name}: epoch {done} of {total}",
    "certifying": "{name}: {done} of {total} test points certified",
}


def choose() -> tuple[Settings, Settings]:
    """Both methods' settings, from the URL and the widgets."""
    methods, one, two, three = list(METHODS), *st.columns(3)
    plane = one.selectbox(
        "Data set", list(PLANES), format_func=lambda name: PLANES[name].title, key="plane", bind="query-params",
        **tell_absent("plane", "the data set", [plane.title for plane in PLANES.values()], ""),
        help=f"{TRAIN} training points and {TEST} test points in a square with sides of length 1; σ and radii are in this length.",
    )  # fmt: skip
    first, second = (
        where.selectbox(
            f"Method {which}", methods, methods.index(usual), title, key=key, bind="query-params",
            **tell_absent(key, f"method {which}", list(map(title, methods)), ""),
        )
        for where, which, usual, key in ((two, "a", "gaussian", "first"), (three, "b", "consistency", "second"))
    )  # fmt: skip
    one, two, three, four = st.columns(4)
    sigma = choose_step(
        one, "Noise σ", SIGMAS, 0.1, "noise", "σ =", "{:g}".format,
        help="Standard deviation of the Gaussian noise, the side of the square being 1. The network is trained and smoothed with it.",
    )  # fmt: skip
    lam = choose_step(
        two, "λ", LAMS, LAM, "lambda", "λ =", "{:g}".format, help=TERMS["λ"] + " Gaussian, SmoothAdv and SmoothMix have none.",
        disabled=not (has_lam(first) or has_lam(second)),
    )  # fmt: skip
    n = choose_step(three, "Samples n", NS, 1_000, "samples", "n =", "{:,}".format, help=TERMS["n"])
    seed = four.number_input(
        "Seed", SEEDS[0], SEEDS[-1], 0, key="seed", help=TERMS["seed"], **tell_unfit("seed", SEEDS[0], SEEDS[-1], int)
    )  # fmt: skip
    return Settings(plane, first, sigma, lam, seed, n), Settings(plane, second, sigma, lam, seed, n)


def preset(sigma: float, lam: float) -> None:
    """Set the sliders, and train."""
    st.session_state.update({"noise": sigma, "lambda": lam, "playing": True})


def play(settings: tuple[Settings, ...]) -> None:
    """Train and certify what nobody has yet; progress is shown meanwhile."""
    place = st.empty()
    place.progress(0.0, "loading PyTorch…")
    for number, one in enumerate(settings):
        with closing(playground.play(one)) as steps:  # the turn is given back at once when the visitor goes on
            for step in steps:
                if isinstance(step, playground.Step) and (step.done % 5 == 0 or step.done == step.total):
                    half = 0.5 if step.doing == "certifying" else 0.0
                    words = DOING[step.doing].format(name=title(one.method), done=step.done, total=step.total)
                    place.progress((number + half + step.done / step.total / 2) / len(settings), words)
    place.empty()


def frame(plane: str, train: bool) -> pd.DataFrame:
    """Points with x, y, label."""
    x, label = playground.points(plane, train)
    return pd.DataFrame({"x": x[:, 0], "y": x[:, 1], "label": label})


def certified(played: Played) -> pd.DataFrame:
    """The test points with what is certified of them: x, y, label, predict, radius, outcome."""
    rows = frame(played.settings.plane, train=False)
    rows["predict"], rows["radius"] = zip(*((c.predict, c.radius) for c in played.certificates), strict=True)
    rows["outcome"] = np.where(rows.predict < 0, "abstains", np.where(rows.predict == rows.label, "right", "wrong"))
    return rows


def show(name: str, settings: Settings) -> None:
    """One method: its picture and its numbers."""
    st.header(f"{name}: {title(settings.method)}")
    training, played = frame(settings.plane, train=True), playground.kept(settings)
    if played is None:
        draw_alone(data(training), f"the training points of {PLANES[settings.plane].title}", f"data {name}")
        return
    if isinstance(played, Diverged):
        st.warning(
            f"Training diverged, and there is nothing to draw: choose a smaller λ or σ. {played.why}",
            icon=":material/trending_down:",
        )
        return
    shaded, lines = (played.smoothed, played.base) if view == "smoothed" else (played.base, played.smoothed)
    rows = certified(played)
    figure = regions(shaded, playground.margins(lines), PLANES[settings.plane].classes, training, rows.head(BALLS))
    alt = f"decision regions of {title(settings.method)}, with {BALLS} test points and their certified balls"
    draw(figure, f"regions {name}", alt, rows)
    half = (np.subtract(*mean_interval(played.gains)[::-1])) / 2
    low, high = share_band(played.right.sum(), TEST)
    with st.container(horizontal=True):
        st.metric(
            "Base accuracy, no noise", f"{played.base_accuracy:.1%}", width="content",
            help="Share of the test points that the network itself gets right. Nothing is certified about it.",
        )  # fmt: skip
        st.metric(
            "Certified accuracy at 0", f"{played.right.mean():.1%}", f"{low:.1%} to {high:.1%}", **PLAINLY,
            width="content", help=TERMS["certified accuracy at 0"],
        )  # fmt: skip
        st.metric(
            "ACR", f"{played.gains.mean():.4f}", f"± {half:.4f}", **PLAINLY, width="content", help=TERMS["ACR"]
        )  # fmt: skip
        st.metric("Abstentions", f"{abstention(played.certificates):.1%}", width="content", help=TERMS["abstention"])
    if played.missing_classes:
        st.warning(
            f"Training collapsed: the network hardly ever answers {played.missing_classes} of {len(PLANES[settings.plane].classes)} "
            "classes. A constant answer has the largest radius that n samples certify, wherever it is right: look at the accuracy "
            "beside its ACR.",
            icon=":material/trending_down:",
        )  # fmt: skip


def verdict(a: Played, b: Played) -> str:
    """What the paired difference in ACR says, and what it does not."""
    p = paired(a.gains, b.gains, a.right, b.right, 0.0)
    says = {1: "larger radii", -1: "smaller radii", 0: None}[p.acr_told]
    told = f"b certifies **{says}** on average" if says else "on average the two are **not told apart**"
    collapsed = [name for name, one in (("a", a), ("b", b)) if one.missing_classes]
    but = f" That says little here: **{' and '.join(collapsed)} collapsed**." if collapsed else ""
    return f"Point by point, {told}: ACR of b less a is {p.acr:+z.4f} (95 % interval {p.acr_low:+z.4f} to {p.acr_high:+z.4f}).{but}"


def shares(played: list[Played], reach: float) -> pd.DataFrame:
    """Certified accuracy of both at RADII radii up to the ceiling, with Clopper–Pearson's interval."""
    radii, parts = np.linspace(0, reach, RADII), []
    for one in played:
        share = np.array([certified_accuracy(one.certificates, r) for r in radii])
        low, high = share_band(np.rint(share * TEST), TEST)
        parts.append(
            pd.DataFrame({"method": one.settings.method, "r": radii, "share": share, "low": low, "high": high})
        )
    return pd.concat(parts, ignore_index=True)


st.title("Playground")
st.markdown(
    "Tiny networks on points of a plane, trained here and now by the methods of this dashboard, then smoothed and certified like the large "
    "ones. Where two pixels are all there is, everything can be seen: decision boundaries, and the **ball** around each point within which "
    "the smoothed classifier's answer is certified not to change."
)
try:
    settings = choose()
except SpecError as error:  # a method that allows less λ than the slider
    st.error(plain(str(error)), icon=":material/tune:")
    st.stop()
if settings[0].method == settings[1].method:
    st.info("Choose two different methods.", icon=":material/compare_arrows:")
    st.stop()
with st.container(horizontal=True, vertical_alignment="bottom"):
    if st.button("Train both", type="primary", icon=":material/play_arrow:"):
        st.session_state.playing = True
    for name, (sigma, lam, _, about) in PRESETS.items():
        st.button(
            name, help=f"σ = {sigma:g}, λ = {lam:g}: {about}.", on_click=preset, args=(sigma, lam), key=f"preset {name}"
        )
missing = [one for one in settings if playground.kept(one) is None]
if missing and st.session_state.get("playing"):
    play(missing)
outcome = [playground.kept(one) for one in settings]
view = "smoothed"
if None in outcome:
    st.caption(
        "Train both, or try one of the situations beside it: each takes a few seconds. Afterwards every change trains anew."
    )
else:
    view = st.segmented_control(
        "Shade the regions of", ["smoothed", "base"], default="smoothed", required=True, key="regions", bind="query-params",
        format_func=lambda kind: f"{kind} classifier",
        help="The other one's boundary is the dashed line. " + TERMS["smoothed classifier"].replace("image", "point"),
    )  # fmt: skip
    for name, (sigma, lam, of, about) in PRESETS.items():
        told = not of or any(has_lam(one.method) if of == "λ" else of in one.method for one in settings)
        if told and (sigma, lam) == (st.session_state["noise"], st.session_state["lambda"]):
            st.markdown(f"**{name}**: {about}.")
for column, name, one in zip(st.columns(2, gap="large"), "ab", settings, strict=True):
    with column:
        show(name, one)
if None in outcome:
    st.stop()
certification = settings[0].spec().certification
n, sigma, alpha = certification.n, settings[0].sigma, certification.alpha
other = "base" if view == "smoothed" else "smoothed"
st.caption(
    f"Shaded: the **{view}** classifier's answer, the stronger the surer. Dashed: the boundary of the **{other}** classifier. Small dots: "
    f"training points. The first {BALLS} of {TEST} test points are drawn in the colour of their class; ● right, ✕ wrong; ◇ black: abstains. "
    f"Balls are **certificates**: Clopper–Pearson bounds of n = {n:,} votes, n0 = {certification.n0}, each wrong with probability at most α = {alpha:g}. "
    "The smoothed regions are **estimates**: the Gaussian convolution of the base classifier's regions on a grid. "
    f"Numbers: all {TEST} test points; intervals are 95 %, over the choice of test points, not of the seed."
)
if any(isinstance(one, Diverged) for one in outcome):
    st.stop()
st.header("Certified accuracy against radius")
st.markdown(verdict(*outcome))
reach = ceiling(sigma, n, alpha)
drawn = shares(outcome, reach)
names = {one.method: title(one.method) for one in settings}
draw(curves(drawn, names, reach), "playground curves", "certified accuracy against radius of both methods", drawn)
st.caption(
    f"Share of the {TEST} test points answered correctly with a radius of at least r, with its 95 % interval; n = {n:,}, α = {alpha:g}, "
    f"σ = {sigma:g}. Grey line: the ceiling σ Φ⁻¹(α^(1/n)) = {reach:.3f}, beyond which n samples certify nothing."
)
with st.expander("What to try, and how it is trained"):
    st.markdown(
        "\n".join(
            f"- **{name}** (σ = {sigma:g}, λ = {lam:g}): {about}." for name, (sigma, lam, _, about) in PRESETS.items()
        )
    )
    recipe = playground.RECIPE
    for one in settings:
        fields = ", ".join(f"{name} = {value}" for name, value in one.spec().hyper.items())
        st.markdown(f"{title(one.method)}: {fields or 'no hyper-parameters'}.")
    st.markdown(
        f"A network with two hidden layers of 64, SGD with momentum {recipe.momentum:g} and weight decay {recipe.weight_decay:g}, a learning rate that rises to "
        f"{recipe.lr:g} over {recipe.warmup:g} epochs and falls with a cosine, {recipe.epochs} epochs of all {TRAIN} points; a method with m noise vectors takes m steps an epoch on "
        f"{TRAIN} noisy points each (MACER, alone and with Consistency, one on m times as many). ε of SmoothAdv and the step of SmoothMix are σ. At λ = 0 the Consistency term is gone, but m and the entropy term η "
        "are not: that is not quite Gaussian training."
    )
