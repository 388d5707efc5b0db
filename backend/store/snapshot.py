"""The results store as readers see it: its current snapshot, opened read-only, and the answers that it gave."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pandas as pd

from backend.home import from_kept, snapshot_path
from backend.store.publish import SCHEMA_SHA256

KEPT, KEPT_ROWS = 128, 50_000  # answers of a snapshot, and rows of each, that are kept for the next visitor or rerun
# faults of a question or of the machine, not of the store
NOT_THE_STORES = duckdb.ProgrammingError, duckdb.DataError, duckdb.OutOfMemoryException, duckdb.InterruptException


@dataclass
class _Snapshot:
    mark: tuple  # of the file
    connection: duckdb.DuckDBPyConnection
    answers: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)


_opened: dict[Path, _Snapshot] = {}
_opening = threading.Lock()


class StoreError(RuntimeError):
    """There is no store to read, or it is another version's; the message says what to do."""


def ask(sql: str, parameters: list | None = None) -> pd.DataFrame:
    """The answer of the current snapshot; the last ones, unless they are large, are kept as long as it stands."""
    snapshot, question = _snapshot(), (sql, repr(parameters))
    with _opening:
        if (known := snapshot.answers.pop(question, None)) is not None:
            snapshot.answers[question] = known  # the most recently asked are the last
            return known.copy()
    try:
        with snapshot.connection.cursor() as cursor:
            cursor.execute("USE store")
            answer = cursor.execute(sql, parameters).df()
            if "folder" in answer:
                answer["folder"] = answer.folder.map(from_kept)
    except NOT_THE_STORES:
        raise
    except duckdb.Error as error:
        raise StoreError(_damaged(snapshot_path(), error)) from error
    if len(answer) <= KEPT_ROWS:
        with _opening:
            snapshot.answers[question] = answer.copy()
            while len(snapshot.answers) > KEPT:
                del snapshot.answers[next(iter(snapshot.answers))]
    return answer


def mark() -> tuple:
    """What names the current snapshot; another one has another. Asked before the answers that are to be kept under it."""
    return _snapshot().mark


def _snapshot() -> _Snapshot:
    """The current snapshot, opened anew only when it was replaced."""
    path = snapshot_path()
    with _opening:
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise StoreError(f"There is no results store at {path}. `python -m backend publish` makes it.") from None
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if path not in _opened or _opened[path].mark != mark:
            _opened[path] = _Snapshot(mark, _attached(path))  # the old one closes when its last cursor is gone
        return _opened[path]


def _attached(path: Path) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with a snapshot attached, read-only, as `store`. Raises StoreError."""
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
    try:
        connection.execute(f"ATTACH {_quoted(str(path))} AS store (READ_ONLY)")
        connection.execute("SET enable_external_access = false")
        version = connection.execute("SELECT schema_sha256 FROM store.meta").fetchone()
    except duckdb.Error as error:
        raise StoreError(_damaged(path, error)) from error
    if version != (SCHEMA_SHA256,):
        raise StoreError(f"{path} is another version's. `python -m backend publish` makes it anew.")
    return connection


def _damaged(path: Path, error: duckdb.Error) -> str:
    return f"{path} cannot be read ({error}). `python -m backend publish` makes it anew."


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
