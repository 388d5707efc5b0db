"""Whose weights a run certifies: its own, another run's, and never two networks'."""

import shutil
from dataclasses import replace

import pytest

from backend.home import runs_root
from backend.jobs.worker import _how_it_ended, work
from backend.overview import progress
from backend.plan import certify_again
from backend.rows import Certificate
from backend.run import Run, RunError
from backend.spec import Certification
from backend.store import queries
from backend.store.publish import publish

pytestmark = pytest.mark.usefixtures("published")  # whoever publishes need not begin with the shipped runs


def test_certifying_again_takes_the_weights_and_trains_nothing(home, digits_spec):
    source = Run.create(runs_root(), replace(digits_spec(), certification=None))
    with pytest.raises(RunError, match="has no weights here"):
        work(Run.create(runs_root(), certify_again(source.spec, source.run_id, Certification(n=50, every=90))), "cpu")
    work(source, "cpu")
    assert source.certificates() == []
    again = Run.create(runs_root(), certify_again(source.spec, source.run_id, Certification(n=50, every=90)))
    rows = []
    assert work(again, "cpu", rows.append)
    assert again.weights() == source.weights()
    assert [type(row) for row in rows] == [Certificate] * 5
    assert again.environment()["weights_sha256"] == source.weights_sha256()
    shutil.rmtree(source.path)  # whoever certified them has them, too
    third = Run.create(runs_root(), certify_again(again.spec, again.run_id, Certification(n=60, every=90)))
    assert third.spec.weights_of == source.run_id
    assert work(third, "cpu")
    assert third.weights() == again.weights()
    third.weights_file.write_bytes(b"of another training of the same spec, on another machine")
    fourth = Run.create(runs_root(), certify_again(again.spec, again.run_id, Certification(n=70, every=90)))
    with pytest.raises(RunError, match="hold different weights, all called those of"):
        work(fourth, "cpu")
    source.path.mkdir()  # without its weights, but it knows which they were
    source.set_environment({"weights_sha256": again.weights_sha256()})
    assert work(fourth, "cpu")
    assert fourth.weights() == again.weights()


def test_rows_of_two_networks_never_stand_in_one_run(home, digits_spec):
    """Its weights are named before the first certificate, and others in their place are refused, whatever was certified since."""
    run = Run.create(runs_root(), digits_spec())

    def stop(row):
        if isinstance(row, Certificate):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(run, "cpu", stop)
    named = run.environment()["weights_sha256"]
    assert named == run.weights_sha256()
    other = Run.create(runs_root(), digits_spec(seed=1))
    work(other, "cpu")
    own = run.weights()
    run.weights_file.write_bytes(other.weights())
    with pytest.raises(
        RunError, match=r"model\.safetensors is not the network that environment\.json names: bring that back"
    ):
        work(run, "cpu")
    assert len(run.certificates()) == 1
    run.weights_file.write_bytes(own)
    assert work(run, "cpu")
    assert run.environment()["weights_sha256"] == named
    assert "earlier" not in run.environment()


def test_a_shipped_run_that_was_trained_anew_here_has_its_own_weights(home, digits_spec, tmp_path, monkeypatch):
    source = Run.create(runs_root(), replace(digits_spec(), certification=None))
    work(source, "cpu")
    shipped = Run.create(tmp_path / "shipped", source.spec)
    shipped.weights_file.write_bytes(b"of another device")
    shipped.set_environment({"weights_sha256": shipped.weights_sha256()})
    monkeypatch.setattr("backend.jobs.worker.PRECOMPUTED", tmp_path / "shipped")
    again = Run.create(runs_root(), certify_again(source.spec, source.run_id, Certification(n=50, every=90)))
    assert work(again, "cpu")
    assert again.weights() == source.weights()


def test_weights_that_are_not_those_of_their_run_are_certified_by_nobody(home, digits_spec):
    source = Run.create(runs_root(), replace(digits_spec(), certification=None))
    work(source, "cpu")
    own = source.weights()
    source.weights_file.write_bytes(b"zz" + own[2:])
    again = Run.create(runs_root(), certify_again(source.spec, source.run_id, Certification(n=50, every=90)))
    with pytest.raises(RunError, match=r"is not the network that .* trained, by the SHA-256 in its folder"):
        work(again, "cpu")
    assert not again.weights_file.exists()
    source.weights_file.write_bytes(own)
    assert work(again, "cpu")


def test_certificates_do_not_outlive_their_weights(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    work(run, "cpu")
    run.weights_file.unlink()
    run.set_state("interrupted")
    rows = run.certificates()
    with pytest.raises(
        RunError, match=r"speaks of a network whose model\.safetensors is gone: bring that back, or delete"
    ):
        work(run, "cpu")
    assert run.certificates() == rows


def test_a_network_that_collapsed_is_one_where_it_is_certified_again(home, digits_spec):
    """Also once the run that trained it is gone: who takes its weights writes it down."""
    source = Run.create(runs_root(), digits_spec())
    work(source, "cpu")
    head, *rows = source.training_file.read_text().splitlines()
    place = head.split("\t").index("missing_classes")
    cells = rows[-1].split("\t")
    cells[place] = "3"
    source.training_file.write_text("\n".join([head, *rows[:-1], "\t".join(cells)]) + "\n")
    again = Run.create(
        runs_root(), certify_again(source.spec, source.run_id, replace(source.spec.certification, n=300))
    )
    work(again, "cpu")
    assert again.environment()["missing_classes"] == 3
    assert progress(again).missing_classes == 3
    assert _how_it_ended(source.run_id, b"of another training of that name") == {}
    shutil.rmtree(source.path)
    publish((runs_root(),))
    assert queries.runs().missing_classes.to_list() == [3]
