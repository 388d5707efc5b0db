"""What is kept of a run folder, and what is not taken in."""

from dataclasses import replace
from math import floor

import pytest

from backend.certification.confidence import ceiling, lower_bound, radius
from backend.certification.grid_noise import spending
from backend.home import runs_root
from backend.plan import plan
from backend.rows import Certificate
from backend.run import Run
from backend.spec import Certification
from backend.store import queries
from tests.store import ROWS, finished, publish


def test_packed_rows_are_published_as_plain_ones(home):
    """And one that cannot be unpacked costs itself alone."""
    run, good = finished(ROWS), finished(ROWS, seed=1)
    publish()
    before = queries.runs().set_index("run_id").acr[run.run_id]
    name, content = run.compact(run.certificates_file)
    run.certificates_file.unlink()
    (run.path / name).write_bytes(content)
    assert (publish().changed, publish().changed) == (1, 0)
    assert queries.runs().set_index("run_id").acr[run.run_id] == before
    (run.path / name).write_bytes(content[:-4])
    assert "cannot be unpacked" in publish().skipped[run.run_id]
    assert queries.runs().run_id.to_list() == [good.run_id]


def test_damaged_folders_are_named_and_cost_themselves_alone(home):
    good, bad, worse = finished(ROWS), finished(ROWS, seed=1), finished(ROWS, seed=2)
    bad.certificates_file.write_text("idx\tlabel\n1\t2\n")
    worse.state_file.write_text("{")
    report = publish()
    assert report.total == 1
    assert set(report.skipped) == {bad.run_id, worse.run_id}
    assert queries.runs().run_id.to_list() == [good.run_id]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"radius": 99.0}, "image 1 claims more than its votes support"),
        ({"p_lower": 0.999}, "image 1 claims more than its votes support"),
        ({"top_count": 800}, "image 1 claims more than its votes support"),
        ({"top_count": 1_001}, "more votes than samples"),
        ({"n": 100_000}, "other n or n0"),
        ({"n0": 1}, "other n or n0"),
        ({"idx": 0}, "not one for each of the 4 images"),
        ({"idx": 99_999_999_999}, "not one for each of the 4 images"),
        ({"label": "x"}, "holds a row that is no certificate"),
        ({"time": float("inf")}, "a radius, a bound or a time that cannot be"),
        ({"time": -1.0}, "a radius, a bound or a time that cannot be"),
        ({"radius": -0.1}, "a radius, a bound or a time that cannot be"),
        ({"p_lower": float("nan")}, "holds a row that is no certificate"),
        ({"label": 10}, "labels or answers that are none of 10 classes"),
        ({"label": -1}, "labels or answers that are none of 10 classes"),
        ({"predict": 10}, "labels or answers that are none of 10 classes"),
        ({"predict": 1, "radius": 0.0, "p_lower": 0.5}, "image 1 claims more than its votes support"),
    ],
)
def test_a_claim_that_the_counts_do_not_support_is_not_published(home, change, says):
    run = finished(ROWS)
    rows = run.certificates()
    run.certificates_file.unlink()
    rows[1] = replace(rows[1], **change)
    for row in rows:
        run.append(row)
    assert says in publish().skipped[run.run_id]
    assert queries.runs().empty


def test_noise_on_a_grid_costs_a_part_of_alpha_in_the_store_too(home):
    settings = Certification(n=1_000, n0=10, alpha=1e-12, every=1, limit=1, float_sound=True)
    run = Run.create(runs_root(), plan("digits", "gaussian", 0.5, certification=settings))
    ((_, left),) = spending(settings, 0.5, 16, 64)
    assert 0 < left < 0.6e-12  # 64 · 1 000 draws, each off by some 150 · 2⁻⁶⁴
    for alpha, reason in ((1e-12, "image 0 claims more than its votes support"), (left, None)):
        p_lower = lower_bound(1_000, 1_000, alpha)
        run.certificates_file.unlink(missing_ok=True)
        run.append(Certificate(0, 1, 1, radius(p_lower, 0.5), 1, 0.1, 1_000, 1_000, 10, p_lower))
        run.set_state("finished")
        assert publish().skipped.get(run.run_id) == reason
    row = queries.runs().iloc[0]
    assert row.at_ceiling == 1
    assert row.ceiling == row.acr < ceiling(0.5, 1_000, 1e-12)


def test_a_radius_rounded_below_the_ceiling_is_at_it(home):
    """Of three digits: 1.226 where 1 000 of 1 000 votes certify 1.2316, and one that 999 certify is not."""
    settings = Certification(n=1_000, n0=10, every=1, limit=2)
    spec = plan("digits", "gaussian", 0.5, certification=settings)
    run = Run.create(runs_root(), replace(spec, source="published", radius_digits=3))
    for idx, votes in enumerate((1_000, 999)):
        r = floor(1000 * radius(lower_bound(votes, 1_000, 0.001), 0.5)) / 1000
        run.append(Certificate(idx, 1, 1, r, 1, 0.1, -1, 1_000, 10, 0.99))
    run.set_state("finished")
    assert publish().skipped == {}
    row = queries.runs().iloc[0]
    assert floor(1000 * row.ceiling) / 1000 < row.ceiling
    assert row.at_ceiling == 0.5


def test_a_run_that_lacks_images_is_not_published(home):
    run = finished(ROWS)
    lines = run.certificates_file.read_text().splitlines(True)
    run.certificates_file.write_text("".join(lines[:-1]))
    assert "it has 3 rows, not one for each of the 4 images" in publish().skipped[run.run_id]


@pytest.mark.parametrize("hyper", ["[]", '{"lam": "x"}', '{"lam": [1]}', "null"])
def test_a_spec_that_no_method_has_is_not_published(home, hyper):
    run = finished(ROWS)
    run.spec_file.write_text(run.spec_file.read_text().replace('"hyper": {}', f'"hyper": {hyper}'))
    assert run.run_id in publish().skipped


def test_a_folder_under_another_name_is_not_published(home):
    run = finished(ROWS)
    other = run.path.rename(run.path.with_name("digits-x"))
    assert publish().skipped == {other.name: f"its spec is that of {run.run_id}"}


def test_rows_from_before_there_were_modes_stopped_at_n(home):
    run = finished(ROWS)
    lines = run.certificates_file.read_text().splitlines()
    run.certificates_file.write_text("".join(line.rpartition("\t")[0] + "\n" for line in lines))
    assert not publish().skipped
    assert set(queries.certificates(run.run_id).stop) == {"n"}
