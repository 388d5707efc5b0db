"""Importing published logs: the released ones, damaged ones, foreign ones."""

import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.home import CHECKOUT, imported_root
from backend.log_file import LogError, read_log
from backend.logs import facts_of, import_logs
from backend.run import Run
from backend.store import queries
from backend.store.publish import publish

RELEASED = CHECKOUT.parent / "shared" / "reference" / "smoothing-consistency-logs.tar.xz"
HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
ROWS = [(0, 7, 7, 0.953, 1, "0:00:00.633116"), (1, 2, 3, 0.51, 0, "0:00:00.3"), (2, 1, -1, 0.0, 0, "12.5")]

# METHODS.md, "released": mean ± sd (n − 1) of ACR over seeds at σ = 0.25, 0.50, 1.00.
TABLE = {
    "gaussian": ("0.9108±0.0003", "1.5581±0.0016", "1.6184±0.0021"),
    "consistency": ("0.9282±0.0002", "1.6549±0.0012", "1.7377±0.0017"),
    "smoothadv": ("0.9322±0.0005", "1.6872±0.0007", "1.7786±0.0017"),
    "smoothadv_consistency": ("0.9323±0.0001", "1.6957±0.0006", "1.8163±0.0023"),
    "stability": ("0.9152±0.0007", "1.5719±0.0028", "1.6341±0.0018"),
    "macer": ("0.9201±0.0006", "1.5899±0.0069", "1.5950±0.0051"),
}


def log(path: Path, rows=ROWS, header=HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def take(path, partial=True, **given):
    return list(import_logs(path, imported_root(), {k: str(v) for k, v in given.items()}, partial=partial))


def reason(path, **given):
    (result,) = take(path, **given)
    assert result.run is None
    return result.reason


KNOWN = {"dataset": "mnist", "method": "gaussian", "sigma": 0.25}


def test_the_released_table_to_the_last_digit(home, tmp_path):
    """158 files: 130 logs, 27 files of pairs, one log that was cut off; in far less than 30 s on a quiet machine."""
    with tarfile.open(RELEASED) as archive:
        archive.extractall(tmp_path / "logs", filter="data")
    start = time.monotonic()
    results = take(tmp_path / "logs", partial=False)
    taken = [r for r in results if r.run]
    reasons = [r.reason for r in results if not r.run]
    assert (len(results), len(taken)) == (158, 130)
    assert sum("radius/accuracy pairs" in text for text in reasons) == 27
    assert sum("cut off: 9 of 10000 images" in text for text in reasons) == 1
    report = publish((imported_root(),))
    print(f"imported and published in {time.monotonic() - start:.1f} s")
    assert (report.total, report.skipped) == (130, {})
    groups = queries.over_seeds(queries.run_ids())
    groups = groups[(groups.dataset == "mnist") & (groups.seeds >= 5)]
    assert set(groups.radius_digits) == {3}
    seen = {(g.method, g.sigma): f"{g.acr:.4f}±{g.acr_sd:.4f}" for g in groups.itertuples()}
    sigmas = (0.25, 0.5, 1.0)
    assert seen == {(m, s): cell for m, cells in TABLE.items() for s, cell in zip(sigmas, cells, strict=True)}
    ablation = queries.over_seeds(queries.run_ids()).query(
        "dataset == 'mnist' and method == 'consistency' and sigma == 1 and lam > 10"
    )
    assert [f"{acr:.4f}" for acr in ablation.acr] == ["1.7312", "1.7198", "1.2261", "0.8456", "0.4560"]
    imagenet = queries.over_seeds(queries.run_ids()).query("dataset == 'imagenet'")
    assert sorted(f"{acr:.4f}" for acr in imagenet.acr) == ["0.8215", "0.9823"]


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("mnist/cohen/noise_0.25_3870", {"dataset": "mnist", "method": "gaussian", "sigma": 0.25, "seed": 3870}),
        ("mnist/stab/lbd_2/noise_1.0_6029", {"dataset": "mnist", "method": "stability", "lam": 2.0, "sigma": 1.0, "seed": 6029}),
        ("cifar10/consistency/cohen/num_2/lbd_20.0/eta_0.5/cifar_resnet110/noise_0.25",
         {"dataset": "cifar10", "method": "consistency", "m": 2, "lam": 20.0, "eta": 0.5, "architecture": "resnet110", "sigma": 0.25}),
        ("mnist/salman/pgd_255.0_10_10/num_4/noise_1.00_1316",
         {"dataset": "mnist", "method": "smoothadv", "attack": "pgd", "epsilon": 255 / 256, "steps": 10, "warmup": 10, "m": 4, "sigma": 1.0, "seed": 1316}),
        ("mnist/consistency/salman_512.0_10_10/num_4/lbd_1.0/eta_0.5/noise_0.25_5",
         {"dataset": "mnist", "method": "smoothadv_consistency", "attack": "pgd", "epsilon": 2.0, "steps": 10, "warmup": 10, "m": 4,
          "lam": 1.0, "eta": 0.5, "sigma": 0.25, "seed": 5}),
        ("mnist/macer_deferred30/num_16/lbd_6.0/gamma_8.0/beta_16.0/noise_1.00_508",
         {"dataset": "mnist", "method": "macer", "deferred": 31, "m": 16, "lam": 6.0, "gamma": 8.0, "beta": 16.0, "sigma": 1.0, "seed": 508}),
        ("mnist/cohen/noise_1e9_21", {"dataset": "mnist", "method": "gaussian", "sigma": 1e9, "seed": 21}),
        ("consistency/mnist/cohen/noise_0.25_1", {"dataset": "mnist", "method": "gaussian", "sigma": 0.25, "seed": 1}),
        ("mnist/consistency/macer_deferred30/noise_0.25_1",
         {"dataset": "mnist", "method": "macer_consistency", "deferred": 31, "sigma": 0.25, "seed": 1}),
        ("results/run.txt", {}),
    ],
)  # fmt: skip
def test_what_a_path_says(path, facts):
    assert facts_of(Path(path)) == facts


def test_a_log_becomes_an_ordinary_run_folder(home, tmp_path):
    (result,) = take(log(tmp_path / "x.tsv"), **(KNOWN | {"method": "consistency"}), seed=4, lam=2)
    run = result.run
    assert (run.spec.source, run.spec.radius_digits, run.spec.seed, run.spec.hyper) == ("published", 3, 4, {"lam": 2})
    assert (run.spec.certification.n, run.spec.certification.limit) == (100_000, 3)
    first, _, third = run.certificates()
    assert (first.idx, first.predict, first.radius, first.correct, first.time) == (0, 7, 0.953, 1, 0.633116)
    assert first.p_lower == pytest.approx(0.999931, abs=1e-6)  # Φ(0.953 / 0.25)
    assert (third.predict, third.radius, third.p_lower, third.time, third.top_count) == (-1, 0.0, 0.0, 12.5, -1)
    assert run.environment()["imported_from"] == "x.tsv"
    assert publish((imported_root(),)).skipped == {}
    row = queries.runs().iloc[0]
    assert row.acr == pytest.approx(0.953 / 3)
    assert 0.9528 < row.ceiling < 0.953  # rounded up to three digits: at 0.953 no counts would certify it, whoever asks
    for r, reached in ((0.9528, 1), (0.953, 0)):
        assert queries.accuracy_at(r, [run.run_id]).reached.tolist() == [reached]
        assert queries.images_of([run.run_id], r).reached.sum() == reached
    assert [r.run.run_id for r in take(tmp_path / "x.tsv", **(KNOWN | {"method": "consistency"}), seed=4, lam=2)] == [
        run.run_id
    ]  # once more


@pytest.mark.parametrize(
    ("change", "row", "says"),
    [
        ({}, {"radius": 0.96}, "it has a radius beyond 0.9528, the most that n = 100000 samples certify"),
        ({}, {"predict": -1, "correct": 0}, "it abstains with a radius"),
        ({}, {"top_count": 99_000}, "is not what an import of a log makes"),
        ({"radius_digits": 2}, {}, "is not what an import of a log makes"),
        ({"radius_digits": None}, {}, "is not what an import of a log makes"),
        (None, {}, "it calls itself published, and has weights or epochs of its own"),
    ],
)
def test_an_imported_run_that_claims_more_is_not_published(change, row, says, home, tmp_path):
    """A folder may be anybody's; two digits would excuse a radius a tenth too large."""
    (result,) = take(log(tmp_path / "x.tsv"), **KNOWN)
    made, spec = result.run, replace(result.run.spec, **(change or {}))
    run = Run.create(imported_root(), spec)
    if run.path != made.path:
        made.state_file.unlink()
    if change is None:
        run.weights_file.write_bytes(b"weights")
    first, *others = made.certificates()
    run.certificates_file.unlink(missing_ok=True)
    for one in (replace(first, **row), *others):
        run.append(one)
    run.set_state("finished")
    assert publish((imported_root(),)).skipped[run.run_id].endswith(says)


def test_a_hyper_parameter_or_a_time_that_cannot_be_is_refused(home, tmp_path):
    (result,) = take(log(tmp_path / "x.tsv"), **KNOWN, m="4.7")
    assert result.reason == "its m must be a whole number, not 4.7"
    content = (tmp_path / "x.tsv").read_text()
    (tmp_path / "y.tsv").write_text(content.replace("12.5", "1e999"))
    assert "'1e999' is no time" in take(tmp_path / "y.tsv", **KNOWN)[0].reason


def test_a_path_may_say_more_than_the_method_has(home, tmp_path):
    """Nobody has said that Gaussian has an m; a mapping or --set that says so is refused."""
    path = log(tmp_path / "mnist" / "cohen" / "num_1" / "noise_0.25")
    (result,) = take(path)
    assert (result.reason, result.run.spec.hyper) == ("", {})
    assert "nor a hyper-parameter of gaussian: m" in reason(path, m=1)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"seed": 4.7}, "its seed must be a whole number, not 4.7"),
        ({"n": "100000.5"}, "its n must be a whole number, not 100000.5"),
        ({"epochs": 2.9}, "its epochs must be a whole number, not 2.9"),
        ({"seed": True}, "its seed must be a whole number, not True"),
        ({"alpha": "small"}, "its alpha must be a number, not small"),
        ({"alpha": 10**400}, "its alpha must be a number, not 1000"),
        ({"digits": 3.5}, "its digits must be a whole number, not 3.5"),
        ({"sgima": 0.25}, "neither a fact (dataset, "),
        ({"lam": 3}, "nor a hyper-parameter of gaussian: lam"),
    ],
)
def test_a_fact_that_would_become_another_is_refused(facts, says, home, tmp_path):
    assert says in reason(log(tmp_path / "x.tsv"), **(KNOWN | facts))


def test_numbers_stay_numbers(home, tmp_path):
    """Of a method that is not known here, too: 2, 2.0 and "2" are one run."""
    runs = [
        take(log(tmp_path / "x.tsv"), **(KNOWN | {"method": "catrs", "k": k, "n": "1e5"}))[0].run for k in (2, 2.0, "2")
    ]
    assert len({run.run_id for run in runs}) == 1
    assert (runs[0].spec.hyper, runs[0].spec.certification.n) == ({"k": 2.0}, 100_000)
    assert facts_of(Path("mnist/consistency/num_2.5/x"))["m"] == 2.5  # refused where it counts vectors


def test_extra_columns_and_what_windows_adds_are_read(home, tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(
        b"\xef\xbb\xbfidx\tlabel\tpredict\tradius\tcorrect\ttime\tnote\r\n0\t7\t7\t0.5\t1\t1 day, 0:00:01\tok\r\n"
    )
    table, cut = read_log(path)
    assert table["time"].tolist() == [86_401.0]
    assert not cut


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"0.00000\t0.99430\n0.00500\t0.99430\n", "holds radius/accuracy pairs"),
        (b"=> loading checkpoint\nEpoch 1\n", "does not begin with the columns"),
        (b"\x80\x04\x95pickle", "is no text"),
        (b"", "does not begin with the columns"),
        (b"idx,label,predict,radius,correct,time\n", "the columns, tabs between them, idx label"),
        (HEADER.encode(), "has no rows"),
        (HEADER.encode() + b"0\t7\t7\tlarge\t1\t1\n", "a value that is no number"),
        (HEADER.encode() + b"0\t7\t7\t0.5\t1\n1\t2\t2\t0.5\t1\t1\n", "rows with other columns"),
        (HEADER.encode() + b"0\t7\t7\tnan\t1\t1\n", "a value that is no number: 'nan'"),
        (HEADER.encode() + b"0\t7\t7\t1_0.5\t1\t1\n", "a value that is no number: '1_0.5'"),
        (HEADER.encode() + b"1_0\t7\t7\t0.5\t1\t1\n", "a value that is no number: '1_0'"),
        (HEADER.encode() + "0\t7\t７\t0.5\t1\t1\n".encode(), "a value that is no number"),
        (HEADER.encode() + b"0\t7\t7\t-1\t1\t1\n", "a radius or class that cannot be"),
        (HEADER.encode() + b"0\t7\t-2\t0\t0\t1\n", "a radius or class that cannot be"),
        (HEADER.encode() + b"0\t7\t3\t0.5\t1\t1\n", "calls an answer correct"),
        (HEADER.encode() + b"0\t7\t-1\t0.5\t0\t1\n", "abstains with a radius"),
        (HEADER.encode() + b"0\t7\t7\t0.5\t1\t1\n0\t7\t7\t0.5\t1\t1\n", "names an image twice"),
        (HEADER.encode() + b"3\t7\t7\t0.5\t1\t1\n4\t7\t7\t0.5\t1\t1\n", "not every so many-th of the test split"),
        (HEADER.encode() + b"0\t7\t7\t0.99\t1\t1\n", "which n = 100000 samples cannot certify"),
        (HEADER.encode() + b"0\t7\t7\t0.5\t1\tsoon\n", "a value that is no number"),
        (HEADER.encode() + b"99999999999999999999\t7\t7\t0.5\t1\t1\n", "a value that is no number"),
        (HEADER.encode() + b"0\t-1\t-1\t0\t1\t1\n", "a label below 0"),
        (HEADER.encode() + b"0\t12\t12\t0.5\t1\t1\n", "none of the 10 classes of mnist"),
        (b"idx\tlabel\tpredict\tradius\tcorrect\ttime\tradius\n0\t7\t7\t0.5\t1\t1\t2\n", "names a column twice"),
    ],
)
def test_foreign_and_damaged_files_are_named_with_the_reason(content, says, home, tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    assert says in reason(path, **KNOWN)


def test_a_file_that_was_cut_off(home, tmp_path):
    """In the middle of a row: the whole rows are those of its first images, where one asks for them."""
    path = log(tmp_path / "x.tsv")
    path.write_bytes(path.read_bytes()[:-12])
    (result,) = take(path, partial=False, **KNOWN)
    assert "is cut off: 2 of 10000 images and half a row (--partial takes it)" in result.reason
    (result,) = take(path, partial=True, **KNOWN)
    assert result.run.spec.certification.limit == 2


def test_what_the_path_does_not_say_is_asked_for(home, tmp_path):
    path = log(tmp_path / "x.tsv")
    assert (
        "does not say its dataset and method and sigma: give it, as --set dataset=mnist method=gaussian sigma=0.5, or with"
        in reason(path)
    )
    assert "dataset must be one of mnist, " in reason(path, **(KNOWN | {"dataset": "svhn"}))
    mapping = {"*.tsv": KNOWN}
    (result,) = import_logs(tmp_path, imported_root(), {"sigma": "0.5"}, mapping, partial=True)
    assert result.run.spec.sigma == 0.5  # what is given wins
    assert reason(path, **(KNOWN | {"sigma": "small"})) == "its sigma must be a number, not small"
    with pytest.raises(LogError, match="there is no file"):
        take(tmp_path / "nothing")


def test_two_files_that_say_the_same_of_themselves(home, tmp_path):
    log(tmp_path / "a.tsv")
    log(tmp_path / "b.tsv", [(0, 7, 7, 0.1, 1, "1"), *ROWS[1:]])
    first, second = take(tmp_path, **KNOWN)
    assert "says the same of itself as a.tsv, which is imported: give a seed" in second.reason
    assert first.run.certificates()[0].radius == 0.953  # what was taken stays
    assert first.run.environment()["imported_from"] == "a.tsv"
    (again,) = take(tmp_path / "b.tsv", **KNOWN)  # on another day, too
    assert again.run is None


def test_wherever_a_file_is_cut_off_its_whole_rows_are_taken(home, tmp_path):
    whole = log(tmp_path / "whole.tsv").read_bytes()
    second = whole.index(b"\n1\t") + 1
    third = whole.index(b"\n2\t") + 1
    for end in range(second + 1, third):
        (tmp_path / "x.tsv").write_bytes(whole[:end])
        table, cut = read_log(tmp_path / "x.tsv")
        assert (len(table["idx"]), cut) in ((1, True), (2, False))  # nothing says that digits are missing from a time


def test_the_command_line(home, tmp_path):
    log(tmp_path / "logs" / "mnist" / "cohen" / "noise_0.25_1")
    (tmp_path / "logs" / "stdout").write_text("epoch 1\n")
    command = [sys.executable, "-m", "backend", "import", tmp_path / "logs", "--partial"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert result.returncode == 0, result.stderr
    assert "Imported 1 log, skipped 1." in result.stdout
    assert "stdout: it does not begin with the columns" in result.stderr
    assert np.isfinite(queries.runs().acr).any()
