"""The logic of the page of one run, without a browser."""

import shutil

import pandas as pd
import pytest

from backend.cli import main
from backend.datasets import DATASETS
from backend.home import PRECOMPUTED, imported_root, runs_root
from backend.logs import import_logs
from backend.process import identity
from backend.progress import duration
from backend.run import Run, all_runs
from backend.store import queries
from backend.store.publish import publish
from tests.app import imitate, page, press, value, words

SHIPPED = "mnist-lenet-consistency-s0.5-l5-seed0-abfa8ccd"
WITH_WEIGHTS = {run.run_id for run in all_runs(PRECOMPUTED) if run.weights_file.exists()}
# One of each kind: a page shows them alike.
KINDS = {
    (run.spec.method, run.spec.recipe.name, run.weights_file.exists(), *run.devices()): run.run_id
    for run in all_runs(PRECOMPUTED)
}


@pytest.mark.parametrize("run_id", KINDS.values())
def test_a_shipped_run_has_a_page(published, run_id):
    app = page("run", run=run_id).run()
    assert not app.exception
    row = queries.run(run_id).iloc[0]
    assert value(app, "ACR") == f"{row.acr:.4f}"
    assert value(app, "Certified accuracy at 0") == f"{row.certified_accuracy_0:.2%}"
    assert "n = 10,000, n0 = 100, α = 0.001, 500 test images (every 20)" in words(app)
    classes = app.dataframe[0].value
    assert (list(classes.label), classes.images.sum()) == (list(DATASETS[row.dataset].classes), 500)
    assert app.code[0].value.startswith(f"python -m backend run --dataset {row.dataset} --method ")
    folder = PRECOMPUTED / run_id
    seconds = [
        pd.read_csv(folder / file, sep="\t")[time].sum()
        for file, time in (("training.tsv", "seconds"), ("certificates.tsv.gz", "time"))
    ]
    facts = app.table[1].value.set_index("name").value
    assert [facts["training took"], facts["certification took"]] == list(map(duration, seconds))
    assert {b.label for b in app.button} == {"Clone"}
    if run_id not in WITH_WEIGHTS:
        assert "Its weights are not shipped with Certscope: those of one network a method and σ are" in words(app)
        return
    assert "These are the settings that it was certified with." in words(app)
    app.number_input(key="again n").set_value(500).run()
    assert {b.label for b in app.button} == {"Clone", "Certify these weights"}


def test_a_class_that_is_hardly_ever_answered_is_told_of(published):
    """By its certificates: its training counted none."""
    shirts = "fashion_mnist-lenet-smoothadv-s1-seed0-d7e1983d"
    assert Run(PRECOMPUTED / shirts).epochs()[-1]["missing_classes"] == 0
    text = words(page("run", run=shirts).run())
    assert "1 class is hardly ever answered: wherever runs are compared, this one counts as collapsed." in text
    assert "hardly ever answered" not in words(page("run", run=SHIPPED).run())


@pytest.mark.parametrize("name", ["spec", "state", "environment", "training", "certificates", "log", "lock"])
def test_a_file_that_cannot_be_read_is_a_sentence(published, digits_spec, name):
    """Another user's, say; here a folder lies where it would."""
    run = Run.create(runs_root(), digits_spec())
    run.set_state("running", **identity())
    file = getattr(run, f"{name}_file")
    file.unlink(missing_ok=True)
    file.mkdir()
    app = page("run", run=run.run_id).run()
    assert not app.exception
    assert "cannot be read" in words(app) or "Is a directory" in words(app)


def test_results_are_those_of_the_folder_that_is_shown(home):
    """One that the store left out is not shown with those of the shipped run of the same id."""
    shipped = Run(PRECOMPUTED / SHIPPED)
    imitate(shipped, shipped.spec)
    run = Run(runs_root() / SHIPPED)
    shutil.copy(shipped.weights_file, run.weights_file)
    publish((runs_root(), PRECOMPUTED))
    app = page("run", run=SHIPPED).run()
    assert value(app, "ACR") == f"{queries.run(SHIPPED).acr.iloc[0]:.4f}"
    rows = run.training_file.read_text().splitlines(True)
    run.training_file.write_text(
        "".join(["1e300" + row[row.index("\t") :] if i else row for i, row in enumerate(rows)])
    )
    assert "holds a row that is no epoch: epoch = 1e+300" in publish((runs_root(), PRECOMPUTED)).skipped[SHIPPED]
    assert SHIPPED in queries.run_ids()
    app = page("run", run=SHIPPED).run()
    assert not app.exception
    text = words(app)
    assert "or claims more than its counts support, is left out of it: `python -m backend publish` says why." in text
    assert "holds a row that is no epoch" in text
    assert "ACR" not in [m.label for m in app.metric]
    assert "The command that repeats it" in [h.value for h in app.header]


def test_weights_are_certified_again(published, submitted):
    app = page("run", run=SHIPPED).run()
    app.number_input(key="again n").set_value(500).run()
    press(app, "Certify these weights")
    assert [(s.weights_of, s.certification.n, s.hyper["lam"]) for s in submitted] == [(SHIPPED, 500, 5.0)]
    app = page("run", run=submitted[0].run_id).run()
    assert not app.exception
    assert app.code[0].value.startswith(f"python -m backend certify {SHIPPED} --n 500 ")
    assert "certified again" not in " ".join(h.value for h in app.header)
    app = page("run", run=SHIPPED).run()
    assert "These weights, certified again" in [h.value for h in app.header]
    assert "**queued**: n = 500, n0 = 100, α = 0.001, fixed, test/every 20, float32" in words(app)


def test_weights_from_elsewhere_have_pages_and_are_certified_again(published, submitted, tmp_path):
    (tmp_path / "My net.safetensors").write_bytes(Run(PRECOMPUTED / SHIPPED).weights())
    file = str(tmp_path / "My net.safetensors")
    assert main(["certify", file, "--dataset", "mnist", "--sigma", "0.5", "--n", "200", "--limit", "30"]) == 0
    (run,) = all_runs(runs_root())
    app = page("run", run=run.run_id).run()
    assert not app.exception
    assert app.code[0].value.startswith(f"python -m backend certify {run.spec.weights_of}.safetensors --dataset mnist ")
    assert "The file is what **Weights** above downloads" in words(app)
    app.number_input(key="again n").set_value(500).run()
    press(app, "Certify these weights")
    assert [(s.source, s.weights_of, s.certification.n) for s in submitted] == [("brought", run.spec.weights_of, 500)]
    assert main(["certify", file, "--dataset", "mnist", "--sigma", "0.25", "--n", "200", "--limit", "3"]) == 0
    assert main(["certify", run.run_id, "--n", "300", "--limit", "3"]) == 0
    app = page("run", run=run.run_id).run()
    assert "These weights, certified again" in [h.value for h in app.header]
    app = page("certify_image", dataset="mnist").run()
    assert not app.exception
    mine = [label for label in app.multiselect(key="model").options if label.startswith("my_net")]
    assert mine == ["my_net, σ = 0.25, recipe elsewhere", "my_net, σ = 0.5, recipe elsewhere"]
    for name in ("trade_offs", "compare", "runs"):
        assert not page(name, dataset="mnist", n="200").run().exception, name
    for one in all_runs(runs_root()):
        one.weights_file.unlink(missing_ok=True)
    app = page("run", run=run.run_id).run()
    assert "Its weights are gone. The command above puts them back, from their file." in words(app)
    assert "The file is what" not in words(app)


def test_an_imported_run_has_a_page(home, tmp_path):
    log = tmp_path / "cohen"
    rows = [f"{i}\t{i % 10}\t{i % 10}\t{0.5 + i / 5000:.3f}\t1\t0:00:01" for i in range(0, 10_000, 20)]
    log.write_text("\n".join(["idx\tlabel\tpredict\tradius\tcorrect\ttime", *rows]) + "\n")
    facts = {"dataset": "mnist", "architecture": "lenet", "method": "gaussian", "sigma": "1.0"}
    results = list(import_logs(log, imported_root(), facts, None, False))
    assert results[0].run is not None, results
    publish()
    app = page("run", run=results[0].run.run_id).run()
    assert not app.exception
    assert value(app, "Certified accuracy at 0") == "100.00%"
    assert "imported, on mnist" in words(app)
    assert "No command repeats it: this run was imported, not computed here" in words(app)
    assert not app.expander  # it has no weights that could be certified again
    assert {b.label for b in app.button} == {"Clone"}


def test_a_run_on_its_way_has_a_page(published, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    run.set_state("queued")
    app = page("run", run=run.run_id).run()
    assert not app.exception
    assert {b.label for b in app.button} == {"Cancel", "Clone"}
    assert "No epoch is done yet." in words(app)
    run.set_state("failed", error="the loss of epoch 1 is not finite")
    app = page("run", run=run.run_id).run()
    assert "the loss of epoch 1 is not finite" in words(app)
    assert {b.label for b in app.button} == {"Retry", "Clone", "Delete"}


@pytest.mark.parametrize("run_id", ["", "../../etc", "<img src=x>", "a" * 999, "nobody", "."])
def test_a_run_that_is_not_there_is_a_sentence(published, run_id):
    app = page("run", run=run_id).run()
    assert not app.exception
    assert "The page **Runs** lists" in app.info[0].value
    assert "<img" not in words(app)
