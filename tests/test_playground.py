"""Networks of the plane: what is drawn and what is claimed of them."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom, norm

from backend import playground
from backend.playground import GRID, PLANES, TEST, Diverged, Played, Settings, Step
from backend.spec import SpecError
from backend.training.methods import METHODS

RARE = 1e-4  # probability with which a sound implementation fails the test of its certificates


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing is kept from another test."""
    monkeypatch.setattr(playground, "_kept", type(playground._kept)())


def result(plane="moons", method="gaussian", sigma=0.1, lam=5.0, seed=0, n=100):
    *steps, last = playground.play(Settings(plane, method, sigma, lam, seed, n))
    assert all(isinstance(step, Step) for step in steps)
    return last


def exact(answers, edges, x, sigma):
    """P(f(x + δ) = c) for points x (N, 2), (N, K): the integral of the Gaussian over cells in which f is taken for constant."""
    across, up = (np.diff(norm.cdf((edges - x[:, i : i + 1]) / sigma), axis=1) for i in (0, 1))  # (N, cells)
    return np.stack([((up @ (answers == c)) * across).sum(1) for c in range(answers.max() + 1)], 1)


@pytest.mark.parametrize(("plane", "method"), [("moons", "consistency"), ("spirals", "gaussian")])
def test_certificates_hold_against_numerical_integration(monkeypatch, plane, method):
    """The exact radius is no smaller than what is certified, and nowhere on a ball another class leads, beyond what α allows."""
    networks = []
    regions = playground.regions

    def listening(classifier, sigma, classes):
        networks.append(classifier)
        return regions(classifier, sigma, classes)

    monkeypatch.setattr(playground, "regions", listening)
    sigma = 0.08
    played = result(plane, method, sigma, n=1_000)
    edges = np.arange(-6 * sigma, 1 + 6 * sigma, 1 / 400)
    middles = (edges[1:] + edges[:-1]) / 2
    cells = np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)
    answers = playground.softmax(networks[0], cells).argmax(1).reshape(len(middles), -1)
    x, _ = playground.points(plane, train=False)
    sure = np.array([c.predict >= 0 for c in played.certificates])
    radii, predicted = (
        np.array([getattr(c, name) for c in played.certificates])[sure] for name in ("radius", "predict")
    )
    assert sure.mean() > 0.8
    p = exact(answers, edges, x[sure], sigma)
    p_a = p[np.arange(len(p)), predicted]
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = x[sure][:, None] + radii[:, None, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    leads = exact(answers, edges, around.reshape(-1, 2), sigma).argmax(1).reshape(len(radii), -1)
    allowed = binom.isf(RARE, TEST, 0.001)
    assert (sigma * ndtri(p_a) < radii - 1e-4).sum() <= allowed  # 1e-4: the cells are not infinitely small
    assert (leads != predicted[:, None]).any(1).sum() <= allowed
    at = np.rint(x[sure] * (GRID - 1)).astype(int)
    drawn = played.smoothed[:, at[:, 1], at[:, 0]].T
    assert np.abs(drawn - exact(answers, edges, at / (GRID - 1), sigma)).max() < 0.01  # the picture says the same
    assert played.smoothed.sum(0) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_the_plane(monkeypatch, method):
    monkeypatch.setattr(playground, "RECIPE", replace(playground.RECIPE, epochs=80))
    played = result(method=method, lam=1.0)
    assert isinstance(played, Played)
    assert played.base_accuracy > 0.8
    assert played.right.mean() > 0.7
    assert len(played.certificates) == TEST
    assert [c.idx for c in played.certificates] == list(range(TEST))


@pytest.mark.parametrize("plane", PLANES)
def test_every_plane_is_learned(plane):
    x, y = playground.points(plane, train=True)
    assert ((x >= 0) & (x <= 1)).all()
    assert set(y) == set(range(len(PLANES[plane].classes)))
    assert result(plane, sigma=0.03).base_accuracy > 0.9


def test_equal_settings_give_equal_pictures_and_another_seed_does_not():
    first = result()
    playground._kept.clear()
    again, other = result(), result(seed=1)
    assert again is not first
    assert (again.base == first.base).all()
    assert (again.smoothed == first.smoothed).all()
    assert (again.gains == first.gains).all()
    assert (other.base != first.base).any()


def test_a_result_is_kept_and_shared_and_their_number_is_bounded(monkeypatch):
    monkeypatch.setattr(playground, "KEPT", 1)
    first = result()
    assert result() is first
    assert result(lam=1.0) is first  # Gaussian has no λ: the same network
    result(seed=1)
    assert playground.kept(first.settings) is None


def test_one_trains_at_a_time_and_gives_its_turn_back_when_it_is_left():
    steps = playground.play(Settings("moons", "gaussian", 0.1, None, 0, 100))
    assert next(steps).doing == "training"
    seen = []

    def second():
        others = playground.play(Settings("moons", "gaussian", 0.1, None, 1, 100))
        seen.append(next(others).doing)
        others.close()

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(20)
    assert seen == ["waiting"]
    steps.close()
    assert playground.TURN.acquire(blocking=False)
    playground.TURN.release()


def test_divergence_is_a_result_that_says_why(monkeypatch):
    monkeypatch.setattr(playground, "RECIPE", replace(playground.RECIPE, epochs=20, lr=100.0))
    diverged = result(method="consistency")
    assert isinstance(diverged, Diverged)
    assert "is not finite" in diverged.why


@pytest.mark.parametrize("wrong", [{"plane": "torus"}, {"sigma": 0.1234}, {"n": 10**9}, {"seed": -1}, {"lam": 1e9}])
def test_what_is_outside_the_choices_is_refused(wrong):
    with pytest.raises(SpecError, match=f"{next(iter(wrong))} must be one of"):
        Settings(**{"plane": "moons", "method": "consistency", "sigma": 0.1, "lam": 5.0, "seed": 0, "n": 100} | wrong)


def test_margins_are_zero_where_two_classes_lead():
    p = np.array([[0.5, 0.2], [0.5, 0.7], [0.0, 0.1]])
    assert playground.margins(p) == pytest.approx(np.array([[0.0, -0.5], [0.0, 0.5], [-0.5, -0.6]]))
