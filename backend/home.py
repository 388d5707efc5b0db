"""Where Certscope keeps things: shipped results in the checkout, everything of the user under CERTSCOPE_HOME."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PRECOMPUTED = CHECKOUT / "precomputed"


class HomeError(ValueError):
    """CERTSCOPE_HOME cannot be where it is; the message says why."""


def home() -> Path:
    """The user's folder: CERTSCOPE_HOME, else var/ in the checkout."""
    return Path(os.environ.get("CERTSCOPE_HOME") or CHECKOUT / "var").expanduser().resolve()


def settle() -> None:
    """Make CERTSCOPE_HOME and CERTSCOPE_DATA absolute, in the environment: the processes that this one starts may have another folder.

    Raises HomeError for a home whose path DuckDB would cut short.
    """
    for name in ("CERTSCOPE_HOME", "CERTSCOPE_DATA"):
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())
    if "?" in str(home()):
        raise HomeError(f"the path of CERTSCOPE_HOME holds no question mark, as {home()} does: choose another folder")


def runs_root() -> Path:
    """The folder that holds one run folder per run."""
    return home() / "runs"


def imported_root() -> Path:
    """The folder that holds one run folder per imported log."""
    return home() / "imported"


def data_root() -> Path:
    """Where data sets lie or are downloaded to: CERTSCOPE_DATA, else data/ under home."""
    return Path(os.environ.get("CERTSCOPE_DATA") or home() / "data").expanduser().resolve()


def snapshot_path() -> Path:
    """The results store that every page reads."""
    return home() / "results.duckdb"


def as_kept(folder: Path) -> str:
    """A run's folder as the store keeps it: what lies under the home or the checkout from there on, for both may be seen under another path tomorrow."""
    for name, root in (("home", home()), ("checkout", CHECKOUT)):
        if folder.is_relative_to(root):
            return f"{name}:{folder.relative_to(root)}"
    return str(folder)


def from_kept(kept: str) -> str:
    """The path of what `as_kept` wrote, here and now."""
    name, _, rest = kept.partition(":")
    return str({"home": home(), "checkout": CHECKOUT}[name] / rest) if name in ("home", "checkout") else kept


def read_only() -> bool:
    """Whether visitors may look and certify, but start, stop and delete nothing: CERTSCOPE_READ_ONLY, but for 0, as `scripts/run --read-only` sets it."""
    return os.environ.get("CERTSCOPE_READ_ONLY", "0") not in ("", "0")
