"""Exports: what is written is what the store holds."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from backend.certification.confidence import lower_bound, radius
from backend.export import FILES, FOLDERS, ExportError, export
from backend.files import packed
from backend.home import imported_root, runs_root
from backend.logs import import_logs
from backend.plan import plan
from backend.reports import EXPORTS
from backend.rows import Certificate
from backend.run import Run
from backend.spec import Certification
from backend.store import queries
from backend.store.publish import publish

RADII = [0.0, 0.5]


def finished(method, votes, seed=0, n=1_000, **values):
    """A finished run of three images with these votes for the right class; None is an abstention."""
    settings = Certification(n=n, n0=10, every=1, limit=len(votes))
    run = Run.create(runs_root(), plan("digits", method, 0.5, certification=settings, seed=seed, values=values))
    for idx, k in enumerate(votes):
        p = lower_bound(k or 0, n, 0.001)
        run.append(Certificate(idx, 1, 1 if k else -1, radius(p, 0.5), int(bool(k)), 0.25, k or 0, n, 10, p))
    run.set_state("finished")
    return run


def test_the_command_line_offers_what_there_is():
    """Its names stand apart, so that a GPU box without the dashboard's packages can read its help."""
    assert (*FILES, *FOLDERS) == EXPORTS


@pytest.fixture
def runs(home):
    """Two seeds of Gaussian, Consistency at two λ."""
    made = [
        finished("gaussian", [900, 990, None]), finished("gaussian", [700, 990, None], seed=1),
        finished("consistency", [990, 999, None], lam=5.0), finished("consistency", [990, 990, 600], lam=10.0),
    ]  # fmt: skip
    publish((runs_root(),))
    return made


def ids(runs):
    return [run.run_id for run in runs]


def test_markdown_as_papers_print_it(runs, tmp_path):
    (path,) = export("markdown", ids(runs), tmp_path / "t.md", RADII)
    head, _, gaussian, five, ten, _, note = path.read_text().splitlines()
    assert head == "| σ | method | ACR | 0 | 0.5 |"
    assert gaussian.startswith("| 0.5 | Gaussian | **0.4")
    assert gaussian.endswith("| **66.7 ± 0.0** | **50.0 ± 23.6** |")
    assert "Gaussian + Consistency, λ = 5 | **" in five
    assert gaussian.count("**") == five.count("**") == ten.count("**") == 6  # three images tell nothing apart
    assert "n = 1,000, n0 = 10, α = 0.001, 3 test images" in note


def test_bold_is_what_is_not_told_apart_from_the_best(home, tmp_path):
    """Forty images: four votes in a thousand on each tell ACR apart; one image more tells no accuracy apart, twelve do."""
    made = [
        finished("consistency", [990] * 39 + [None], lam=5.0),
        finished("gaussian", [986] * 38 + [None] * 2),
        finished("stability", [990] * 27 + [None] * 13),
    ]
    publish((runs_root(),))
    (path,) = export("markdown", ids(made), tmp_path / "t.md", [0.0, 5.0])
    _, _, gaussian, stability, consistency, _, note = path.read_text().splitlines()
    assert consistency.count("**") == 4  # none certifies at 5
    assert " | 0.8" in gaussian
    assert gaussian.endswith("| **95.0** | 0.0 |")
    assert "**" not in stability
    assert "not told apart from it" in note


def test_latex_is_a_booktabs_table(runs, tmp_path):
    (path,) = export("latex", ids(runs), tmp_path / "t.tex", RADII)
    text = path.read_text()
    assert text.startswith("% digits, smallcnn; n = 1,000")
    for piece in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\textbf{",
        r"$\sigma$ & method & ACR & 0 & 0.5 \\",
        r"$\pm$",
        r"$\lambda$ = 5",
    ):
        assert piece in text
    assert "σ" not in text.splitlines()[2]


def test_runs_that_cannot_be_compared_make_no_table(runs, tmp_path):
    other = finished("gaussian", [1_900, 1_990, None], n=2_000)
    publish((runs_root(),))
    with pytest.raises(ExportError, match="these differ in n: 1000, 2000: choose with the filters"):
        export("markdown", ids([*runs, other]), tmp_path / "t.md", RADII)
    with pytest.raises(ExportError, match="no certified run of the store was chosen"):
        export("markdown", [], tmp_path / "t.md", RADII)


def test_csv_and_parquet_hold_what_the_store_holds(runs, tmp_path):
    (path,) = export("csv", ids(runs), tmp_path / "runs.csv", RADII)
    table = pd.read_csv(path).set_index("run_id")
    assert table.acr.to_dict() == pytest.approx(queries.runs().set_index("run_id").acr.to_dict())
    (path,) = export("parquet", ids(runs[:1]), tmp_path / "rows.parquet", RADII)
    rows = pd.read_parquet(path)
    assert rows.radius.tolist() == queries.certificates(runs[0].run_id).radius.tolist()
    assert set(rows.n) == {1_000}
    assert (set(rows["mode"]), set(rows.recipe)) == ({"fixed"}, {"quick"})


def test_an_export_that_fails_leaves_the_file_that_was_there(runs, tmp_path, monkeypatch):
    """On a full disk, say; and what is no file, such as a pipe, is written to as it is."""
    (path,) = export("csv", ids(runs), tmp_path / "runs.csv", RADII)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            export("csv", ids(runs[:1]), path, RADII)
        with pytest.raises(OSError, match="No space"):
            export("csv", ids(runs[:1]), tmp_path / "new.csv", RADII)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir() if file.is_file()] == [("runs.csv", before)]
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    export("csv", ids(runs[:1]), link, RADII)
    assert link.is_symlink()
    assert path.read_bytes() != before
    path.chmod(0o600)  # a private file stays one
    export("csv", ids(runs), path, RADII)
    assert path.stat().st_mode & 0o777 == 0o600
    (small,) = export("csv", ids(runs), tmp_path / "runs.csv.gz", RADII)
    assert gzip.decompress(small.read_bytes()) == path.read_bytes()
    with pytest.raises(ExportError, match=r"runs\.csv\.xz would not be packed: of packed files \.gz alone is written"):
        export("csv", ids(runs), tmp_path / "runs.csv.xz", RADII)
    assert export("csv", ids(runs), Path("/dev/null"), RADII) == [Path("/dev/null")]
    assert not Path("/dev/null").is_file()


def test_logs_come_back_by_import(runs, tmp_path):
    """Cohen's format out and in again: the same answers and radii, digit by digit."""
    path, mapping = export("logs", ids(runs[:1]), tmp_path / "logs", RADII)
    (result,) = import_logs(path, imported_root(), {}, json.loads(mapping.read_text()), partial=True)
    assert result.run.spec.certification.n == 1_000
    assert [(c.idx, c.predict, c.radius) for c in result.run.certificates()] == [
        (c.idx, c.predict, c.radius) for c in runs[0].certificates()
    ]
    there, here = result.run.spec, runs[0].spec
    assert (there.recipe, there.radius_digits) == (here.recipe, 17)


def test_folders_are_whole_and_publish_elsewhere(runs, tmp_path):
    with pytest.raises(ExportError, match="is where these runs lie: export them to another folder"):
        export("folders", ids(runs), runs_root(), RADII)
    written = export("folders", ids(runs), tmp_path / "out", RADII)
    assert sorted(path.name for path in written) == sorted(ids(runs))
    before = queries.runs()
    assert publish((tmp_path / "out",)).total == 4
    assert queries.runs().acr.tolist() == before.acr.tolist()


@pytest.mark.parametrize("from_there", [True, False], ids=["the run is a link to there", "there a link to the run"])
def test_folders_are_never_copied_over_themselves(runs, tmp_path, from_there):
    """By another path: what was there of a target is deleted first."""
    run = Run(runs_root() / ids(runs)[0])
    there = tmp_path / "out" / run.run_id
    there.parent.mkdir()
    if from_there:
        run.path.rename(there)
        run.path.symlink_to(there)
    else:
        there.symlink_to(run.path)
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with pytest.raises(ExportError, match="is where these runs lie: export them to another folder"):
        export("folders", [run.run_id], tmp_path / "out", RADII)
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


def test_folders_over_an_earlier_export_are_of_one_run_alone(runs, tmp_path):
    """Where one ships packed and the other is plain; a run that is not finished is left alone."""
    (copy,) = export("folders", ids(runs[:1]), tmp_path / "out", RADII)
    name, content = packed(Run(copy).certificates_file)
    (copy / name).write_bytes(content)
    export("folders", ids(runs[:1]), tmp_path / "out", RADII)
    assert [file.name for file in copy.glob("certificates*")] == ["certificates.tsv"]
    Run(copy).certificates_file.rename(copy / "plain")
    (copy / name).write_bytes(content)
    export("folders", ids(runs[:1]), tmp_path / "out", RADII)
    assert [file.name for file in copy.glob("certificates*")] == ["certificates.tsv"]
    Run(copy).set_state("queued")
    with pytest.raises(ExportError, match="is a run that is not finished: export to another folder"):
        export("folders", ids(runs), tmp_path / "out", RADII)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [copy.name]


def test_figures_count_images_at_radii(runs, tmp_path):
    (path,) = export("figures", ids(runs[:1]), tmp_path / "f.tsv", RADII)
    row = pd.read_csv(path, sep="\t").iloc[0]
    curve = list(map(int, row.curve.split()))
    assert curve[0] == 2
    assert curve[round(0.5 * row.per_unit)] == 2
    assert curve[-1] == 0
    assert json.loads(row.hyper) == {}
    assert not row.recomputed
