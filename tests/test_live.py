"""What a person's image goes through: several networks in one turn, an attack, noisy copies."""

import shutil
import threading

import numpy as np
import pytest

import backend.live
from backend.datasets import DATASETS
from backend.home import PRECOMPUTED
from backend.images import decode, see
from backend.live import Session, others_first, watch_together
from backend.run import Run, RunError, find_run
from backend.spec import Certification

RUNS = [
    find_run(name, PRECOMPUTED)
    for name in ("mnist-lenet-consistency-s0.5-l5-seed0-abfa8ccd", "mnist-lenet-gaussian-s0.25-seed0-0679f503")
]
FOUR = see(decode((PRECOMPUTED / "samples" / "mnist" / "4-test0004.png").read_bytes()), DATASETS["mnist"], "no")


def session(run=RUNS[0], seed=3, **settings):
    return Session(run, FOUR.pixels, Certification(**{"n": 1_000} | settings), "cpu", seed)


def test_together_each_network_votes_as_alone(monkeypatch):
    """Also where there is one turn alone: one visitor takes one, however many networks."""
    monkeypatch.setattr(backend.live, "TURNS", threading.BoundedSemaphore(1))
    last, order = {}, []
    for position, look in watch_together([session(run, mode="anytime") for run in RUNS]):
        last[position] = look
        order.append(position)
        assert others_first()
    assert order[:2] == [0, 1]
    assert not others_first()
    for position, run in enumerate(RUNS):
        *_, alone = session(run, mode="anytime").watch()
        assert last[position] == alone


def test_a_visitor_who_stops_gives_the_turn_back(monkeypatch):
    monkeypatch.setattr(backend.live, "TURNS", threading.BoundedSemaphore(1))
    looks = watch_together([session(n=100_000)])
    next(looks)
    looks.close()
    steps = session().attack(4)
    next(steps)
    assert others_first()
    steps.close()
    assert not others_first()


@pytest.fixture(scope="module")
def bracket():
    s = session()
    *_, look = s.watch()
    *_, progress = s.attack(look.predict, nth=3)
    return look, progress.other


def test_the_attack_brackets_the_radius(bracket):
    look, other = bracket
    assert look.predict == 4
    assert other.answer != 4
    assert 0 < look.radius < other.distance < 5
    assert other.alpha == 0.001 / 12  # of 1/2, 1/6, 1/12, … which are 1 together
    again = Session(RUNS[0], other.pixels.numpy(), Certification(n=1_000), "cpu", 77)
    *_, there = again.watch()
    assert there.counts[other.answer] > there.counts[4]  # other noise, another seed


def test_the_shared_network_is_not_touched(bracket):
    s = session()
    assert not any(p.requires_grad for p in s.network.parameters())
    assert not s.network.training


def test_noisy_copies_are_the_same_at_every_call():
    shown, answers = session(seed=1).noisy_copies(8)
    again, same = session(seed=2).noisy_copies(8)
    assert np.array_equal(shown, again)
    assert answers == same
    assert shown.shape == (8, 1, 28, 28)
    assert shown.dtype == np.uint8
    assert (shown[:, FOUR.pixels == 0] == 0).mean() == pytest.approx(0.5, abs=0.03)  # half of the noise is clipped


def test_weights_that_are_not_those_of_their_run_certify_nothing(tmp_path):
    shutil.copytree(RUNS[0].path, tmp_path / RUNS[0].run_id)
    run = Run(tmp_path / RUNS[0].run_id)
    session(run)
    run.weights_file.write_bytes(RUNS[1].weights())
    with pytest.raises(RunError, match=r"the weights of .* are not those that its environment\.json names"):
        session(run)
