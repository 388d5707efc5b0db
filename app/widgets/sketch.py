"""A canvas and a paste box: two small components, whose images are no more trusted than uploads (`images.from_browser`)."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from backend.images import MAX_URL

HERE = Path(__file__).parent
CANVAS = """
<canvas role="img" aria-label="Canvas: draw with mouse, finger or pen"></canvas>
<div class="row">
<button type="button">Undo</button>
<button type="button">Clear</button>
</div>"""
PASTE = """
<div class="panel" hidden aria-busy="true">
<div class="box" contenteditable="true" role="textbox" inputmode="none" aria-label="Paste an image here with Ctrl-V"
>Copy an image, then press Ctrl-V (⌘V) anywhere on this page.</div>
<div class="row"><button type="button">Paste</button></div>
<p class="said" role="status"></p>
</div>"""


def _component(name: str, html: str, script: str):
    texts = ((HERE / file).read_text() for file in ("sketch.css", script))
    return st.components.v2.component(f"certscope_{name}", html=html, **dict(zip(("css", "js"), texts, strict=True)))


canvas = _component("canvas", CANVAS, "sketch.js")
paste = _component("paste", PASTE, "paste.js")


def draw_on_canvas() -> object:
    """A canvas; what the visitor has drawn as the browser sent it, None where it is empty."""

    def drawn() -> None:
        st.session_state.drawn = st.session_state["canvas"].image

    canvas(key="canvas", data={"image": st.session_state.get("drawn") or None}, on_image_change=drawn)
    return st.session_state.get("drawn") or None


def listen_for_paste(shown: bool, on_paste: Callable[[], None]) -> object:
    """Take what is pasted anywhere on the page, and show a box for it if `shown`; the last image as the browser sent it."""

    def pasted() -> None:
        st.session_state.pasted = st.session_state["paste"].image
        on_paste()

    paste(key="paste", data={"shown": shown, "most": MAX_URL}, on_image_change=pasted, height="content")
    return st.session_state.get("pasted")
