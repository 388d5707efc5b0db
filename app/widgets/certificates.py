"""What was certified: one certificate in full, several side by side, and the check of one that somebody brings."""

import json
from hashlib import sha256

import streamlit as st

from app.figures.rounding import round_down
from app.figures.votes import votes
from app.widgets.attempt import plain
from app.widgets.figure import draw_alone
from app.widgets.glossary import TERMS
from backend.home import PRECOMPUTED, runs_root
from backend.run import find_run

BOUNDS = {
    "fixed": "one-sided Clopper–Pearson bound",
    "anytime": "Clopper–Pearson bound, valid at every look",
    "at-radius": "Clopper–Pearson bound, valid at every look",
}
DECISIONS = {
    "robust": "**Robust at r**: the certified radius reaches it.",
    "not robust": "**Not certifiable at r**: σ Φ⁻¹(p_A) is below it, with error probability at most α, so that no number of samples certifies r. It is no proof that an image that near is answered otherwise.",
    "undecided": "**Undecided**: so few samples neither certify r nor rule it out.",
    None: "**Undecided yet**: the sampling was stopped.",
}
VERDICTS = {
    "match": ("It holds up", st.success, ":material/verified:"),
    "consistent": ("Nothing contradicts it", st.success, ":material/check:"),
    "unchecked": ("Its arithmetic is right; the network was not asked", st.info, ":material/help:"),
    "refuted": ("Refuted", st.error, ":material/gpp_bad:"),
    "none": ("This is no certificate", st.error, ":material/draft:"),
}
MOST_BYTES = 2 * 2**20  # of a certificate that is brought; one of a 224×224 photo has 0.7 MiB
MOST_REPLAYED = 101_000  # samples: no certificate of this page has more
MOST_WORDS = 400  # characters of a reason, which may quote the file


def show_certificate(certificate: dict) -> None:
    """The answer, what it rests on, and the download."""
    decided(certificate)
    if certificate["abstained"]:
        abstained(certificate)
    else:
        measured(certificate, st.columns(3))
        st.markdown(
            f"Every change of these pixels with an ℓ2 norm below **{round_down(certificate['radius'])}** leaves the "
            f"smoothed classifier's answer at **{plain(certificate['class'])}**, with probability at least "
            f"{1 - certificate['alpha']:g} over the noise that was drawn."
        )
    show_votes(certificate)


def show_side_by_side(certificates: dict[str, dict], labels: dict[str, str]) -> None:
    """Class, radius and p_A of each network, two beside each other; below one another on a phone."""
    columns = []
    for _ in range(0, len(certificates), 2):
        columns += st.columns(2, vertical_alignment="bottom")  # a name that wraps moves no figure
    for run_id, column in zip(certificates, columns, strict=False):
        with column.container(border=True):
            certificate = certificates[run_id]
            st.markdown(f"**{labels[run_id]}**")
            decided(certificate)
            if certificate["abstained"]:
                abstained(certificate)
            else:
                measured(certificate, [st.container(horizontal=True)] * 3)
            st.caption(f"{certificate['samples']:,} samples, α = {certificate['alpha']:g}")
    st.caption(
        "Each certificate is wrong with probability at most its α, each by itself. A larger radius is a stronger guarantee on this "
        "image; means over many images are on the **Trade-offs** page."
    )


def measured(certificate: dict, places) -> None:
    first, second, third = places
    first.metric("Class", plain(certificate["class"]), width="content")
    second.metric(
        "Certified ℓ2 radius", round_down(certificate["radius"]), help="rounded down; pixels in [0, 1]", width="content"
    )
    third.metric("p_A at least", round_down(certificate["p_lower"]), help=TERMS["p_A"], width="content")


def decided(certificate: dict) -> None:
    if certificate["mode"] == "at-radius":
        st.info(f"{DECISIONS[certificate['stop']]} (r = {certificate['target']:g})", icon=":material/gavel:")


def abstained(certificate: dict) -> None:
    share = certificate["counts"][certificate["classes"].index(certificate["selected"])] / certificate["samples"]
    st.warning(
        f"**No certificate.** Of {certificate['samples']:,} noisy copies {share:.1%} were taken for "
        f"{plain(certificate['selected'])}: with an error probability of α = {certificate['alpha']:g} that proves only "
        f"p ≥ {round_down(certificate['p_lower'])}, and a radius needs more than ½. More samples help if the share "
        "is above ½; else this network is not sure at this much noise.",
        icon=":material/do_not_disturb_on:",
    )


def show_votes(certificate: dict) -> None:
    """The votes, in a figure and in words, and the certificate as a file."""
    counts, classes = certificate["counts"], certificate["classes"]
    top = classes.index(certificate["selected"])
    draw_alone(votes(counts, classes, top, certificate["p_lower"]), "votes per class")
    st.caption(
        f"{counts[top]:,} of {certificate['samples']:,} votes for the class that n0 = {certificate['n0']:,} other samples "
        f"selected; σ = {certificate['sigma']:g}, α = {certificate['alpha']:g}, {BOUNDS[certificate['mode']]} (orange line). "
        "The radius speaks of the image as the network sees it, and of this network; it does not say that the answer is right."
    )
    st.download_button(
        "Download the certificate (JSON)", as_text(certificate), "certificate.json", "application/json",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def as_text(certificate: dict) -> str:
    """JSON to be read by people too: a line a field, and the pixels in one."""
    image = certificate["image"]
    text = json.dumps(certificate | {"image": image | {"values": []}}, indent=1)
    return text.replace('"values": []', f'"values": {json.dumps(image["values"])}')  # within words quotes are escaped


def check_a_certificate() -> None:
    """Verify one that a visitor brings: recompute it from its counts, and sample again with its network."""
    st.caption(
        "The bound is computed anew from its counts, the image is compared with its SHA-256, and where its network is "
        "here the same noise is drawn again, and fresh noise."
    )
    file = st.file_uploader("A certificate (JSON)", type="json", max_upload_size=MOST_BYTES // 2**20, key="check")
    if file is None:
        return
    content = file.getvalue()
    if st.button("Verify", icon=":material/fact_check:"):
        st.session_state.checked = sha256(content).hexdigest(), _verdict(content)
    checked, verdict = st.session_state.get("checked", (None, None))
    if checked == sha256(content).hexdigest():
        word, reason = verdict
        says, show, icon = VERDICTS[word]
        known = (
            f" ({word})" if word in ("match", "consistent", "unchecked") else ""
        )  # the words of `python -m backend verify`
        show(f"**{says}**{known}: {plain(reason, MOST_WORDS)}.", icon=icon)


def _verdict(content: bytes) -> tuple[str, str]:
    from backend.verify import read, verify  # torch is loaded only for those who check

    try:
        certificate = read(content, MOST_BYTES)
    except ValueError as error:
        return "none", str(error).rstrip(".")
    bar = st.empty()

    def on_look(done: int, of: int) -> None:
        # Where the visitor has left, Streamlit ends the check here.
        bar.progress(min(1.0, done / of), f"sampling again: {done:,} of {of:,}")

    try:
        verdict = verify(
            certificate, lambda run_id: find_run(run_id, runs_root(), PRECOMPUTED), "auto", MOST_REPLAYED, on_look
        )
    except (ValueError, RuntimeError) as error:
        # Its counts were right: that the network cannot be asked refutes nothing.
        return "unchecked", f"the claim follows from the counts; its network cannot be asked ({str(error).rstrip('.')})"
    finally:
        bar.empty()
    return verdict.word, verdict.reason
