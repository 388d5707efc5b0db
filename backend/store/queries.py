"""One function, one question to the results store, one DataFrame. Reads the current snapshot; never writes."""

import threading
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pandas as pd

from backend.home import snapshot_path
from backend.store.publish import SCHEMA_SHA256

RUN_COLUMNS = [
    "run_id", "source", "dataset", "architecture", "method", "sigma", "lam", "seed",
    "n", "n0", "alpha", "images", "acr", "certified_accuracy_0", "abstention",
]  # fmt: skip

_opened: dict[Path, tuple[tuple, duckdb.DuckDBPyConnection]] = {}
_opening = threading.Lock()


class StoreError(RuntimeError):
    """There is no store to read, or it is another version's; the message says what to do."""


def runs() -> pd.DataFrame:
    """Every run of the store: the columns of `runs` in schema.sql, ordered by data set, σ, method, λ and seed.

    lam, n, n0, alpha, images, acr, certified_accuracy_0 and abstention are missing where they do not apply.
    """
    return _ask(
        "SELECT * EXCLUDE fingerprint FROM runs ORDER BY dataset, sigma, method, lam NULLS FIRST, seed, n, run_id"
    )


def curves(run_ids: Sequence[str], step: float = 0.01) -> pd.DataFrame:
    """Certified accuracy at radii 0, step, 2·step, … up to the run's ceiling: run_id, r, certified_accuracy.

    An abstention counts as wrong; at r the images with radius >= r count.
    """
    return _ask(
        """
        WITH chosen AS (SELECT run_id, images, ceiling FROM runs WHERE run_id IN (SELECT unnest($1)) AND images > 0),
        grid AS (SELECT run_id, images, i * $2 AS r FROM chosen, range(1 + CAST(ceil(ceiling / $2) AS BIGINT)) AS t(i)),
        right_ones AS (SELECT run_id, radius FROM certificates SEMI JOIN chosen USING (run_id) WHERE predict = label),
        reached AS (SELECT c.run_id, g.r, count(*) AS k FROM right_ones c
                    ASOF JOIN grid g ON c.run_id = g.run_id AND c.radius >= g.r GROUP BY ALL)
        SELECT g.run_id, g.r, sum(coalesce(k, 0)) OVER (PARTITION BY g.run_id ORDER BY g.r DESC) / g.images
               AS certified_accuracy
        FROM grid g LEFT JOIN reached USING (run_id, r) ORDER BY g.run_id, g.r
        """,
        [list(run_ids), step],
    )


def acr_gains(dataset: str, baseline: str, method: str) -> pd.DataFrame:
    """ACR of each run of `method` against the run of `baseline` that differs in nothing else, image by image.

    Pairs have equal architecture, σ, seed, recipe, epochs, weights and network precision, n, n0, α, mode and images. Columns: run_id, baseline_id, sigma, lam, seed,
    n, alpha, image_set, images, acr, baseline_acr, gain, and gain_se, the standard error of the mean paired
    difference over the images.
    """
    return _ask(
        """
        SELECT a.run_id, b.run_id AS baseline_id, a.sigma, a.lam, a.seed, a.n, a.alpha, a.image_set,
               count(*) AS images, avg(x.gained) AS acr, avg(y.gained) AS baseline_acr,
               avg(x.gained - y.gained) AS gain, stddev_samp(x.gained - y.gained) / sqrt(count(*)) AS gain_se
        FROM runs a JOIN runs b USING (dataset, architecture, sigma, seed, recipe, epochs, weights_dtype, precision, n, n0, alpha, mode, image_set)
        JOIN (SELECT *, if(predict = label, radius, 0) AS gained FROM certificates) x ON x.run_id = a.run_id
        JOIN (SELECT *, if(predict = label, radius, 0) AS gained FROM certificates) y
             ON y.run_id = b.run_id AND y.idx = x.idx
        WHERE dataset = $1 AND b.method = $2 AND a.method = $3
        GROUP BY ALL HAVING count(*) = any_value(a.images) AND count(*) = any_value(b.images)
        ORDER BY a.sigma, a.lam, a.seed
        """,
        [dataset, baseline, method],
    )


def published(dataset: str) -> pd.DataFrame:
    """What the papers report for a data set: the columns of `published` in schema.sql."""
    return _ask("SELECT * FROM published WHERE dataset = $1 ORDER BY sigma, method, source", [dataset])


def _ask(sql: str, parameters: list | None = None) -> pd.DataFrame:
    with _snapshot().cursor() as cursor:
        cursor.execute("USE store")
        return cursor.execute(sql, parameters).df()


def _snapshot() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the current snapshot attached, opened anew only when the snapshot was replaced."""
    path = snapshot_path()
    with _opening:
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise StoreError(f"There is no results store at {path}. `python -m backend publish` makes it.") from None
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if path not in _opened or _opened[path][0] != mark:
            connection = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
            try:
                connection.execute(f"ATTACH {_quoted(str(path))} AS store (READ_ONLY)")
                connection.execute("SET enable_external_access = false")
                version = connection.execute("SELECT schema_sha256 FROM store.meta").fetchone()
            except duckdb.Error as error:
                raise StoreError(
                    f"{path} cannot be read ({error}). `python -m backend publish` makes it anew."
                ) from error
            if version != (SCHEMA_SHA256,):
                raise StoreError(f"{path} is another version's. `python -m backend publish` makes it anew.")
            _opened[path] = (mark, connection)  # the old one closes when its last cursor is gone
        return _opened[path][1]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
