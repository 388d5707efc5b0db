"""Rows of a run folder: as written, packed, cut off, damaged, of another version."""

import gzip

import pytest

from backend import files
from backend.home import runs_root
from backend.rows import Certificate, Epoch
from backend.run import Run, RunError

ROW = Certificate(20, 7, 7, 1.25, 1, 0.5, 9990, 10_000, 100, 0.99)


def epoch(number):
    return Epoch(number, 1.0, 100.0, 0.01, 0.5, 0.9, {"cross_entropy": 0.5})


def test_rows_come_back_as_they_were_written(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    rows = [ROW, Certificate(40, 3, -1, 0.0, 0, 0.1, 400, 1000, 100, 0.1234567890123456)]
    for row in rows:
        run.append(row)
    run.append(epoch(1))
    assert run.certificates() == rows
    assert run.epochs() == [
        {
            "epoch": 1,
            "seconds": 1,
            "images_per_second": 100,
            "lr": 0.01,
            "loss": 0.5,
            "accuracy": 0.9,
            "missing_classes": 0,
            "cross_entropy": 0.5,
        }
    ]
    assert run.count() == (1, 2)
    header = run.certificates_file.read_text().splitlines()[0]
    assert header == "idx\tlabel\tpredict\tradius\tcorrect\ttime\ttop_count\tn\tn0\tp_lower\tstop"


def test_packed_rows_are_the_same_rows(home, digits_spec, monkeypatch):
    """As they ship: certificates.tsv.gz alone. Whoever appends to them has them plain first; what is damaged is named."""
    run = Run.create(runs_root(), digits_spec())
    run.append(ROW)
    plain, before = run.certificates_file.read_bytes(), run.fingerprint()
    name, content = run.compact(run.certificates_file)
    assert (name, gzip.decompress(content)) == ("certificates.tsv.gz", plain)
    assert run.compact(run.certificates_file) == (name, content)
    small = run.path / name
    small.write_bytes(content)
    run.certificates_file.unlink()
    assert (run.certificates(), run.count(), run.content(run.certificates_file)) == ([ROW], (0, 1), plain)
    assert small in run.portable()
    assert run.fingerprint() != before
    assert run.resume_point(0) == {ROW.idx}
    assert (run.certificates_file.read_bytes(), small.exists()) == (plain, False)
    run.certificates_file.unlink()
    for damaged, says in (
        (content[:-9], "cannot be unpacked: Compressed file ended"),
        (plain, "cannot be unpacked: Not a gzipped file"),
        (content[:12] + b"\xff" * 20, "cannot be unpacked: "),
        (gzip.compress(b"0" * 1001), "holds more than 0 MB"),
    ):
        small.write_bytes(damaged)
        monkeypatch.setattr(files, "MOST_UNPACKED", 1000)
        for ask in (
            run.certificates,
            run.count,
            lambda: run.content(run.certificates_file),
            lambda: run.resume_point(0),
        ):
            with pytest.raises(RunError, match=f"certificates.tsv.*{says}"):
                ask()


def test_rows_with_windows_line_ends_are_rows(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    run.append(ROW)
    run.append(epoch(1))
    before = run.epochs()
    for file in (run.certificates_file, run.training_file):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert (run.certificates(), run.epochs()) == ([ROW], before)


def test_what_another_version_began_is_not_continued(home, digits_spec):
    """Rows of other columns would follow its header, and nothing could read the file any more."""
    run = Run.create(runs_root(), digits_spec())
    run.append(ROW)
    whole = run.certificates_file.read_text()
    run.certificates_file.write_text("\n".join(line.rpartition("\t")[0] for line in whole.splitlines()) + "\n")
    with pytest.raises(RunError, match="was begun by another version, without stop: delete its folder"):
        run.resume_point(0)
    run.certificates_file.write_text(whole)
    assert run.resume_point(0) == {ROW.idx}


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_half_written_row_costs_itself_alone(home, digits_spec, cut):
    run = Run.create(runs_root(), digits_spec())
    run.append(ROW)
    run.append(Certificate(40, 3, 3, 0.5, 1, 0.1, 900, 1000, 100, 0.8))
    content = run.certificates_file.read_bytes()
    run.certificates_file.write_bytes(content[:-cut])
    assert run.certificates() == [ROW][: len(run.certificates())]
    assert run.resume_point(0) <= {ROW.idx}
    run.append(ROW)
    assert run.certificates()[-1] == ROW


def test_epochs_after_the_checkpoint_are_dropped(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    for number in (1, 2, 3):
        run.append(epoch(number))
    run.resume_point(checkpoint_epoch=2)
    assert [row["epoch"] for row in run.epochs()] == [1, 2]


def test_damaged_files_are_named(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    run.append(ROW)
    run.certificates_file.write_text(run.certificates_file.read_text() + "1\t2\n")
    with pytest.raises(RunError, match=r"certificates\.tsv holds a row that is no certificate: it has other columns"):
        run.certificates()
    run.state_file.write_text("{")
    with pytest.raises(RunError, match=r"state\.json is not JSON"):
        run.state()
    run.state_file.write_text('{"state": "queued", "ticket": 1.5}')
    with pytest.raises(RunError, match="a ticket or a priority that is no whole number"):
        run.state()
    for file, read in ((run.state_file, run.state), (run.environment_file, run.environment)):
        file.write_text('{"state": "failed", "error": "\\ud800"}')  # no text that could be sent to a page
        with pytest.raises(RunError, match=f"{file.name} is not JSON"):
            read()
    run.spec_file.write_text("{}")
    with pytest.raises(RunError, match=r"spec\.json: this is not a spec"):
        _ = run.spec
    for content in (b"\xff\xfe", b"[" * 100_000):
        run.spec_file.write_bytes(content)
        run.state_file.write_bytes(content)
        with pytest.raises(RunError, match=r"spec\.json"):
            _ = run.spec
        with pytest.raises(RunError, match=r"state\.json is not JSON"):
            run.state()


EPOCH = {
    "epoch": "1",
    "seconds": "2",
    "images_per_second": "9",
    "lr": "0.1",
    "loss": "1",
    "accuracy": "0.5",
    "cross_entropy": "1",
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seconds": "nan"}, "seconds = nan"),
        ({"epoch": "inf"}, "epoch = inf"),
        ({"missing_classes": "nan"}, "missing_classes = nan"),
        ({"accuracy": None, "seconds": None}, "it does not say its seconds, accuracy"),
        ({"<a href='https://a.b'>": "1"}, "<a href='https://a.b'> = 1.0"),
        ({"loss": "x"}, "could not convert string to float"),
        ({"epoch": "1e300"}, "epoch = 1e+300"),
        ({"epoch": "1.5"}, "epoch = 1.5"),
        ({"missing_classes": "-1"}, "missing_classes = -1"),
        ({"missing_classes": "1e300"}, "missing_classes = 1e+300"),
    ],
)
def test_a_row_that_is_no_epoch_is_named(home, digits_spec, change, says):
    run = Run.create(runs_root(), digits_spec())
    run.training_file.write_text("\n".join(["\t".join(EPOCH), "\t".join(EPOCH.values()), ""]))
    assert run.epochs()[0]["seconds"] == 2.0
    row = {name: value for name, value in (EPOCH | change).items() if value is not None}
    run.training_file.write_text("\n".join(["\t".join(row), "\t".join(row.values()), ""]))
    with pytest.raises(RunError, match=r"training\.tsv holds a row that is no epoch: ") as raised:
        run.epochs()
    assert says in str(raised.value)
