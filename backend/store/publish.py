"""The only writer of the results store: copies the snapshot aside, brings it up to date, renames it into place.

DuckDB lets one process write a file and shuts every other one out meanwhile, so the live file is never written.
"""

import csv
import fcntl
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pandas as pd
from scipy.special import betaincinv, ndtri

from backend.certification.confidence import ROUNDING, ceiling, looks
from backend.datasets import DatasetError, find_dataset
from backend.home import PRECOMPUTED, home, imported_root, runs_root, snapshot_path
from backend.run import ABSTAIN, Certificate, Run, RunError, all_runs
from backend.spec import RunSpec, SpecError

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
    except duckdb.Error:  # an older version's, or damaged: it is disposable
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
                if known.get(run.run_id) != f"{run.path}{fingerprint}":
                    _take(connection, run, fingerprint)
                    report.changed += 1
                found[run.run_id] = run
            except duckdb.OperationalError:  # the disk or the memory is full: no fault of the folder's
                raise
            except UNREADABLE as error:
                report.skipped[run.run_id] = str(error)
        gone = known.keys() - found.keys()
        for run_id in gone:
            _remove(connection, run_id)
        tables_changed = _published(connection)
        report.total = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        connection.execute("CHECKPOINT")  # closing would, too, and say nothing where it fails
    return report, bool(report.changed or gone or tables_changed)


def _open(file: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(file)
    connection.execute(SCHEMA)
    versions = connection.execute("SELECT schema_sha256 FROM meta").fetchall()
    if versions and versions != [(SCHEMA_SHA256,)]:
        connection.close()
        raise duckdb.Error("the snapshot has another schema")
    if not versions:
        connection.execute("INSERT INTO meta VALUES (?, NULL)", [SCHEMA_SHA256])
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
    values, certificates = _rows(run)
    values = {"run_id": run.run_id, "folder": str(run.path), "fingerprint": fingerprint, **values}
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


def _rows(run: Run) -> tuple[dict, pd.DataFrame]:
    """What the store keeps of a run: columns of `runs`, and its certificates."""
    spec, environment = run.spec, run.environment()
    if spec.run_id != run.run_id:
        raise RunError(f"its spec is that of {spec.run_id}")
    if spec.source == "published" and (run.weights_file.exists() or run.training_file.exists()):
        raise RunError("it calls itself published, and has weights or epochs of its own")
    certification = spec.certification
    certificates = _certificates(run)
    if certification is not None:
        _check_claims(spec, certificates)
    epochs = run.epochs()
    seconds = [row["seconds"] for row in epochs]
    values = {
        "radius_digits": spec.radius_digits,
        **{name: getattr(spec, name) for name in ("source", "dataset", "architecture", "method", "sigma", "seed")},
        **{name: getattr(spec, name) for name in ("weights_dtype", "precision", "weights_of")},
        "lam": spec.hyper.get("lam"),
        "hyper": json.dumps(dict(spec.hyper), sort_keys=True),
        "train_precision": spec.recipe.precision,
        "recipe": spec.recipe.name,
        "epochs": spec.recipe.epochs,
        "missing_classes": epochs[-1].get("missing_classes") if epochs else None,
        "device": ", ".join(run.devices()) or None,
        "git_commit": environment.get("commit"),
        "train_seconds": float(sum(seconds)) if seconds else None,
        "epoch_seconds": float(median(seconds)) if seconds else None,
        "certify_seconds": float(certificates["time"].sum()) if len(certificates) else None,
    }
    if certification is not None:
        values |= {name: getattr(certification, name) for name in ("n", "n0", "alpha", "image_set")}
        values["mode"] = certification.label
        n, alpha = looks(certification.mode, certification.n, certification.alpha)[-1]
        values["ceiling"] = ceiling(spec.sigma, n, alpha)
    return values, certificates


def _certificates(run: Run) -> pd.DataFrame:
    """certificates.tsv, read at once. Raises RunError for a row that is no certificate."""
    kinds = Certificate.__annotations__
    if not run.certificates_file.exists():
        return pd.DataFrame(columns=list(kinds))
    content = run.certificates_file.read_bytes()
    whole_rows = content[: content.rfind(b"\n") + 1]
    try:
        table = pd.read_csv(
            io.BytesIO(whole_rows), sep="\t", dtype=kinds, keep_default_na=False, na_values={}, quoting=csv.QUOTE_NONE, index_col=False,
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        raise RunError(f"{run.certificates_file} holds a row that is no certificate: {error}") from error
    if list(table.columns) == list(kinds)[:-1]:  # written before there were modes
        table["stop"] = "n"
    if list(table.columns) != list(kinds):
        raise RunError(f"{run.certificates_file} has the columns {', '.join(table.columns)}, not those of certificates")
    return table


def _check_claims(spec: RunSpec, rows: pd.DataFrame) -> None:
    """Raise RunError unless the rows are those of the spec's images, and claim no more than their counts support."""
    settings = spec.certification
    try:
        dataset = find_dataset(spec.dataset)
        size, classes = dataset.test_images, len(dataset.classes)
    except DatasetError:  # a folder of images on the machine where it ran: its size is what the rows say
        size, classes = min(max(rows["idx"], default=-1) + 1, settings.every * len(rows)), 1_000_000
    chosen = settings.chosen(size)
    if not (rows["label"].between(0, classes - 1) & rows["predict"].between(ABSTAIN, classes - 1)).all():
        raise RunError(f"it has labels or answers that are none of {classes} classes")
    if len(rows) != len(chosen) or sorted(rows["idx"]) != chosen:
        raise RunError(f"it has {len(rows)} rows, not one for each of the {len(chosen)} images of {settings.image_set}")
    spent = rows["n"].map(dict(looks(settings.mode, settings.n, settings.alpha)))
    if spent.isna().any() or (rows["n0"] != settings.n0).any():
        raise RunError(f"its rows rest on other n or n0 than its spec says (n = {settings.n}, n0 = {settings.n0})")
    if spec.source == "published":  # no counts: what they could be at most
        if (
            spec.radius_digits is None
            or spec.radius_digits < 3
            or (rows["top_count"] != -1).any()
            or settings.mode != "fixed"
        ):
            raise RunError("it calls itself published, and is not what an import of a log makes")
        largest = ceiling(spec.sigma, settings.n, settings.alpha)
        if (rows["radius"] < 0).any() or (rows["radius"][rows["predict"] == ABSTAIN] > 0).any():
            raise RunError("it has a radius that cannot be")
        if (rows["radius"] > largest * (1 + 0.5 / 10 ** (spec.radius_digits - 1)) + ROUNDING).any():
            raise RunError(f"it has a radius beyond {largest:.4f}, the most that n = {settings.n} samples certify")
        return
    if not rows["top_count"].between(0, rows["n"]).all():
        raise RunError("its rows count more votes than samples")
    k = rows["top_count"].clip(lower=1)
    p_lower = np.where(rows["top_count"] > 0, betaincinv(k, rows["n"] - k + 1, spent), 0.0)
    largest = np.where(rows["p_lower"] > 0.5, spec.sigma * ndtri(rows["p_lower"].clip(0, 1)), 0.0)
    too_much = (rows["p_lower"] > p_lower + ROUNDING) | (rows["radius"] > largest + ROUNDING)
    too_much |= (rows["predict"] >= 0) & (rows["p_lower"] <= 0.5)
    if too_much.any():
        raise RunError(f"image {rows['idx'][too_much].iloc[0]} claims more than its votes support")


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
        rounding = 0.5 / 10 ** (values["radius_digits"] - 1) if values["radius_digits"] else 0
        connection.execute(AGGREGATES, [run_id, values["ceiling"] * (1 - rounding)])


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
