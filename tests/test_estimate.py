"""How long runs take, from runs that are finished; nothing is made up."""

from dataclasses import replace

import pytest

from backend.estimate import estimate, finished
from backend.home import PRECOMPUTED, runs_root
from backend.plan import plan, sweep
from backend.rows import Certificate, Epoch
from backend.run import Run
from backend.spec import Certification
from backend.store.publish import publish

SETTINGS = Certification(n=200, n0=20, every=150)  # three images


@pytest.fixture
def finished_run(published):
    """A function: a finished run on digits whose epochs and images took so many seconds, published."""

    def make(seconds, method="consistency", device="cpu (here)", **changes):
        run = Run.create(runs_root(), plan("digits", method, 0.5, epochs=2, certification=SETTINGS, **changes))
        for epoch in (1, 2):
            run.append(Epoch(epoch, seconds, 1347 / seconds, 0.1, 0.5, 0.5))
        for idx in (0, 150, 300):
            run.append(Certificate(idx, 0, -1, 0.0, 0, 0.11, 100, 200, 20, 0.3))
        run.set_environment({"device": device})
        run.set_state("finished")
        report = publish()
        assert not report.skipped
        return run

    return make


def grid(methods=("consistency",), **rest):
    settings = Certification(n=400, n0=40, every=150)
    return sweep(
        methods, [0.25, 1.0], [2, 4], [0, 1], dataset="digits", **{"epochs": 10, "certification": settings} | rest
    )


def test_without_a_store_or_a_run_like_it_nothing_is_known(home):
    assert estimate(grid()).seconds is None
    publish()
    cost = estimate(grid())
    assert (cost.seconds, cost.basis) == (None, ())
    assert cost.missing == ("training by consistency with smallcnn on digits", "certifying with smallcnn on digits")


def test_sigma_lambda_and_seed_make_no_difference(finished_run):
    finished_run(0.5)
    cost = estimate(grid())
    assert cost.seconds == pytest.approx(8 * (10 * 0.5 + 3 * 440 / 2000))  # 220 samples in 0.11 s
    assert cost.missing == ()
    assert cost.basis == (
        "training: 1 finished run of this machine (cpu (here)), 0.5 s an epoch",
        "certification: 1 finished run of this machine (cpu (here)), 2,000 samples/s",
    )


def test_of_several_runs_the_median_tells(finished_run):
    """One that waited for others, or had the machine to itself, does not."""
    for seed, seconds in enumerate((0.5, 9.0, 0.6)):
        finished_run(seconds, seed=seed)
    assert estimate(grid()).seconds == pytest.approx(8 * (10 * 0.6 + 3 * 440 / 2000))


def test_modes_that_stop_early_are_measured_by_themselves(finished_run):
    finished_run(0.5)
    early = Certification(n=400, n0=40, every=150, mode="at-radius", radius=0.25)
    spec = plan("digits", "consistency", 0.5, epochs=10, certification=early)
    assert estimate([spec]).seconds == pytest.approx(10 * 0.5 + 3 * 440 / 2000)  # the others' rate, where there is none
    run = Run.create(runs_root(), spec)
    for idx in (0, 150, 300):
        run.append(Certificate(idx, 0, -1, 0.0, 0, 0.32, 20, 119, 40, 0.0, "not robust"))
    run.set_state("finished")
    assert not publish().skipped
    assert estimate([replace(spec, seed=1)]).seconds == pytest.approx(
        10 * 0.5 + 3 * 0.32
    )  # as many samples as that one drew
    further = replace(spec, certification=replace(early, radius=0.3))  # of another radius none tells how many
    assert estimate([further]).seconds == pytest.approx(10 * 0.5 + 3 * 440 * 0.32 / 159)
    assert estimate(grid()).seconds == pytest.approx(8 * (10 * 0.5 + 3 * 440 / 2000))


def test_what_is_not_known_is_named_and_the_rest_is_told(finished_run):
    finished_run(0.5)
    cost = estimate(grid(("consistency", "gaussian")))
    assert cost.missing == ("training by gaussian with smallcnn on digits",)
    assert cost.seconds == pytest.approx(8 * 10 * 0.5 + 12 * 3 * 440 / 2000)
    assert estimate(grid(values={"m": 4})).missing == ("training by consistency with smallcnn on digits",)
    assert "training" in estimate(grid(train_precision="bfloat16")).missing[0]
    assert "certifying" in estimate(grid(precision="bfloat16")).missing[0]


def test_runs_of_other_machines_count_where_there_are_none_here_and_are_named(published):
    spec = plan("mnist", "gaussian", 0.7, epochs=8, certification=Certification())
    cost = estimate([spec])
    assert cost.missing == ()
    assert cost.seconds > 0
    assert all("of other machines (cpu (x86_64))" in words for words in cost.basis)


def test_a_gpu_says_nothing_of_a_cpu(finished_run, monkeypatch):
    """Nor a run that began on one and was resumed on the other."""
    for seed, (seconds, device) in enumerate(((0.001, "NVIDIA H200"), (0.5, "cpu (here)"), (0.002, "NVIDIA H200"))):
        run = finished_run(seconds, device=device, seed=seed)
    run.set_environment({"device": "cpu (here)"})
    publish()
    monkeypatch.setattr("backend.estimate.gpus", list)
    assert estimate(grid()).basis[0] == "training: 1 finished run of this machine (cpu (here)), 0.5 s an epoch"
    monkeypatch.setattr("backend.estimate.gpus", lambda: ["0"])
    assert estimate(grid()).basis[0] == "training: 1 finished run of this machine (NVIDIA H200), 0.001 s an epoch"


def test_finished_ones_are_known_here_and_shipped(finished_run):
    here = finished_run(0.5)
    shipped = next(Run(path.parent) for path in sorted(PRECOMPUTED.glob("*/spec.json")))
    other = Run.create(runs_root(), plan("digits", "gaussian", 0.5, epochs=2))
    other.set_state("queued")
    assert finished([here.spec, shipped.spec, other.spec]) == {here.run_id, shipped.spec.run_id}
    other.set_state("finished")  # and not published yet
    assert other.run_id in finished([other.spec])
