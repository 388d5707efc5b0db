"""What pages say of a store and of runs on their way, without a browser."""

import os
import time

import pytest
from streamlit.testing.v1 import AppTest

from backend.home import CHECKOUT, runs_root
from backend.run import Run
from backend.store.publish import publish
from tests.app import page, press, words


def test_without_a_store_the_app_says_what_to_do(home):
    app = AppTest.from_file(str(CHECKOUT / "app" / "main.py"), default_timeout=60).run()
    assert not app.exception
    assert "`python -m backend publish` makes it" in app.warning[0].value


@pytest.mark.parametrize("name", ["trade_offs", "certify_image"])
def test_an_empty_store_says_where_runs_come_from(home, name):
    publish((runs_root(),))
    app = page(name).run()
    assert not app.exception
    assert "on the **Runs** page" in app.info[0].value


def test_the_form_is_made_from_the_methods_fields(published):
    app = page("runs").run()
    app.selectbox(key="launch method").set_value("consistency").run()
    labels = {w.label for w in [*app.number_input, *app.selectbox]}
    assert {"λ", "η", "m", "form"} <= labels
    app.selectbox(key="launch dataset").set_value("mnist").run()
    app.number_input(key="launch sigma").set_value(0.25).run()
    assert next(w.value for w in app.number_input if w.label == "λ") == 10  # the paper's at this σ
    app.selectbox(key="launch method").set_value("gaussian").run()
    assert not {"λ", "η"} & {w.label for w in app.number_input}


def test_states_of_runs_are_told(published, digits_spec):
    failed = Run.create(runs_root(), digits_spec())
    failed.set_state("failed", error="the loss of epoch 1 is not finite")
    queued = Run.create(runs_root(), digits_spec(seed=1))
    queued.set_state("queued")
    damaged = Run.create(runs_root(), digits_spec(seed=2))
    damaged.spec_file.write_text("{}")
    app = page("runs").run()
    assert not app.exception
    text = words(app)
    assert "the loss of epoch 1 is not finite" in text
    assert "— queued" in text
    assert "this is not a spec" in text
    assert {b.label for b in app.button} == {"Start", "Retry", "Cancel", "Clone", "Delete"}


EPOCH = "epoch\tseconds\timages_per_second\tlr\tloss\taccuracy\tmissing_classes\tcross_entropy\n1\t1\t1\t0.1\t1\t0.5\t{}\t1\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("training.tsv", EPOCH.format("nan").encode()),
        ("training.tsv", EPOCH.replace("accuracy", "precision").format(0).encode()),
        ("training.tsv", b"\xff\xfe\n\xff\n"),
        ("certificates.tsv", b"\xff\n1\n"),
        ("certificates.tsv", b"idx\ttime\tn\n1\tnan\t-\n"),
        ("environment.json", b"[1]"),
        ("environment.json", b"\xff"),
        ("state.json", b'{"state": "queued"}'),
        ("state.json", b'{"state": "failed", "error": {"a": [1]}}'),
    ],
)
def test_a_damaged_folder_is_told_and_breaks_no_page(published, digits_spec, name, content):
    run = Run.create(runs_root(), digits_spec())
    run.set_state("finished")
    (run.path / name).write_bytes(content)
    for app in (page("runs"), page("run", run=run.run_id), page("trade_offs")):
        assert not app.run().exception
        for toggle in app.toggle:
            if toggle.label == "Loss and log":
                assert not toggle.set_value(True).run().exception


@pytest.mark.parametrize(("before", "after"), [('"lam": 5.0', '"lam": 1' + "0" * 400), ('"m": 2', '"m": "abc"')])
def test_foreign_hyper_parameters_break_no_form(published, digits_spec, before, after):
    run = Run.create(runs_root(), digits_spec("consistency"))
    run.set_state("failed", error="it was stopped")
    assert before in run.spec_file.read_text()
    run.spec_file.write_text(run.spec_file.read_text().replace(before, after))
    assert not page("run", run=run.run_id).run().exception
    app = page("runs").run()
    assert not app.exception
    if "abc" in after:
        app = press(app, "Clone")
        assert "cannot be cloned: consistency.m must be a whole number, not 'abc'" in words(app)
        assert not app.run().exception


def test_a_queue_whose_workers_were_all_killed_goes_on(published, digits_spec):
    left = Run.create(runs_root(), digits_spec())
    left.set_state("queued")
    os.utime(left.state_file, (time.time() - 30,) * 2)  # a job begins sooner where all is well
    app = page("runs").run()
    next(b for b in app.button if b.label == "Start the queue").click().run()
    assert not app.exception
    deadline = time.monotonic() + 120
    while left.state()["state"] != "finished":
        assert time.monotonic() < deadline, left.state()
        time.sleep(0.1)
    assert "Start the queue" not in {b.label for b in app.run().button}


def test_a_home_that_cannot_be_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("CERTSCOPE_HOME", str(tmp_path / "what?"))
    app = AppTest.from_file(str(CHECKOUT / "app" / "main.py"), default_timeout=60).run()
    assert not app.exception
    assert "holds no question mark" in app.warning[0].value
