import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from backend.cli import main
from backend.home import CHECKOUT, data_root, runs_root, settle
from backend.home import home as home_folder
from backend.progress import duration
from backend.run import all_runs
from backend.training.methods import METHODS

pytestmark = pytest.mark.usefixtures("published")  # whoever publishes need not begin with the shipped runs
COLUMNS = [
    "run_id", "source", "dataset", "architecture", "method", "sigma", "lam", "seed", "recipe", "epochs",
    "n", "n0", "alpha", "images",
    "acr", "certified_accuracy_0", "abstention", "mode", "image_set", "hyper",
]  # fmt: skip
SMALL = ["--dataset", "digits", "--epochs", "1", "--n", "100", "--n0", "10", "--every", "90"]


def checked(returned, status, out, error):
    assert returned == status, out + error
    assert "Traceback" not in error
    return out if status == 0 else error


def backend(*arguments, status=0):
    """In this process: what it wrote to stdout, or to stderr where it fails."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        returned = main([str(argument) for argument in arguments])
    return checked(returned, status, out.getvalue(), error.getvalue())


def fresh(*arguments, status=0, **environment):
    """The same in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "backend", *map(str, arguments)],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    return checked(result.returncode, status, result.stdout, result.stderr)


def stored():
    return [
        record for line in backend("runs", "--json").splitlines() if (record := json.loads(line))["dataset"] == "digits"
    ]


def test_sweep_runs_the_grid_and_the_store_lists_it(home):
    output = backend("sweep", "--sigmas", 0.25, 0.5, "--lams", 1, 5, "--seeds", 0, *SMALL)
    assert "[6/6] digits-smallcnn-" in output
    assert "left" in output
    records = stored()
    assert all(list(record) == COLUMNS for record in records)
    assert sorted((r["method"], r["sigma"], r["lam"] or 0) for r in records) == [
        ("consistency", 0.25, 1), ("consistency", 0.25, 5), ("consistency", 0.5, 1), ("consistency", 0.5, 5),
        ("gaussian", 0.25, 0), ("gaussian", 0.5, 0),
    ]  # fmt: skip
    assert {r["images"] for r in records} == {5}
    assert [r["lam"] for r in records if r["method"] == "gaussian"] == [None, None]
    assert "is finished already" in backend("sweep", "--sigmas", 0.25, "--lams", 1, *SMALL)


def test_train_then_certify(home):
    output = fresh("train", "--dataset", "digits", "--method", "consistency", "--lam", 2, "--epochs", 2)
    assert "epoch 2/2" in output
    (folder,) = runs_root().glob("digits-*")
    output = fresh("certify", folder.name, "--n", 100, "--n0", 10, "--every", 90)
    assert "certified 5/5 images" in output
    records = stored()
    assert sorted(r["images"] or 0 for r in records) == [0, 5]
    assert {r["lam"] for r in records} == {2.0}


def test_dry_run_starts_nothing(home):
    assert "[6/6]" in backend("sweep", "--dry-run")
    assert not list(runs_root().glob("*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--dataset", "digits", "--sigma", "-1"], "sigma must be from 0.0001 to 100, not -1.0"),
        (["run", "--dataset", "digits", "--lam", "5"], "gaussian has no hyper-parameter 'lam'"),
        (["run", "--dataset", "digits", "--method", "consistency", "--m", "1"], "consistency.m must be from 2"),
        (
            ["sweep", "--dataset", "digits", "--architecture", "lennet", "--dry-run"],
            "or a classification network of torchvision, not 'lennet'",
        ),
        (["run", "--dataset", "digits", "--architecture", "resnet18"], "want colour images of at least 32×32"),
        (
            ["run", "--dataset", "digits", "--architecture", "lenet"],
            "no network lenet for digits: images must be at least 16×16, not 8×8",
        ),
        (["run", "--dataset", "digits", "--alpha", "1"], "alpha must be from 1e-12 to 0.999"),
        (["run", "--dataset", "digits", "--device", "tpu"], "device must be auto, cpu, cuda"),
        (
            ["run", "--dataset", "digits", "--device", "cpu:foo"],
            "device must be auto, cpu, cuda or cuda:N, not 'cpu:foo'",
        ),
        (["certify", "nothing"], "there is no run 'nothing'"),
        (["certify", "mnist-lenet-gaussian-s0.5-seed1-c2738c04"], "has no weights here"),
        (["rank", "--radius", "inf", "--dataset", "mnist"], "a radius is at least 0"),
        (
            ["sweep", "--methods", "macer", "--executor", "queue", "--priority", "999", "--dry-run"],
            "a priority is a whole number",
        ),
        (["precompute", "--budget", "nan"], "budget must be at least 0, not nan"),
        (["precompute", "--pack", "/nowhere/x.tar"], "and /nowhere/x.tar was not written"),
        (["import", ".", "--mapping", "README.md"], "README.md is not JSON"),
        (["export", "csv", "/dev/full"], "No space left on device"),
        (["certify", "../../etc"], "a run id is made of letters"),
        (
            ["sweep", "--dataset", "digits", "--methods", "gaussian", "--lams", "3"],
            "none of gaussian has a hyper-parameter 'lam'",
        ),
        (["verify", "/dev/zero"], "A certificate has at most 50 MiB, and this file has more."),
    ],
)
def test_errors_are_one_line(home, arguments, says):
    error = backend(*arguments, status=1)
    assert error.startswith("certscope: ")
    assert says in error
    assert error.count("\n") == 1
    assert not list(runs_root().glob("*"))  # nothing was begun


def test_a_folder_that_is_left_out_of_the_store_ends_publishing_with_1(home):
    assert "Store: " in backend("publish")
    (runs_root() / "digits-x").mkdir(parents=True)
    for file, content in (("spec", "{"), ("state", '{"state": "finished"}')):
        (runs_root() / "digits-x" / f"{file}.json").write_text(content)
    assert "skipped digits-x: " in backend("publish", status=1)


def test_a_run_whose_reader_leaves_is_interrupted_and_goes_on(home):
    """Not failed: nothing is wrong with it, and `queue --resume all` takes it up."""
    command = shlex.join([sys.executable, "-m", "backend", "run", *SMALL, "--epochs", "3"])
    subprocess.run(["bash", "-c", f"{command} | true"], cwd=CHECKOUT, check=True, capture_output=True)
    (run,) = all_runs(runs_root())
    assert run.state()["state"] == "interrupted"
    output = fresh("run", *SMALL, "--epochs", "3", PYTHONIOENCODING="ascii")  # whose terminal has no σ
    assert run.state()["state"] == "finished"
    assert str(run.path) in output
    assert "?" in fresh("methods", PYTHONIOENCODING="ascii")


def test_what_has_nowhere_to_write_still_works(home):
    command = shlex.join([sys.executable, "-m", "backend", "run", *SMALL])
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        result = subprocess.run(
            ["bash", "-c", f"{command} {closed}"], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")
    (run,) = all_runs(runs_root())
    assert run.state()["state"] == "finished"


def test_a_training_that_collapsed_is_called_so(published):
    collapsed, other = "mnist-lenet-consistency-s0.5-l5-seed0-049b7d22", "mnist-lenet-gaussian-s0.5-seed0-06682b8c"
    terms = ("--dataset", "mnist", "--sigma", "0.5", "--recipe", "quick")
    for verb in (("show", collapsed), ("compare", other, collapsed), ("rank", "--radius", "0.5", *terms)):
        assert f"{collapsed}: its training collapsed, it hardly ever answers 9 classes" in backend(*verb)


def test_mnist_that_is_nowhere_names_the_path(home, tmp_path):
    error = fresh("run", "--epochs", 1, status=1, CERTSCOPE_DATA=str(tmp_path), https_proxy="http://127.0.0.1:9")
    assert error.startswith(f"certscope: MNIST is not in {tmp_path / 'MNIST' / 'raw'} and could not be downloaded")
    assert error.count("\n") == 1


def test_a_home_that_cannot_be_written_is_named(home, tmp_path):
    (tmp_path / "file").write_text("")
    error = fresh("run", *SMALL, status=1, CERTSCOPE_HOME=str(tmp_path / "file"))
    assert error.startswith("certscope: Not a directory")
    assert error.count("\n") == 1


def test_a_home_that_duckdb_would_cut_short_is_refused(tmp_path):
    error = fresh("runs", status=1, CERTSCOPE_HOME=str(tmp_path / "what?" / "home"))
    assert error.startswith("certscope: the path of CERTSCOPE_HOME holds no question mark")
    assert error.count("\n") == 1
    assert not (tmp_path / "what?").exists()


def test_folders_are_those_of_where_one_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CERTSCOPE_HOME", "here")
    monkeypatch.setenv("CERTSCOPE_DATA", "~/data")
    settle()
    monkeypatch.chdir("/")
    assert home_folder() == tmp_path / "here"
    assert data_root() == Path.home().resolve() / "data"


def test_a_full_disk_costs_the_row_in_flight(home):
    """The file-size limit stands for the disk: the run fails with a reason, and finishes where there is room again."""
    limited = f"ulimit -f 300; exec {sys.executable} -m backend run {' '.join(SMALL)} --epochs 2"
    result = subprocess.run(["bash", "-c", limited], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("certscope: File too large")
    backend("run", *SMALL, "--epochs", 2)
    assert [r["images"] for r in stored()] == [5]


def test_durations():
    assert [duration(s) for s in (0.4, 59, 60, 200, 7_500)] == ["0 s", "59 s", "1 min 00 s", "3 min 20 s", "2 h 05 min"]


def test_methods_are_listed_with_fields_defaults_and_ranges():
    text = backend("methods")
    assert "smoothadv: SmoothAdv (Salman et al., NeurIPS 2019)" in text
    assert "--warmup 10 of 90 epochs, fewer in shorter trainings (1 to 100000): epochs over which ε grows" in text
    assert "--form default (default, xent, kl, mse)" in text
    listed = {record["method"]: record for record in map(json.loads, backend("methods", "--json").splitlines())}
    assert set(listed) == set(METHODS)
    assert {h["name"]: h["default"] for h in listed["macer"]["hyper"]} == {
        "lam": 16.0, "m": 16, "beta": 16.0, "gamma": 8.0, "deferred": 0,
    }  # fmt: skip


def test_show_rank_and_compare(home):
    backend("sweep", "--sigmas", 0.25, "--seeds", 0, *SMALL)
    gaussian, consistency = (
        next(r for r in stored() if r["method"] == m)["run_id"] for m in ("gaussian", "consistency")
    )
    text = backend("show", gaussian)
    assert "n = 100, n0 = 10, α = 0.001, 5 test images (every" in text
    assert "ACR at fewer of its samples:" in text
    assert "Intervals are 95 % over the choice of images" in text
    text = backend("rank", "--radius", 0.2, "--dataset", "digits")
    assert gaussian in text
    assert consistency in text
    assert "The best of many, chosen on these images, looks better than it is" in text
    assert "certified accuracy at r = 0.2" in backend("compare", gaussian, consistency, "--radius", 0.2)
    assert "cannot be ranked together: choose with the filters" in backend("rank", status=1)
    assert "the store has no certified run 'nothing'" in backend("show", "nothing", status=1)
    shipped = next(
        r["run_id"] for r in map(json.loads, backend("runs", "--json").splitlines()) if r["dataset"] == "mnist"
    )
    assert "they differ in dataset, n, n0, image_set" in backend("compare", gaussian, shipped, status=1)


def test_export_of_a_table(home, tmp_path):
    backend("publish")
    out = tmp_path / "table.md"
    assert str(out) in backend("export", "markdown", out, "--dataset", "mnist", "--sigma", 0.5, "--radii", 0, 0.5)
    assert out.read_text().startswith("| σ | method | ACR | 0 | 0.5 |")
    assert (
        "| 0.5 | SmoothAdv + Consistency, λ = 1, quick | 1.4" in out.read_text()
    )  # where there are several recipes, each row says its own
    backend("export", "markdown", out, "--dataset", "mnist", "--sigma", 0.5, "--recipe", "paper")
    assert "| 0.5 | Gaussian | 1.37" in out.read_text()  # a mean over seeds
    assert "SmoothAdv + Consistency" not in out.read_text()  # by `quick` alone
    taken = ("--dataset", "mnist", "--recipe", "paper", "--sigma", 0.5)
    assert "without --recipe, --sigma" in backend("export", "reproduction", out, *taken, status=1)
    assert "no such run among those that fit" in backend("export", "csv", out, "--runs", "nothing", status=1)


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_leaves_is_told_nothing(home, reader):
    """`… | head -1`: the pipe is closed before all is written, or before what little there is is flushed at the end."""
    command = f"{sys.executable} -m backend methods --json"
    pipe = f"(sleep 0.5; {command}; echo $? >&2; {command}; echo $? >&2) | {reader}"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(["bash", "-c", pipe], cwd=CHECKOUT, capture_output=True, text=True, check=True, env=plain)
    assert result.stderr.split()[-1] == "141"
    assert set(result.stderr.split()) <= {"0", "141"}
