"""A network that was trained elsewhere: a safetensors file, certified from the command line."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from backend.classifier.weights import WeightsError, build, from_elsewhere, pack
from backend.cli import main
from backend.datasets import DATASETS
from backend.home import runs_root
from backend.jobs.worker import work
from backend.plan import command
from backend.run import Run, all_runs
from backend.store import queries
from tests.jobs.test_local import wait

SMALL = ["--n", "200", "--n0", "20", "--every", "30"]


@pytest.fixture
def file(home, digits_spec, tmp_path):
    """The weights of a network that was trained in another home, as a file; and the certificates that it has there."""
    run = Run.create(tmp_path / "elsewhere", digits_spec())
    work(run, "cpu")
    (tmp_path / "My net.safetensors").write_bytes(run.weights())
    return tmp_path / "My net.safetensors", [replace(row, time=0.0) for row in run.certificates()]


def certify(*arguments):
    return main(["certify", *map(str, arguments), *SMALL])


def test_it_has_the_certificates_that_it_has_elsewhere(published, file, capsys):
    path, expected = file
    assert certify(path, "--dataset", "digits", "--sigma", 0.5) == 0
    (run,) = all_runs(runs_root())
    assert run.run_id.startswith("digits-smallcnn-my_net-s0.5-seed0-")
    assert [replace(row, time=0.0) for row in run.certificates()] == expected
    assert run.epochs() == []
    (row,) = queries.run(run.run_id).itertuples()
    assert (row.source, row.recipe, row.epochs, row.images) == ("brought", "elsewhere", 0, len(expected))
    capsys.readouterr()
    assert certify(path, "--dataset", "digits", "--sigma", 0.5) == 0
    assert "is finished already" in capsys.readouterr().out
    assert main(["certify", run.run_id, "--n", "300", "--n0", "20", "--every", "30"]) == 0
    (again,) = (one for one in all_runs(runs_root()) if one.run_id != run.run_id)
    assert again.weights() == run.weights()
    assert again.spec.weights_of == run.spec.weights_of


def test_the_command_that_repeats_it_is_that_very_run(file, tmp_path):
    path, _ = file
    assert certify(path, "--dataset", "digits", "--sigma", 0.5, "--method", "mine") == 0
    (run,) = all_runs(runs_root())
    verb, name, *flags = command(run.spec)
    (tmp_path / name).write_bytes(run.weights())  # as its page gives it
    assert main([verb, str(tmp_path / name), *flags]) == 0
    assert [one.run_id for one in all_runs(runs_root())] == [run.run_id]


def test_the_queue_certifies_it(file):
    path, expected = file
    assert certify(path, "--dataset", "digits", "--sigma", 0.5, "--executor", "queue") == 0
    (run,) = all_runs(runs_root())
    assert wait(run, "finished", "failed") == "finished"
    assert [replace(row, time=0.0) for row in run.certificates()] == expected


def test_other_weights_of_that_name_are_no_seed_of_it(published, file, digits_spec, tmp_path):
    path, _ = file
    other = Run.create(tmp_path / "elsewhere", digits_spec(seed=1))
    work(other, "cpu")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / path.name).write_bytes(other.weights())
    for one in (path, tmp_path / "there" / path.name):
        assert certify(one, "--dataset", "digits", "--sigma", 0.5) == 0
    runs = queries.runs().query("dataset == 'digits'")
    assert len(runs) == 2
    assert queries.over_seeds(runs.run_id).seeds.to_list() == [1, 1]


@pytest.mark.parametrize("form", ["as here", "without buffers", "without normalisation"])
def test_normalisation_is_put_before_it_where_it_has_none(form):
    """Radii are in pixels, so what normalises is a layer; elsewhere it may be one without weights, or part of the data loader."""
    dataset = DATASETS["cifar10"]
    network = build("resnet20", dataset, torch.device("cpu"))
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    if form != "as here":
        state = {name: value for name, value in state.items() if not name.startswith("0.")}
    if form == "without normalisation":
        state = {name.removeprefix("1."): value for name, value in state.items()}
    assert from_elsewhere(safetensors.torch.save(state), "resnet20", dataset) == pack(network, "float32")


def test_what_does_not_fit_is_refused_before_anything_is_made(file, tmp_path, capsys):
    path, _ = file
    state = safetensors.torch.load(path.read_bytes())
    name = next(iter(state))
    for content, says in (
        (b"no tensors", "this is no safetensors file"),
        (safetensors.torch.save(state | {name: torch.full_like(state[name], float("nan"))}), "holds values that are not finite"),
        (safetensors.torch.save(state | {name: state[name][:1].clone()}), "these weights are not those of smallcnn for digits"),
    ):  # fmt: skip
        (tmp_path / "bad.safetensors").write_bytes(content)
        assert certify(tmp_path / "bad.safetensors", "--dataset", "digits", "--sigma", 0.5) == 1
        assert says in capsys.readouterr().err
    for arguments, says in (
        ([path, "--dataset", "digits", "--sigma", 0.5, "--architecture", "mlp"], "they have 8, "),
        ([path, "--dataset", "digits"], "does not say its --sigma: give it"),
        ([path], "does not say its --dataset and --sigma: give it"),
        ([path, "--dataset", "digits", "--sigma", 0.5, "--method", "macer"], "give weights from elsewhere another name"),
        ([path, "--dataset", "digits", "--sigma", 0.5, "--method", "a b"], "method must be a word"),
        ([path, "--dataset", "digits", "--sigma", 0.5, "--shards", 2], "--shards 2 wants --executor ray"),
        (["digits-x", "--sigma", 0.5], "--sigma is said of a .safetensors file: the run digits-x has its own"),
        ([tmp_path / "none.safetensors", "--dataset", "digits", "--sigma", 0.5], "No such file or directory"),
    ):  # fmt: skip
        assert certify(*arguments) == 1
        assert says in capsys.readouterr().err
    assert list(all_runs(runs_root())) == []
    with pytest.raises(WeightsError, match="that has 8 tensors"):
        from_elsewhere(path.read_bytes().replace(b"0.bias", b"9.bias"), "smallcnn", DATASETS["digits"])
