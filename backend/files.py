"""How files of a folder are written so that a process killed at any moment costs a row at most: whole, or row by row.

Standard library only, and no word of what the files mean.
"""

import os
import tempfile
from pathlib import Path

ASIDE = ".aside-"  # a file on its way to its name


def write_aside(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader sees the old content or the new, also after a crash."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=ASIDE)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)  # it may have its name already
        raise


def append_tsv(path: Path, values: dict, durable: bool = False) -> None:
    """Add a row, and the header before the first. durable: on the disk before what is written next."""
    header = "" if path.exists() and path.stat().st_size else "\t".join(values) + "\n"
    with open(path, "a") as file:
        file.write(header + "\t".join(str(v) for v in values.values()) + "\n")
        if durable:
            file.flush()
            os.fsync(file.fileno())


def read_tsv(path: Path) -> list[dict[str, str]]:
    """A dict a whole row; none where there is no file. Raises ValueError for a row that does not fit the header."""
    if not path.exists():
        return []
    header, *lines = path.read_text().split("\n")[:-1] or [""]  # what follows the last newline is half a row
    columns = header.split("\t")
    rows = [line.split("\t") for line in lines]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError("it has other columns than the header")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def columns_of(path: Path) -> set[str]:
    """The names in the header; none where there is no file, or none in it."""
    if not path.exists():
        return set()
    with open(path) as file:
        return set(file.readline().rstrip("\n").split("\t")) - {""}


def count_rows(path: Path) -> int:
    """Whole rows below the header, by counting lines."""
    try:
        return max(0, path.read_bytes().count(b"\n") - 1)
    except FileNotFoundError:
        return 0


def drop_half_row(path: Path) -> None:
    """Cut off what follows the last newline."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
