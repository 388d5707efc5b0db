"""The only writer of the results store: copies the snapshot aside, brings it up to date, renames it into place.

DuckDB lets one process write a file and shuts every other one out meanwhile, so the live file is never written.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from backend.certification.confidence import digits_error
from backend.home import PRECOMPUTED, as_kept, home, imported_root, runs_root, snapshot_path
from backend.run import Run, RunError, all_runs
from backend.spec import SpecError
from backend.store.intake import what_is_kept

SCHEMA = (Path(__file__).parent / "schema.sql").read_text()
PER_UNIT = 100  # radii of a kept curve in [0, 1)
UNREADABLE = (  # what a folder that is not what it should be raises while it is read or taken in
    RunError, SpecError, OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError, duckdb.Error,
)  # fmt: skip
SCHEMA_SHA256 = hashlib.sha256(SCHEMA.encode()).hexdigest()

AGGREGATES = """
    UPDATE runs SET images = a.images, samples = a.samples, acr = a.acr, acr_se = a.se, certified_accuracy_0 = a.accuracy,
                    abstention = a.abstention, at_ceiling = a.at_ceiling
    FROM (SELECT count(*) AS images, avg(n) AS samples, avg(if(predict = label, radius, 0)) AS acr,
                 stddev_samp(if(predict = label, radius, 0)) / sqrt(count(*)) AS se,
                 avg((predict = label)::INT) AS accuracy, avg((predict = -1)::INT) AS abstention,
                 avg((predict = label AND radius >= $2)::INT) AS at_ceiling
          FROM certificates WHERE run_id = $1) AS a
    WHERE runs.run_id = $1 AND a.images > 0
"""

# What collapsed is a network: a run that certifies it has no epochs that tell, and another one of few images shows less.
OF_ITS_NETWORK = """
    UPDATE runs SET missing_classes = network.most
    FROM (SELECT coalesce(weights_sha256, weights_of, run_id) AS name, sigma, max(missing_here) AS most FROM runs GROUP BY ALL) AS network
    WHERE coalesce(runs.weights_sha256, runs.weights_of, runs.run_id) = network.name AND runs.sigma = network.sigma
      AND runs.missing_classes IS DISTINCT FROM network.most"""


@dataclass
class Report:
    """What a publication did: runs in the store, runs added or replaced, folders left out with the reason."""

    total: int = 0
    changed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


class PublishError(RuntimeError):
    """The store could not be written; the message says why and what to do."""


def publish(roots: tuple[Path, ...] | None = None) -> Report:
    """Bring the snapshot up to date with the finished runs under the roots (default: the user's, the imported and the shipped ones).

    One publisher at a time: a second one waits. Killed at any point, it leaves the old snapshot standing. A folder
    that cannot be read is left out and named in the report; where two roots hold a run, the first one counts. Raises
    PublishError, the old snapshot standing too, where the store cannot be written: a full disk, say.
    """
    snapshot = snapshot_path()
    try:
        home().mkdir(parents=True, exist_ok=True)
        with open(home() / ".publish.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _replace(snapshot, roots or (runs_root(), imported_root(), PRECOMPUTED))
    except (OSError, duckdb.Error) as error:
        raise PublishError(
            f"the results store {snapshot} could not be brought up to date ({error}); what it said before stands. "
            "Make room or mend that, then `python -m backend publish`"
        ) from error


def _replace(snapshot: Path, roots: tuple[Path, ...]) -> Report:
    aside = snapshot.with_name(f".{snapshot.name}.next")
    _clear(aside)  # of a publisher that was killed
    try:
        if snapshot.exists():
            shutil.copyfile(snapshot, aside)
        report, changed = _update(aside, roots)
        if changed or not snapshot.exists():
            aside.replace(snapshot)
    finally:
        _clear(aside)
    return report


def _clear(aside: Path) -> None:
    for file in aside.parent.glob(aside.name + "*"):  # and what DuckDB writes beside it
        file.unlink()


def _update(file: Path, roots: tuple[Path, ...]) -> tuple[Report, bool]:
    report = Report()
    try:
        connection = _open(file)
    except duckdb.Error:  # it is disposable
        file.unlink(missing_ok=True)
        connection = _open(file)
    with connection:
        known = dict(connection.execute("SELECT run_id, folder || fingerprint FROM runs").fetchall())
        found = {}
        for run in _finished(roots, report):
            if run.run_id in found:
                continue
            try:
                fingerprint = run.fingerprint()  # of before its rows are read: what changes meanwhile is read again
                if known.get(run.run_id) != f"{as_kept(run.path)}{fingerprint}":
                    _take(connection, run, fingerprint)
                    report.changed += 1
                found[run.run_id] = run
            except duckdb.OperationalError:  # the disk or the memory is full: no fault of the folder's
                raise
            except UNREADABLE as error:
                report.skipped[run.run_id] = str(error).partition("\n")[0]  # DuckDB's go on with the statement
        gone = known.keys() - found.keys()
        for run_id in gone:
            _remove(connection, run_id)
        (told,) = connection.execute(OF_ITS_NETWORK).fetchone()
        tables_changed = _published(connection)
        report.total = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        connection.execute("CHECKPOINT")  # closing would, too, and say nothing where it fails
    return report, bool(report.changed or gone or told or tables_changed)


def _open(file: Path) -> duckdb.DuckDBPyConnection:
    """The store in that file, made if it is not there. Raises duckdb.Error where it is another version's, or damaged anywhere."""
    connection = duckdb.connect(file)
    try:
        connection.execute(SCHEMA)
        versions = connection.execute("SELECT schema_sha256 FROM meta").fetchall()
        if versions and versions != [(SCHEMA_SHA256,)]:
            raise duckdb.Error("the snapshot has another schema")
        if not versions:
            connection.execute("INSERT INTO meta VALUES (?, NULL)", [SCHEMA_SHA256])
        for (table,) in connection.execute("SHOW TABLES").fetchall():
            connection.execute(f"SELECT bit_xor(hash(t)) FROM {table} t")  # reads all of it: a damaged block says so
    except BaseException:
        connection.close()  # else who opens the file next is given this one
        raise
    return connection


def _finished(roots: tuple[Path, ...], report: Report) -> Iterator[Run]:
    for root in roots:
        for run in all_runs(root):
            try:
                finished = run.state()["state"] == "finished"
            except (RunError, OSError) as error:
                report.skipped[run.run_id] = str(error)
                continue
            if finished:
                yield run


def _take(connection, run: Run, fingerprint: str) -> None:
    """Put a run in the place of what the store held of it; all of it, or nothing."""
    values, certificates = what_is_kept(run)
    values = {"run_id": run.run_id, "folder": as_kept(run.path), "fingerprint": fingerprint, **values}
    connection.begin()
    try:
        _remove(connection, run.run_id)
        _insert(connection, run.run_id, values, certificates)
    except BaseException:
        connection.rollback()
        raise
    connection.commit()  # one that fails has rolled back itself


def _remove(connection, run_id: str) -> None:
    for table in ("runs", "certificates", "curves"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])


def _insert(connection, run_id: str, values: dict, certificates: pd.DataFrame) -> None:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", list(values.values()))
    if len(certificates):
        connection.register("certificates_frame", certificates)
        columns = "idx, label, predict, radius, top_count, n, stop"
        connection.execute(
            f"INSERT INTO certificates SELECT ?, {columns} FROM certificates_frame ORDER BY idx", [run_id]
        )
        counts = _reached(certificates, values["ceiling"]).tolist()
        connection.execute("INSERT INTO curves VALUES (?, ?)", [run_id, counts])
        highest = values["ceiling"] * (1 - digits_error(values["radius_digits"]))
        connection.execute(AGGREGATES, [run_id, highest])


def _reached(certificates: pd.DataFrame, ceiling: float) -> np.ndarray:
    """How many images are answered correctly with radius >= i / PER_UNIT, for i = 0, 1, … up to the ceiling."""
    grid = np.arange(1 + int(np.ceil(ceiling * PER_UNIT))) / PER_UNIT  # 0.7 and not 0.7000000000000001
    radii = certificates["radius"].to_numpy()[(certificates["predict"] == certificates["label"]).to_numpy()]
    cells = np.bincount(np.searchsorted(grid, radii, side="right") - 1, minlength=len(grid))
    return np.where(grid <= ceiling, cells[::-1].cumsum()[::-1], 0)  # three digits may have been rounded up beyond it


def _published(connection) -> bool:
    """Load the published tables that ship with the project, where they changed; returns whether they did."""
    files = sorted((PRECOMPUTED / "published").glob("*.tsv"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if connection.execute("SELECT published_sha256 FROM meta").fetchone() == (digest,):
        return False
    for table in ("published", "published_runs"):
        connection.execute(f"DELETE FROM {table}")
    for file in files:
        table = "published_runs" if file.stem.endswith("-runs") else "published"
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_csv(?, delim = '\t')", [str(file)])
    connection.execute("UPDATE meta SET published_sha256 = ?", [digest])
    return True
