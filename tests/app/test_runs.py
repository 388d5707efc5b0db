"""The logic of the page Runs, without a browser."""

import errno
import shutil
from dataclasses import replace

import pytest

from backend.home import runs_root
from backend.jobs import local
from backend.plan import plan
from backend.run import Run
from backend.spec import Certification
from tests.app import page, press, value, words

SHIPPED = "mnist-lenet-consistency-s0.5-l5-seed0-e203f8c4"


def grid(app):
    app.button_group(key="launch kind").set_value("Grid").run()
    assert not app.exception
    return app


@pytest.fixture
def many(published, digits_spec):
    """A function: so many folders of runs in a state."""

    def make(count, state, first=0):
        runs = [Run.create(runs_root(), digits_spec(seed=first + i)) for i in range(count)]
        for run in runs:
            run.set_state(state)
        return runs

    return make


def test_a_grid_says_what_it_costs_and_is_queued(published, submitted):
    app = grid(page("runs").run())
    app.text_input(key="launch lams").set_value("1 5").run()
    assert (value(app, "Runs"), value(app, "Images"), value(app, "Samples")) == ("9", "90", "8,181,000")
    assert value(app, "Estimated time") == "not known"
    assert "No finished run tells yet how long this takes: training by gaussian" in words(app)
    press(app, "Start 9 runs")
    assert "9 runs are in the queue." in words(app)
    assert {(s.method, s.sigma, s.hyper.get("lam")) for s in submitted} == {
        *(("gaussian", sigma, None) for sigma in (0.25, 0.5, 1.0)),
        *(("consistency", sigma, lam) for sigma in (0.25, 0.5, 1.0) for lam in (1.0, 5.0)),
    }


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [("sigmas", "0,25", "σ must be numbers with spaces between them"), ("lams", "five", "'five' is none"),
     ("seeds", "0.5", "seeds must be whole numbers"), ("seeds", " ".join(map(str, range(90))), "at most 500 runs, not 540"),
     ("sigmas", "", "this sweep is empty"), ("lams", "9000", "lam must be from 0 to 1000")],
)  # fmt: skip
def test_a_grid_that_cannot_be_gets_a_sentence(published, submitted, field, text, said):
    app = grid(page("runs").run())
    app.text_input(key=f"launch {field}").set_value(text).run()
    assert not app.exception
    assert said in app.error[0].value
    assert "Start" not in " ".join(b.label for b in app.button)


def test_finished_ones_of_a_grid_are_not_computed_again(published, submitted):
    app = grid(page("runs").run())
    app.selectbox(key="launch dataset").set_value("mnist").run()
    assert "Finished already, and not computed again" not in words(app)  # the shipped weights are of 16 bits
    app.selectbox(key="launch weights dtype").set_value("float16").run()
    assert "Finished already, and not computed again: 6 of the 6 runs." in words(app)
    assert value(app, "Estimated time") == "none"
    assert next(b for b in app.button if b.label == "Start 0 runs").disabled
    app.text_input(key="launch seeds").set_value("0 9").run()
    assert "6 of the 12 runs" in words(app)
    assert "of other machines (cpu (x86_64))" in words(app)
    assert (value(app, "Runs"), value(app, "Samples")) == ("6 of 12", f"{6 * 500 * 10_100:,}")
    press(app, "Start 6 runs")
    assert "6 runs are in the queue; 6 were finished already." in words(app)
    assert {spec.seed for spec in submitted} == {9}


def test_a_full_disk_is_a_sentence(published, monkeypatch):
    monkeypatch.setattr(
        local,
        "submit",
        lambda specs: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device", "spec.json")),
    )
    app = press(page("runs").run(), "Start")
    assert not app.exception
    assert "This run was not started: No space left on device (spec.json)" in words(app)


def test_a_seed_that_no_browser_can_hold_is_not_cloned(published):
    run = Run.create(runs_root(), plan("digits", "gaussian", 0.5, seed=2**53))
    run.set_state("failed", error="the loss is not finite")
    app = press(page("runs").run(), "Clone")
    assert not app.exception
    assert "cannot be cloned: a seed is at most 9007199254740991 in a browser" in words(app)
    assert not app.run().exception


def test_a_clone_fills_the_form_with_every_setting(published, submitted):
    spec = plan(
        "digits", "smoothadv", 0.125, values={"steps": 7, "attack": "ddn", "epsilon": 0.3}, seed=11, recipe="paper", epochs=3,
        weights_dtype="float16", train_precision="bfloat16", precision="bfloat16",
        certification=Certification(n=300, n0=30, alpha=0.01, every=7, limit=9, mode="anytime", radius=0.2, width=0.1, float_sound=True),
    )  # fmt: skip
    run = Run.create(runs_root(), spec)
    run.set_state("failed", error="the loss is not finite")
    app = press(page("runs").run(), "Clone")
    assert not app.exception
    assert f"The form holds the settings of {run.run_id}." in words(app)
    press(app, "Start")
    assert submitted == [spec]
    app.number_input(key="launch sigma 1").set_value(0.25).run()
    press(app, "Start")
    assert submitted[1].run_id != spec.run_id
    assert (submitted[1].sigma, submitted[1].hyper, submitted[1].certification) == (
        0.25,
        spec.hyper,
        spec.certification,
    )
    press(app, "Default settings")
    assert app.selectbox(key="launch method 2").value == "consistency"


def test_a_grid_begins_with_what_is_cloned(published, submitted):
    """More seeds of a run: a clone, and then a grid."""
    certification = Certification(n=300, n0=30, every=50)
    spec = plan(
        "digits",
        "consistency",
        0.12,
        values={"lam": 7.0, "eta": 0.1, "m": 4},
        seed=3,
        epochs=9,
        certification=certification,
    )
    Run.create(runs_root(), spec).set_state("failed", error="the loss is not finite")
    app = press(page("runs").run(), "Clone")
    app.button_group(key="launch kind 1").set_value("Grid").run()
    press(app, "Start")
    assert submitted == [spec]
    app.text_input(key="launch seeds 1").set_value("3 4").run()
    press(app, "Start 2 runs")
    assert submitted[1:] == [spec, replace(spec, seed=4)]


def test_a_grid_leaves_to_each_what_a_clone_left_to_its_recipe(published, submitted):
    """ε grows over one epoch at σ = 0.25 by `quick`, and over four at 1."""
    spec = plan("mnist", "smoothadv", 0.25, values={"steps": 3}, certification=Certification(n=300, n0=30, every=500))
    Run.create(runs_root(), spec).set_state("failed", error="the loss is not finite")
    app = press(page("runs").run(), "Clone")
    app.button_group(key="launch kind 1").set_value("Grid").run()
    app.text_input(key="launch sigmas 1").set_value("0.25 1").run()
    press(app, "Start 2 runs")
    assert [(s.sigma, s.hyper["warmup"], s.hyper["steps"]) for s in submitted] == [(0.25, 1, 3), (1.0, 4, 3)]


def test_what_is_typed_stays_while_its_default_does(published, submitted):
    app = page("runs").run()
    app.selectbox(key="launch method").set_value("consistency").run()
    field = next(f for f in app.number_input if f.label == "η")
    field.set_value(0.1).run()
    app.number_input(key="launch sigma").set_value(0.25).run()
    assert next(f for f in app.number_input if f.label == "η").value == 0.1


def test_the_list_is_paged_and_filtered(many):
    many(23, "queued")
    many(12, "cancelled", first=100)
    app = page("runs").run()
    assert ":material/schedule: 23 queued" in words(app)
    assert len([b for b in app.button if b.label == "Cancel"]) == 10
    app.button_group(key="state").set_value(["cancelled"]).run()
    assert len([b for b in app.button if b.label == "Resume"]) == 10
    app.text_input(key="find").set_value("gaussian seed103").run()
    assert len([b for b in app.button if b.label == "Resume"]) == 1
    app.text_input(key="find").set_value("<b>nothing</b>").run()
    assert "No run fits these filters." in words(app)


def test_many_are_cancelled_and_resumed_at_once(many, monkeypatch):
    monkeypatch.setattr(local, "start_worker", lambda: None)
    runs = many(12, "queued")
    app = press(page("runs").run(), "Cancel all 12 queued")
    assert "12 queued runs are cancelled." in words(app)
    assert {run.state()["state"] for run in runs} == {"cancelled"}
    with runs[0].held():
        press(app, "Resume all 12 stopped")
    assert "11 runs are in the queue again. Left as they are: " in words(app)
    assert f"{runs[0].run_id} is being worked on by another process" in words(app)
    assert [run.state()["state"] for run in runs] == ["cancelled"] + ["queued"] * 11


def test_a_run_of_another_machine_is_not_cancelled_here(published, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    run.set_state("running", host="gpu-node-7", pid=1, queue=True)
    with run.held():
        app = press(page("runs").run(), "Cancel")
    assert "was not cancelled" in words(app)
    assert "runs on gpu-node-7; cancel it there" in words(app)


def test_a_folder_that_was_copied_in_mid_run_can_be_cancelled(published, digits_spec):
    """Begun from the command line of another machine: nobody knows that it runs nowhere, before it is cancelled."""
    run = Run.create(runs_root(), digits_spec())
    run.set_state("running", host="elsewhere", boot="x", pid=1)
    app = page("runs").run()
    assert "Cancel ends it here where nobody works on this folder" in words(app)
    press(app, "Cancel")
    assert run.state()["state"] == "cancelled"


def test_what_was_deleted_meanwhile_is_said(many):
    (run,) = many(1, "cancelled")
    app = page("runs").run()
    shutil.rmtree(run.path)
    press(app, "Delete")
    assert not app.exception
    assert "gone already" in words(app)


def test_read_only_shows_and_changes_nothing(many, monkeypatch):
    runs = many(3, "queued")
    app = page("runs").run()
    monkeypatch.setenv("CERTSCOPE_READ_ONLY", "1")  # as if the page had been drawn before
    press(app, "Cancel")
    assert {run.state()["state"] for run in runs} == {"queued"}
    assert "it starts, stops and deletes nothing" in words(app)
    for fresh in (page("runs").run(), page("run", run=runs[0].run_id).run(), page("run", run=SHIPPED).run()):
        assert not fresh.exception
        assert not fresh.button
        assert not fresh.number_input
    assert "— queued" in words(page("runs").run())


def test_200_runs_are_drawn_ten_at_a_time(many, monkeypatch):
    """A second look reads the state of no finished run anew."""
    many(150, "finished")
    many(50, "queued", first=150)
    app = page("runs").run()
    read, state = [], Run.state
    monkeypatch.setattr(Run, "state", lambda run, **how: read.append(run.run_id) or state(run, **how))
    app.run()
    assert not app.exception
    assert len([b for b in app.button if b.label == "Clone"]) == 10
    assert len(read) <= 20  # of those that are drawn
