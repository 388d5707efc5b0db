"""What a button does, and what it says of it. The one way in which pages change anything on the server."""

from collections.abc import Callable
from subprocess import SubprocessError

import streamlit as st

from backend.datasets import DatasetError
from backend.home import read_only
from backend.run import RunError
from backend.spec import SpecError

READ_ONLY = "This dashboard is open to look and to certify images; it starts, stops and deletes nothing."


def attempt(action: Callable[[], str], failed: str) -> bool:
    """Do it and say in a toast what came of it: the sentence that `action` returns, or `failed` and why. Returns whether it was done.

    On a read-only server nothing is done, whatever a page has drawn.
    """
    if read_only():
        st.toast(READ_ONLY, icon=":material/lock:", duration="long")
        return False
    try:
        said = action()
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        reason = f"{error.strerror or error}{place}"
    except (SpecError, RunError, DatasetError, SubprocessError) as error:
        reason = str(error)
    else:
        say(said, ":material/check:")
        return True
    say(f"{failed}: {reason}", ":material/error:", "infinite")
    return False


def say(sentence: str, icon: str, duration: str = "long") -> None:
    """A toast; it is there after a rerun, too."""
    st.session_state.setdefault("said", []).append((sentence, icon, duration))


def tell() -> None:
    """Show what was said since: at the end of a page, of a fragment, or of what a button does."""
    for sentence, icon, duration in st.session_state.pop("said", []):
        st.toast(plain(sentence), icon=icon, duration=duration)


def plain(text: str, most: int | None = None) -> str:
    """Words that may be anybody's, as they are: no Markdown, one line, of at most so many characters."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|~$:" else c for c in " ".join(text[:most].split()))
