import fcntl
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from math import ceil, floor

import pandas as pd
import pytest

from backend.certification.confidence import ceiling
from backend.certification.metrics import abstention, acr, certified_accuracy
from backend.home import CHECKOUT, runs_root, snapshot_path
from backend.run import Run
from backend.store import publish as publisher
from backend.store import queries
from backend.store.snapshot import StoreError
from tests.store import ROWS, certificate, finished, mine, publish, reach


def test_aggregates_by_hand(home):
    run = finished(ROWS)
    assert publish().total == 1
    row = queries.runs().iloc[0]
    assert row.run_id == run.run_id
    assert (row.images, row.certified_accuracy_0, row.abstention, row.samples) == (4, 0.5, 0.25, 1_000)
    assert row.acr == pytest.approx((reach(900) + reach(990)) / 4)
    assert row.ceiling == ceiling(0.5, 1_000, 0.001)
    certificates = run.certificates()
    assert row.acr == pytest.approx(acr(certificates))
    assert row.abstention == abstention(certificates)
    assert set(queries.RUN_COLUMNS) <= set(queries.runs().columns)


def test_curve_by_hand_and_by_definition(home):
    run = finished(ROWS)
    publish()
    curve = queries.curves([run.run_id]).set_index("r").certified_accuracy
    below, above = (f(reach(900) * 100) / 100 for f in (floor, ceil))
    assert [curve[r] for r in (0.0, below, above)] == [0.5, 0.5, 0.25]
    below, above = (f(reach(990) * 100) / 100 for f in (floor, ceil))
    assert [curve[r] for r in (below, above)] == [0.25, 0]
    assert curve.index.max() == ceiling(0.5, 1_000, 0.001)
    certificates = run.certificates()
    assert all(value == certified_accuracy(certificates, r) for r, value in curve.items())


def test_a_curve_ends_at_the_ceiling_with_what_reaches_it(home):
    """Not at the next radius of two decimals, which nothing reaches: of groups the mean over seeds."""
    most = ceiling(0.5, 1_000, 0.001)
    seeds = [
        finished([(1, 1, 1000), (2, 2, 1000), (3, 3, 999)]),
        finished([(1, 1, 1000), (2, 2, 999), (3, 3, 999)], seed=1),
    ]
    publish()
    for run, share in zip(seeds, (2 / 3, 1 / 3), strict=True):
        last = queries.curves([run.run_id]).iloc[-1]
        assert (last.r, last.certified_accuracy) == (most, share)
    last = queries.group_curves([run.run_id for run in seeds]).iloc[-1]
    assert (last.r, last.certified_accuracy) == (most, 0.5)


def test_curves_of_none_and_of_unknown_runs_are_empty(home):
    publish()
    assert queries.curves([]).empty
    assert queries.curves(["'; DROP TABLE runs; --"]).empty
    assert queries.runs().empty


def test_gains_are_paired_by_image(home):
    finished([(1, 1, 900), (2, 2, 990), (3, 4, 999)])
    finished([(1, 1, 950), (2, 2, 990), (3, 3, 700)], method="consistency")
    finished([(1, 1, 960), (2, 2, 990), (3, 3, 700)], method="consistency", seed=1)  # no Gaussian run of this seed
    finished(
        [(1, 1, 960), (2, 2, 990), (3, 3, 700)], method="consistency", weights_dtype="float16"
    )  # nor of these weights
    publish()
    gains = queries.acr_gains(queries.runs().run_id, [("gaussian", "consistency"), ("macer", "consistency")])
    assert len(gains) == 1
    gain = gains.iloc[0]
    differences = pd.Series([reach(950) - reach(900), 0.0, reach(700)])
    assert (gain.baseline, gain.method) == ("gaussian", "consistency")
    assert gain.gain == pytest.approx(differences.mean())
    assert gain.acr == pytest.approx((reach(950) + reach(990) + reach(700)) / 3)
    assert gain.baseline_acr == pytest.approx((reach(900) + reach(990)) / 3)


def test_publishing_is_incremental(home):
    run = finished(ROWS)
    other = finished(ROWS, seed=1)
    assert (publish().changed, publish().changed) == (2, 0)
    before = queries.runs().set_index("run_id").acr
    run.certificates_file.unlink()
    for idx, row in enumerate([(1, 1, 999), *ROWS[1:]]):
        run.append(certificate(idx, *row))
    report = publish()
    assert (report.total, report.changed) == (2, 1)
    after = queries.runs().set_index("run_id").acr
    assert after[run.run_id] > before[run.run_id]
    assert after[other.run_id] == before[other.run_id]
    shutil.rmtree(other.path)
    assert publish().total == 1
    assert queries.runs().run_id.to_list() == [run.run_id]


def test_a_home_that_is_seen_under_another_path_keeps_its_store(home, monkeypatch):
    """As another mount or container sees it, maybe read-only: folders are found, and nothing is to be published anew."""
    run = finished(ROWS)
    assert publish().changed == 1
    elsewhere = home.rename(home.parent / "elsewhere")
    monkeypatch.setenv("CERTSCOPE_HOME", str(elsewhere))
    assert queries.runs().folder.to_list() == [str(elsewhere / "runs" / run.run_id)]
    assert publish().changed == 0


def test_of_two_roots_the_first_counts(home):
    run = finished(ROWS)
    shutil.copytree(run.path, home / "shipped" / run.run_id)
    other = Run(home / "shipped" / run.run_id)
    other.certificates_file.unlink()
    for idx, row in enumerate(reversed(ROWS)):
        other.append(certificate(idx, *row))
    publisher.publish((runs_root(), home / "shipped"))
    assert queries.runs().folder.to_list() == [str(run.path)]
    assert queries.certificates(run.run_id).label.to_list() == [label for label, *_ in ROWS]


def test_a_publisher_waits_for_whoever_is_at_it(home):
    finished(ROWS)
    with open(home / ".publish.lock", "w") as other, ThreadPoolExecutor() as pool:
        fcntl.flock(other, fcntl.LOCK_SH)
        waits = pool.submit(publish)
        with pytest.raises(TimeoutError):
            waits.result(0.5)
        fcntl.flock(other, fcntl.LOCK_UN)
        assert waits.result(30).changed == 1


def test_only_finished_runs_are_published(home):
    run = finished(ROWS)
    for state in ("queued", "failed", "cancelled"):
        run.set_state(state)
        assert publish().total == 0
    run.set_state("finished")
    assert publish().total == 1


def test_a_damaged_snapshot_is_made_anew(home):
    finished(ROWS)
    publish()
    snapshot_path().write_bytes(b"not a database")
    with pytest.raises(StoreError, match="`python -m backend publish` makes it anew"):
        queries.runs()
    publish()
    assert len(queries.runs()) == 1


def test_a_store_that_is_damaged_anywhere_is_made_anew(home):
    """A few bytes of each block; who reads it meanwhile is told so, or not concerned."""
    run = finished(ROWS)
    publish()
    whole, told = snapshot_path().read_bytes(), 0
    for start in range(0, len(whole), 262_144):  # DuckDB's blocks
        damaged = bytearray(whole)
        damaged[start + 5_000 : start + 5_008] = bytes(255 - byte for byte in whole[start + 5_000 : start + 5_008])
        snapshot_path().write_bytes(damaged)
        try:
            assert len(queries.runs()) == len(queries.certificates(run.run_id)) / 4 == 1
        except StoreError as error:
            told += "cannot be read (" in str(error)
            assert publish().changed == 1
        publish()
        assert queries.runs().acr.iloc[0] == pytest.approx((reach(900) + reach(990)) / 4)
        assert queries.certificates(run.run_id).predict.to_list() == [1, 2, 4, -1]
    assert told


def test_no_store_says_what_to_do(home):
    with pytest.raises(StoreError, match="`python -m backend publish` makes it"):
        queries.runs()


def test_published_table_is_the_papers(home):
    publish()
    table = queries.published("mnist").set_index(["method", "sigma", "source"])
    assert len(table) == 6 * 3 * 2 + 3  # and CAT-RS
    assert table.acr["consistency", 0.5, "rebuttal"] == 1.6653
    assert table.acr_sd["smoothadv_consistency", 1.0, "released"] == 0.0023
    assert set(table.n) == {100_000}


def test_readers_see_whole_snapshots_while_others_publish(home):
    """Threads read without pause while another process publishes: no error, never fewer runs than before."""
    finished(ROWS)
    publish()
    stop, problems = threading.Event(), []

    def read():
        seen = 0
        while not stop.is_set():
            try:
                now = len(mine())
                assert now >= seen, f"{seen} runs, then {now}"
                seen = now
            except Exception as error:
                problems.append(repr(error))

    threads = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for seed in range(1, 4):
        finished(ROWS, seed=seed)
        subprocess.run([sys.executable, "-m", "backend", "publish"], cwd=CHECKOUT, check=True, capture_output=True)
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(mine()) == 4


@pytest.mark.parametrize("delay", [0, 0.05, 0.2])
def test_a_killed_publisher_leaves_the_old_snapshot_standing(home, delay):
    finished(ROWS)
    publish()
    for seed in range(1, 40):
        finished(ROWS, seed=seed)
    process = subprocess.Popen([sys.executable, "-m", "backend", "publish"], cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (home / ".results.duckdb.next").exists():
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    assert process.wait() == -9  # in the midst of it
    assert len(mine()) == 1
    assert publish().total == 40
    assert len(mine()) == 40
    assert not [p for p in home.iterdir() if "next" in p.name]


@pytest.mark.parametrize("share", [0.5, 1.0], ids=["no room for a copy", "no room for more"])
def test_a_full_disk_leaves_the_old_snapshot_standing_and_says_so(home, share):
    finished(ROWS)
    publish()
    finished(ROWS, seed=1)
    room = int(share * snapshot_path().stat().st_size)
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); import backend.cli; raise SystemExit(backend.cli.main(['publish']))"
    process = subprocess.run([sys.executable, "-c", limited], check=False, cwd=CHECKOUT, capture_output=True, text=True)
    assert process.returncode == 1
    assert "could not be brought up to date" in process.stderr
    assert "Traceback" not in process.stderr
    assert len(mine()) == 1
    assert not [p for p in home.iterdir() if "next" in p.name]
    assert publish().changed == 1
