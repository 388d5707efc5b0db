"""How files of a folder are written so that a process killed at any moment costs a row at most: whole, or row by row.

Standard library only, and no word of what the files mean.
"""

import contextlib
import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

ASIDE = ".aside-"  # a file on its way to its name
MOST_UNPACKED = 256 * 2**20  # bytes: four million rows; a small file could hold any number


def write_aside(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file whole: a reader sees the old content or the new, also after a crash. mode: its permissions."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=ASIDE)
    try:
        with _named(path), open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, mode)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)  # it may have its name already
        raise


def append_tsv(path: Path, values: dict, durable: bool = False) -> None:
    """Add a row, and the header before the first. durable: on the disk before what is written next.

    Raises ValueError for a row of other columns than the header has: nobody could read the file any more.
    """
    header = "\t".join(values) + "\n"
    with _named(path), open(path, "a+") as file:
        file.seek(0)
        first = file.readline()
        if first and first != header:
            raise ValueError(
                f"{path} has the columns {first.split()}, and the next row {list(values)}: all rows need the same"
            )
        file.write(header * (not first) + "\t".join(str(v) for v in values.values()) + "\n")
        if durable:
            file.flush()
            os.fsync(file.fileno())


def packed(path: Path) -> tuple[str, bytes]:
    """Name and bytes of a file, packed: equal contents, equal bytes."""
    return _packed_name(path).name, gzip.compress(path.read_bytes(), mtime=0)


def place_of(path: Path) -> Path:
    """Where a file lies: under its name, else packed beside it; its own name where there is neither."""
    return path if path.exists() or not _packed_name(path).exists() else _packed_name(path)


def content_of(path: Path) -> bytes | None:
    """A file's bytes, unpacked where it lies there packed; None where there is neither. Raises ValueError for one that cannot be unpacked."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    try:
        with gzip.open(_packed_name(path)) as file:
            content = file.read(MOST_UNPACKED + 1)
    except FileNotFoundError:
        return path.read_bytes() if path.exists() else None  # it may have been made plain between the two looks
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{_packed_name(path).name} cannot be unpacked: {error}") from error
    if len(content) > MOST_UNPACKED:
        raise ValueError(f"{_packed_name(path).name} holds more than {MOST_UNPACKED // 2**20} MB")
    return content


def read_tsv(path: Path) -> list[dict[str, str]]:
    """A dict a whole row; none where there is no file. Raises ValueError for a row that does not fit the header."""
    if (content := content_of(path)) is None:
        return []
    whole = content.decode().replace("\r\n", "\n").split("\n")[:-1]  # what follows the last newline is half a row
    header, *lines = whole or [""]
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


def count_rows(content: bytes | None) -> int:
    """Whole rows below the header of a file's bytes, by counting lines."""
    return max(0, (content or b"").count(b"\n") - 1)


def drop_half_row(path: Path) -> None:
    """Cut off what follows the last newline."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Where the disk is full, say at which file: a write that fails does not know."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _packed_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")
