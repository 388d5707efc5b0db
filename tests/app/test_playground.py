"""The page that trains on a plane, without a browser."""

from dataclasses import dataclass

import pytest
from streamlit.testing.v1 import AppTest

from app.widgets.attempt import plain
from backend import playground
from backend.home import CHECKOUT
from backend.playground import Settings
from backend.spec import hyper
from backend.training.methods import METHODS, Method
from tests.app import words


@pytest.fixture
def app():
    return AppTest.from_file(str(CHECKOUT / "app" / "views" / "playground.py"), default_timeout=120)


def button(app, label):
    return next(b for b in app.button if b.label == label)


def test_nothing_is_trained_before_it_is_asked_for(app):
    playground._kept.clear()
    app.run()
    assert not app.exception
    assert "Train both" in words(app)
    assert not app.metric


def test_a_method_that_allows_less_lambda_gets_a_sentence(app, monkeypatch):
    @dataclass(frozen=True)
    class Own(Method):
        title = "Own"
        paper = "nobody, nowhere"
        lam: float = hyper(1.0, "λ: weight", low=0, high=50)

    monkeypatch.setitem(METHODS, "own", Own)
    app.query_params["second"] = "Own"
    button(app.run(), "Strong λ").click().run()
    assert not app.exception
    assert [e.value for e in app.error] == [plain("own.lam must be from 0 to 50, not 100.0")]
    assert app.selectbox(key="second").value == "own"  # the choices stand


def test_what_is_shown_is_what_was_certified(app):
    app.query_params["samples"] = "100"
    app.run()
    button(app, "Train both").click().run()
    assert not app.exception
    a, b = (playground.kept(Settings("moons", m, 0.1, 5.0, 0, 100)) for m in ("gaussian", "consistency"))
    values = [(m.label, m.value) for m in app.metric]
    for one in (a, b):
        assert ("ACR", f"{one.gains.mean():.4f}") in values
        assert ("Certified accuracy at 0", f"{one.right.mean():.1%}") in values
        assert ("Base accuracy, no noise", f"{one.base_accuracy:.1%}") in values
    text = words(app)
    assert "n = 100 votes, n0 = 100, each wrong with probability at most α = 0.001" in text
    assert "ACR of b less a is" in text
    assert "**First look**" in text


@pytest.mark.parametrize("seed", ["1e400", "inf", "nan", "0.5", "-1", "x"])
def test_a_seed_in_a_link_that_is_none_is_told_of(app, seed):
    app.query_params["seed"] = seed
    app.run()
    assert not app.exception
    assert f"asks for seed = {seed}, which is no whole number from 0 to 99." in words(app)
    assert app.number_input(key="seed").value == 0


def test_a_preset_sets_the_sliders_trains_and_tells_a_collapse(app):
    app.query_params["samples"] = "100"
    app.run()
    button(app, "Strong λ").click().run()
    assert not app.exception
    assert (app.select_slider(key="noise").value, app.select_slider(key="lambda").value) == (0.2, 100.0)
    assert playground.kept(Settings("moons", "consistency", 0.2, 100.0, 0, 100)) is not None
    assert "**b collapsed**" in words(app)
    assert "**Strong λ**: the" in words(app)
    app.selectbox(key="second").set_value("smoothmix").run()
    assert app.select_slider(key="lambda").disabled
    assert "**Strong λ**: the" not in words(app)
    app.selectbox(key="first").set_value("smoothmix").run()
    assert "Choose two different methods" in app.info[0].value


@pytest.mark.parametrize(
    "wrong",
    [
        {"plane": "torus"},
        {"noise": "7"},
        {"lambda": "nan"},
        {"seed": "1000"},
        {"samples": "1000000000"},
        {"first": "<b>"},
    ],
)
def test_an_address_that_asks_for_more_than_there_is_gets_what_there_is(app, wrong):
    for key, value in wrong.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception


def test_divergence_is_told_and_nothing_is_drawn(app, monkeypatch):
    one = Settings("moons", "consistency", 0.4, 50.0, 7, 100)
    monkeypatch.setitem(playground._kept, one, playground.Diverged(one, "the loss of epoch 3 is not finite"))
    app.query_params.update({"samples": "100", "noise": "0.4", "lambda": "50", "seed": "7"})
    app.session_state.playing = True
    app.run()
    assert not app.exception
    assert "choose a smaller λ or σ" in words(app)
    assert len([m for m in app.metric if m.label == "ACR"]) == 1
