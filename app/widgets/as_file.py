"""A figure as a file: drawn by a browser without a window, in a process of its own that ends when its time is over.

Kaleido starts a Chromium for each file and waits for its page without an end. On a busy machine the page has failed to
come: in the dashboard's own process that file would keep all others waiting, and the dashboard from stopping.
`python -m app.widgets.as_file` is the process, with the figure on its standard input.
"""

import functools
import json
import subprocess
import sys
from threading import Lock

import plotly.graph_objects as go

from backend.home import CHECKOUT

ATTEMPTS, SECONDS = 2, 45.0  # of an attempt; an idle machine takes three seconds, a busy one ten
DRAWING = Lock()  # one browser at a time, however many visitors ask


class DrawingError(RuntimeError):
    """No file came of a figure."""


@functools.cache
def find_browser() -> str | None:
    """The browser that draws, a path; None where none is installed."""
    from choreographer.browsers.chromium import Chromium  # of kaleido

    return Chromium.find_browser(skip_local=False)


def as_file(figure: go.Figure, kind: str, width: int, height: int, scale: int = 1) -> bytes:
    """The figure as `svg`, `png` or `pdf`, width and height in pixels of the page, scale pixels of the file to each.

    Raises DrawingError where the browser gave no file in its time, twice.
    """
    order = {"figure": figure.to_json(), "options": {"format": kind, "width": width, "height": height, "scale": scale}}
    with DRAWING:
        for _ in range(ATTEMPTS):
            with subprocess.Popen(
                [sys.executable, "-m", __name__], cwd=CHECKOUT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            ) as process:  # fmt: skip
                try:
                    drawn, said = process.communicate(json.dumps(order).encode(), SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()  # its browser ends when nobody holds the other end of its pipe
                    reason = f"no answer in {SECONDS:g} s"
                    continue
            if process.returncode == 0 and drawn:
                return drawn
            reason = (said.decode(errors="replace").strip() or "it ended without a word").splitlines()[-1]
    raise DrawingError(f"The browser that draws files gave none: {reason}. Try again.")


def main() -> None:
    import kaleido

    order = json.load(sys.stdin)
    drawn = kaleido.calc_fig_sync(
        json.loads(order["figure"]),
        opts=order["options"],
        kopts={"mathjax": False},  # no figure has formulas, and it would be fetched from another machine
    )
    sys.stdout.buffer.write(drawn)


if __name__ == "__main__":
    main()
