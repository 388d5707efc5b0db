"""What a certificate of one network means on this image: noisy copies, the size of the ball, and an attack from outside."""

import time
from contextlib import closing

import numpy as np
import streamlit as st

from app.figures.bounds import bracket
from app.figures.rounding import round_down, round_up
from app.widgets.attempt import plain
from app.widgets.figure import draw_alone
from app.widgets.pixels import SIDE, difference, enlarged, picture_row
from backend.ball import grey_levels, moved, random_direction, whole_pixels
from backend.images import Seen
from backend.run import Run, RunError
from backend.spec import Certification


def show_copies(copies: np.ndarray, answers: list[str], certificate: dict) -> None:
    """Noisy copies as the network saw them, and its answer on each."""
    st.header("What the network votes on")
    scale = certificate["image"]["scale"]
    picture_row(
        (enlarged(copy, scale, SIDE), f"→ {answer}", f"a noisy copy, answered {answer}")
        for copy, answer in zip(copies, answers, strict=True)
    )
    votes = sum(answer == certificate["selected"] for answer in answers)
    st.caption(
        f"{len(copies)} noisy copies at σ = {certificate['sigma']:g}, always the same ones and none of those that were counted; {votes} of them {'is' if votes == 1 else 'are'} "
        f"taken for {plain(certificate['selected'])}. For display they are clipped to [0, 1]; the network saw the values beyond as well."
    )


def show_ball(seen: Seen, certificate: dict, other: np.ndarray | None) -> None:
    """The size of the certified ball in words, and images on its surface. other: an attack's image (C, H, W)."""
    st.header("How far is that?")
    radius, scale = certificate["radius"], certificate["image"]["scale"]
    values, pixels = (
        seen.pixels.size,
        whole_pixels(float(round_down(radius)), len(seen.pixels)),
    )  # of the radius that is read
    one = floor_levels(grey_levels(radius, len(seen.pixels)))
    whole = (
        f"turns any **{pixels} pixel{'s' * (pixels > 1)}** from black to white"
        if pixels
        else f"shifts **any one pixel** by less than {one} of 255 grey levels"
    )
    st.markdown(
        f"A change below {round_down(radius)} is one that {whole}, or **all {values} values at once**, each by less than "
        f"{floor_levels(grey_levels(radius, values))} of 255 grey levels. The pictures lie at just that distance, where the "
        "certificate ends."
    )
    along_random, clipped = moved(seen.pixels, scale, random_direction(seen.pixels.shape, 0), radius)
    pictures = [("the image", seen.pixels), ("a random direction", along_random)]
    if other is not None and (direction := other.astype(float) - seen.pixels).any():
        pictures.append(("the attack's direction", moved(seen.pixels, scale, direction, radius)[0]))
    picture_row((enlarged(picture, scale, SIDE), name, name) for name, picture in pictures)
    st.caption(
        f"Random direction: {clipped:.0%} of its values lay outside [0, 1] and are clipped for display."
        + ("" if other is not None else " *Attack it* adds the direction in which the answer changes first.")
    )


def floor_levels(levels: float) -> str:
    """One decimal, rounded down."""
    return f"{int(levels * 10) / 10:.1f}"


def show_attack(run: Run, seen: Seen, certificate: dict, settings: Certification) -> None:
    """A button that attacks the smoothed classifier, and what it found: with the certificate, a bracket of the truth."""
    st.header("How much more is there?")
    st.markdown(
        "The certificate is a lower bound: the nearest image with another answer may be farther away. An attack on the "
        "smoothed classifier looks for one, and each that it finds is an upper bound."
    )
    attacks, presses = (st.session_state.setdefault(name, {}) for name in ("attacks", "presses"))
    label = "Attack it again" if run.run_id in attacks else "Attack it"
    if st.button(label, icon=":material/bolt:", key="attack"):
        attacks.pop(run.run_id, None)
        presses[run.run_id] = presses.get(run.run_id, 0) + 1
        # As every press on a page, this one ends what the last one began.
        st.button("Stop", key="stop attack", help="Ends the search without an answer.")
        try:
            attacks[run.run_id] = attack(run, seen, certificate, settings, presses[run.run_id])
        except (RunError, ValueError, RuntimeError) as error:
            st.error(f"This model cannot be attacked: {plain(str(error))}")
        else:
            st.rerun()
    if run.run_id in attacks:
        show_bracket(run, seen, certificate, attacks[run.run_id])


def attack(run: Run, seen: Seen, certificate: dict, settings: Certification, nth: int):
    """Search with progress; what `bracket.Other` says, or None."""
    from backend.live import Session, others_first

    session = Session(run, seen.pixels, settings)
    place = st.empty()
    place.progress(0.0, "Others are sampling; yours begins when one is through." if others_first() else "Searching…")
    start, last = time.monotonic(), None
    with closing(session.attack(certificate["classes"].index(certificate["class"]), nth)) as steps:
        for last in steps:
            near = f"; the nearest so far at {last.distance:.3f}, not yet tested" if last.distance is not None else ""
            place.progress(last.part, f"Searching, {time.monotonic() - start:.0f} s{near}")
    place.empty()
    return last.other


def show_bracket(run: Run, seen: Seen, certificate: dict, other) -> None:
    """The certified radius and the attack's distance as a bracket, with their error probabilities, and the image found."""
    if other is None:
        st.info(
            "The attack found no image whose other answer holds up on fresh votes. That proves nothing: there may be one "
            "all the same. Attack again, which draws other noise.",
            icon=":material/search_off:",
        )
        return
    radius, alpha = certificate["radius"], certificate["alpha"]
    answer, there = map(plain, (certificate["class"], certificate["classes"][other.answer]))
    low, high = round_down(radius), round_up(other.distance)
    evidence = (
        f"{other.votes:,} of {other.samples:,} fresh votes for {there}, {other.against:,} for {answer}; the test is one of "
        f"{other.tests} that share {other.alpha:.2g}, this attack's part of α."
    )
    if other.distance < radius:
        st.warning(
            f"**A contradiction.** At distance {high} votes say that {there} is likelier than {answer}, and the certificate says that no image "
            f"within {low} is answered otherwise. One of the two is wrong, as happens with probability at most {2 * alpha:g}, however often it is attacked. ({evidence})",
            icon=":material/priority_high:",
        )
    else:
        st.markdown(
            f"**{low} ≤ robust radius of the smoothed classifier ≤ {high}.** No image within {low} is answered otherwise than {answer}, "
            f"and the image below, at distance {high}, is: {there} is likelier than {answer} there. The lower end is wrong with probability at most "
            f"α = {alpha:g}, the upper with at most α in all attacks on this certificate together: both hold with probability at least {1 - 2 * alpha:g}."
        )
        draw_alone(bracket(radius, other.distance), f"certified up to {low}, another answer found at {high}", "bracket")
    unanimous = ""
    if max(certificate["counts"]) == certificate["samples"]:
        unanimous = f" All {certificate['samples']:,} votes agree, and so few can certify no more: more samples raise the lower end."
    scale, found = certificate["image"]["scale"], other.pixels.numpy()
    pictures = (
        (enlarged(seen.pixels, scale, SIDE), f"answered {certificate['class']}"),
        (enlarged(found, scale, SIDE), f"{certificate['classes'][other.answer]}, at {high}"),
        (difference(seen.pixels, found, scale, SIDE), "the difference, enlarged"),
    )
    picture_row((image, name, name) for image, name in pictures)
    st.caption(
        f"Blue: certified. Grey: not known. Cross: found by the attack. {evidence} The image has whole {scale + 1}-level pixels like the original. An attack that finds nothing nearer does not show that there is nothing."
        + unanimous
    )
