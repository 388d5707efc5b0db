import contextlib
import subprocess
import sys
import time

import plotly.graph_objects as go
import pytest

from app.widgets import as_file as drawing
from app.widgets.as_file import DrawingError, as_file, find_browser

FIGURE = go.Figure(go.Scatter(x=[1, 2, 3], y=[1, 4, 2], name="ACR")).update_layout(title="a figure")


def end_of_processes(word):
    """Wait until no process has the word in its command line; False after ten seconds."""
    for _ in range(100):
        if subprocess.run(["pgrep", "-f", word], check=False, capture_output=True).returncode == 1:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A browser that counts its starts in `starts`, and does something else than the real one the first `times`."""

    def make(instead, times):
        script = tmp_path / "fake-browser"
        script.write_text(
            f"#!{sys.executable}\nimport os, sys\nfrom pathlib import Path\n"
            f"starts = Path({str(tmp_path / 'starts')!r})\n"
            "with starts.open('a') as file:\n    file.write('x')\n"
            f"if starts.stat().st_size > {times}:\n    os.execv({find_browser()!r}, [{find_browser()!r}, *sys.argv[1:]])\n"
            f"{instead}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("BROWSER_PATH", str(script))
        return script

    return make


def test_each_kind_is_drawn():
    assert as_file(FIGURE, "svg", 900, 400).startswith(b"<svg")
    assert as_file(FIGURE, "pdf", 900, 400).startswith(b"%PDF")
    png = as_file(FIGURE, "png", 900, 400, scale=2)
    assert png.startswith(b"\x89PNG")
    assert (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) == (1800, 800)


def test_a_browser_that_ends_at_once_is_started_anew(fake, tmp_path):
    script = fake("sys.exit(3)", 1)
    assert as_file(FIGURE, "svg", 900, 400).startswith(b"<svg")
    assert (tmp_path / "starts").read_text() == "xx"
    assert end_of_processes(str(script))


def test_a_browser_that_never_answers_costs_its_time_and_says_so(fake, monkeypatch, tmp_path):
    """It takes its orders, from the pipe of number 3, for as long as there is one who gives them."""
    script = fake("while os.read(3, 65536):\n    pass", 99)
    monkeypatch.setattr(drawing, "SECONDS", 3.0)
    began = time.monotonic()
    with pytest.raises(DrawingError, match=r"no answer in 3 s\. Try again"):
        as_file(FIGURE, "svg", 900, 400)
    assert time.monotonic() - began < 20
    assert (tmp_path / "starts").read_text() == "xx"
    assert end_of_processes(str(script))
    assert not drawing.DRAWING.locked()


def test_a_browser_ends_with_its_process(monkeypatch, tmp_path):
    """A real one, killed at several stages of its start."""
    script, starts, mark = tmp_path / "real-browser", tmp_path / "starts", f"--class={tmp_path.name}"
    script.write_text(f'#!/bin/sh\nprintf x >> {starts}\nexec {find_browser()} {mark} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(script))
    monkeypatch.setattr(drawing, "ATTEMPTS", 1)
    seconds = 0.7
    while not starts.exists() or len(starts.read_text()) < 3:
        monkeypatch.setattr(drawing, "SECONDS", seconds := seconds * 1.2)
        with contextlib.suppress(DrawingError):
            as_file(FIGURE, "svg", 900, 400)
        assert end_of_processes(f"[-]{mark[1:]}")


def test_what_the_browser_says_is_passed_on():
    with pytest.raises(DrawingError, match="Supported formats"):
        as_file(FIGURE, "tiff", 900, 400)
