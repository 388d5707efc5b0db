"""One log file in Cohen's tab-separated format: a header, and `idx label predict radius correct time` an image."""

import re
from math import isfinite
from pathlib import Path

import numpy as np

from backend.rows import ABSTAIN

COLUMNS = ["idx", "label", "predict", "radius", "correct"]
MOST_BYTES = 100 * 2**20
WHOLE = re.compile(r"-?\d+", re.ASCII)
REAL = re.compile(r"-?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
TIME = re.compile(r"(?:(\d+) days?, )?(?:(\d+):(\d\d):(?=\d\d))?(\d+(?:\.\d*)?(?:e-?\d+)?)")


class LogError(ValueError):
    """A file that is not imported; the message is the reason."""


def read_log(file: Path) -> tuple[dict[str, np.ndarray], bool]:
    """Columns idx, label, predict, radius, correct, time of a log, and whether its last row is cut off.

    Raises LogError for what is no such log.
    """
    if file.stat().st_size > MOST_BYTES:
        raise LogError(f"has more than {MOST_BYTES // 2**20} MiB")
    try:
        header, *lines = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise LogError("is no text") from None
    names = header.split("\t")
    if names[:5] != COLUMNS:
        pairs = re.fullmatch(r"[\d.]+\t[\d.]+", header)
        raise LogError("holds radius/accuracy pairs, not a row an image" if pairs
                       else f"does not begin with the columns, tabs between them, {' '.join(COLUMNS)}")  # fmt: skip
    if len(set(names)) < len(names):
        raise LogError("names a column twice")
    rows = [line.split("\t") for line in lines if line]
    # No newline at the end: a whole row, or a part of one.
    cut = bool(rows and lines[-1] and not _complete(rows[-1], names))
    if cut:
        rows.pop()
    if not rows:
        raise LogError("has no rows")
    if any(len(row) != len(names) for row in rows):
        raise LogError("has rows with other columns than its header")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    try:
        if odd := [
            text
            for name in COLUMNS
            for text in columns[name]
            if not (REAL if name == "radius" else WHOLE).fullmatch(text)
        ]:
            raise ValueError(repr(odd[0][:40]))
        table = {name: np.array(columns[name], dtype=float if name == "radius" else np.int64) for name in COLUMNS}
        table["time"] = np.array([_seconds(t) for t in columns["time"]]) if "time" in columns else np.zeros(len(rows))
    except (ValueError, OverflowError) as error:
        raise LogError(f"has a value that is no number: {error}") from None
    _check(table)
    return table, cut


def _complete(row: list[str], names: list[str]) -> bool:
    """Whether the last row of a file that ends without a newline is all there, as far as one can tell."""
    try:
        return (
            len(row) == len(names)
            and bool(row[-1])
            and ("time" not in names or _seconds(row[names.index("time")]) >= 0)
        )
    except ValueError:
        return False


def _check(table: dict[str, np.ndarray]) -> None:
    """Raise LogError for a table that contradicts itself."""
    if len(np.unique(table["idx"])) != len(table["idx"]):
        raise LogError("names an image twice")
    if not np.isfinite(table["radius"]).all() or (table["radius"] < 0).any() or (table["predict"] < ABSTAIN).any():
        raise LogError("has a radius or class that cannot be")
    if (table["label"] < 0).any():
        raise LogError("has a label below 0")
    if (table["correct"] != (table["predict"] == table["label"])).any():
        raise LogError("calls an answer correct that differs from the label, or the other way round")
    if (table["radius"][table["predict"] == ABSTAIN] > 0).any():
        raise LogError("abstains with a radius")


def _seconds(text: str) -> float:
    """Seconds of "12.5", "0:00:12.5" or "1 day, 0:00:12"."""
    match = TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no time")
    days, hours, minutes, seconds = match.groups()
    whole = int(days or 0) * 86_400 + int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)
    if not isfinite(whole):
        raise ValueError(f"{text!r} is no time")
    return whole
