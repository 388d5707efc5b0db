"""The Guide: complete, right, and its example works."""

import importlib.util
import re
import sys

import pytest
from streamlit.testing.v1 import AppTest

from app.figures.rounding import round_down
from app.widgets.glossary import TERMS
from backend.certification.confidence import ceiling, lower_bound, radius
from backend.certification.planning import samples_for
from backend.datasets import find_dataset
from backend.home import CHECKOUT, PRECOMPUTED, runs_root
from backend.plan import plan
from backend.rows import Epoch
from backend.run import Run
from backend.store.publish import publish
from backend.training.methods import METHODS
from tests.app import words


@pytest.fixture
def app(published):
    app = AppTest.from_file(str(CHECKOUT / "app" / "views" / "guide.py"), default_timeout=60).run()
    assert not app.exception
    return app


def test_a_data_set_that_is_like_another_takes_its_values(app):
    assert "; fashion_mnist as mnist." in words(app)


def test_every_method_has_its_formula_and_every_word_its_sentence(app):
    assert all(method.formula for method in METHODS.values())
    shown = [e.value for e in app.latex]
    assert len(shown) == len(METHODS)
    for method in METHODS.values():
        (formula,) = (f for f in shown if f"}} {method.formula} \\end" in f)
        assert method.paper in words(app)
        assert formula.count("{") == formula.count("}")
    assert app.table[0].value["word"].to_list() == list(TERMS)


def test_the_table_of_contents_leads_to_every_chapter(app):
    links = re.findall(r"\]\(#([a-z-]+)\)", app.markdown[1].value)
    assert links == [header.proto.anchor for header in app.header]
    assert len(links) == 8


def test_radius_and_ceiling_are_those_of_the_bound(app):
    for p, n, sigma in ((0.99, 10_000, 0.5), (0.999, 1_000, 1.0), (0.6, 100, 0.25)):
        app.select_slider(key="p").set_value(p)
        app.select_slider(key="n").set_value(n)
        app.select_slider(key="sigma").set_value(sigma).run()
        assert not app.exception
        values = [m.value for m in app.metric]
        k = round(p * n)
        bound = lower_bound(k, n, 0.001)
        claimed = round_down(bound, 5), round_down(radius(bound, sigma)) if bound > 0.5 else "none"
        assert values == [f"{k:,}", *claimed, f"{radius(p, sigma):.3f}"]
        assert f"= {ceiling(sigma, n, 0.001):.3f}" in words(app)


def test_samples_needed_are_said_or_that_none_suffice(app):
    assert f"About **{samples_for(1.0, 0.99, 0.5, 0.001):,} samples** certify r = 1" in words(app)
    app.number_input(key="r2").set_value(1.5).run()
    assert "**No number of samples** that can be drawn certifies 1.5" in words(app)


def test_without_the_shipped_results_it_is_still_a_guide(home):
    publish((runs_root(),))
    app = AppTest.from_file(str(CHECKOUT / "app" / "views" / "guide.py"), default_timeout=60).run()
    assert not app.exception
    assert "which this store does not hold" in app.info[0].value
    assert len(app.header) == 8


def test_the_example_of_a_network_certifies_what_was_shipped(app, capsys):
    """Exactly the text that the page shows; test image 0 is one of those that ship, under the same noise."""
    exec(app.code[1].value, {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sorted(int(i) for i, _, _ in lines) == list(range(8))
    shipped = Run(PRECOMPUTED / "mnist-lenet-consistency-s0.5-l5-seed0-abfa8ccd").certificates()[0]
    _, predict, radius = next(line for line in lines if line[0] == "0")
    assert (shipped.idx, shipped.predict) == (0, int(predict))
    assert float(radius) == pytest.approx(shipped.radius, abs=2e-12)


def test_the_example_of_a_method_learns(app, tmp_path, monkeypatch):
    """Exactly the text that the page shows, as a file."""
    import torch

    from backend.pipeline import choose_device
    from backend.training.loop import train

    torch.set_num_threads(1)
    file = tmp_path / "logit_pairing.py"
    file.write_text(app.code[0].value)
    name = "backend.training.methods.logit_pairing"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS, "logit_pairing", module.METHOD)
    run = plan("digits", "logit_pairing", 0.25, values={"lam": 0.1}, epochs=25)
    epochs = [row for row in train(run, find_dataset("digits"), choose_device("cpu")) if isinstance(row, Epoch)]
    assert epochs[-1].accuracy > 0.75
    assert set(epochs[-1].terms) == {"cross_entropy", "pairing"}
    assert epochs[-1].terms["pairing"] > 0
