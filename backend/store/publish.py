"""The only writer of the results store: copies the snapshot aside, brings it up to date, renames it into place.

DuckDB lets one process write a file and shuts every other one out meanwhile, so the live file is never written.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import duckdb
import pandas as pd

from backend.certification.confidence import ceiling
from backend.home import PRECOMPUTED, home, runs_root, snapshot_path
from backend.run import EPOCH_COLUMNS, Run, RunError, all_runs
from backend.spec import SpecError

SCHEMA = (Path(__file__).parent / "schema.sql").read_text()
SCHEMA_SHA256 = hashlib.sha256(SCHEMA.encode()).hexdigest()

AGGREGATES = """
    UPDATE runs SET images = a.images, acr = a.acr, certified_accuracy_0 = a.accuracy, abstention = a.abstention
    FROM (SELECT count(*) AS images, avg(if(predict = label, radius, 0)) AS acr,
                 avg((predict = label)::INT) AS accuracy, avg((predict = -1)::INT) AS abstention
          FROM certificates WHERE run_id = $1) AS a
    WHERE runs.run_id = $1 AND a.images > 0
"""


@dataclass
class Report:
    """What a publication did: runs in the store, runs added or replaced, folders left out with the reason."""

    total: int = 0
    changed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def publish(roots: tuple[Path, ...] | None = None) -> Report:
    """Bring the snapshot up to date with the finished runs under the roots (default: the user's and the shipped ones).

    One publisher at a time: a second one waits. Killed at any point, it leaves the old snapshot standing. A folder
    that cannot be read is left out and named in the report; where two roots hold a run, the first one counts.
    """
    home().mkdir(parents=True, exist_ok=True)
    snapshot = snapshot_path()
    aside = snapshot.with_name(f".{snapshot.name}.next")
    with open(home() / ".publish.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for rest in home().glob(aside.name + "*"):  # of a publisher that was killed
            rest.unlink()
        if snapshot.exists():
            shutil.copyfile(snapshot, aside)
        report, changed = _update(aside, roots or (runs_root(), PRECOMPUTED))
        if changed or not snapshot.exists():
            aside.replace(snapshot)
        else:
            aside.unlink()
    return report


def _update(file: Path, roots: tuple[Path, ...]) -> tuple[Report, bool]:
    report = Report()
    try:
        connection = _open(file)
    except duckdb.Error:  # an older version's, or damaged: it is disposable
        file.unlink(missing_ok=True)
        connection = _open(file)
    with connection:
        known = dict(connection.execute("SELECT run_id, folder || fingerprint FROM runs").fetchall())
        found = {}
        for run in _finished(roots, report):
            if run.run_id in found:
                continue
            found[run.run_id] = mark = f"{run.path}{run.fingerprint()}"
            if known.get(run.run_id) == mark:
                continue
            try:
                rows = _rows(run)
            except (RunError, SpecError, ValueError, TypeError, KeyError) as error:
                report.skipped[run.run_id] = str(error)
                del found[run.run_id]
                continue
            connection.begin()
            _remove(connection, run.run_id)
            _insert(connection, run, *rows)
            connection.commit()
            report.changed += 1
        gone = known.keys() - found.keys()
        for run_id in gone:
            _remove(connection, run_id)
        tables_changed = _published(connection)
        report.total = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    return report, bool(report.changed or gone or tables_changed)


def _open(file: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(file)
    connection.execute(SCHEMA)
    versions = connection.execute("SELECT schema_sha256 FROM meta").fetchall()
    if versions and versions != [(SCHEMA_SHA256,)]:
        connection.close()
        raise duckdb.Error("the snapshot has another schema")
    if not versions:
        connection.execute("INSERT INTO meta VALUES (?)", [SCHEMA_SHA256])
    return connection


def _finished(roots: tuple[Path, ...], report: Report) -> Iterator[Run]:
    for root in roots:
        for run in all_runs(root):
            try:
                if run.state()["state"] == "finished":
                    yield run
            except RunError as error:
                report.skipped[run.run_id] = str(error)


def _remove(connection, run_id: str) -> None:
    for table in ("runs", "certificates", "epochs"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])


def _rows(run: Run) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """What the store keeps of a run: columns of `runs`, and the tables of certificates and epochs."""
    spec, environment = run.spec, run.environment()
    certification = spec.certification
    certificates = pd.DataFrame([asdict(c) for c in run.certificates()])
    epochs = pd.DataFrame(
        {
            "run_id": run.run_id,
            **{name: row[name] for name in EPOCH_COLUMNS},
            "terms": json.dumps({name: value for name, value in row.items() if name not in EPOCH_COLUMNS}),
        }
        for row in run.epochs()
    )
    values = {
        **{name: getattr(spec, name) for name in ("source", "dataset", "architecture", "method", "sigma", "seed")},
        **{name: getattr(spec, name) for name in ("weights_dtype", "precision", "weights_of")},
        "lam": spec.hyper.get("lam"),
        "hyper": json.dumps(dict(spec.hyper)),
        "recipe": spec.recipe.name,
        "epochs": spec.recipe.epochs,
        "device": environment.get("device"),
        "git_commit": environment.get("commit"),
        "train_seconds": float(epochs["seconds"].sum()) if len(epochs) else None,
        "certify_seconds": float(certificates["time"].sum()) if len(certificates) else None,
    }
    if certification is not None:
        values |= {name: getattr(certification, name) for name in ("n", "n0", "alpha", "image_set")}
        values["ceiling"] = ceiling(spec.sigma, certification.n, certification.alpha)
    return values, certificates, epochs


def _insert(connection, run: Run, values: dict, certificates: pd.DataFrame, epochs: pd.DataFrame) -> None:
    values = {"run_id": run.run_id, "folder": str(run.path), "fingerprint": run.fingerprint(), **values}
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", list(values.values()))
    if len(certificates):
        connection.register("certificates_frame", certificates)
        columns = "idx, label, predict, radius, top_count"
        connection.execute(
            f"INSERT INTO certificates SELECT ?, {columns} FROM certificates_frame ORDER BY idx", [run.run_id]
        )
    if len(epochs):
        connection.register("epochs_frame", epochs)
        connection.execute("INSERT INTO epochs BY NAME SELECT * FROM epochs_frame")
    connection.execute(AGGREGATES, [run.run_id])


def _published(connection) -> bool:
    """Load the published tables that ship with the project; returns whether they changed."""
    before = connection.execute("SELECT * FROM published").fetchall()
    connection.execute("DELETE FROM published")
    for file in sorted((PRECOMPUTED / "published").glob("*.tsv")):
        connection.execute("INSERT INTO published BY NAME SELECT * FROM read_csv(?, delim = '\t')", [str(file)])
    return before != connection.execute("SELECT * FROM published").fetchall()
