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
from backend.plan import certify_again, command
from backend.run import Run, RunError, all_runs
from backend.spec import Certification
from backend.store import queries
from backend.store.publish import publish
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


def test_the_queue_certifies_it(published, file):
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


RESNET = DATASETS["cifar10"]


@pytest.fixture(scope="module")
def resnet():
    """A network with normalisation before it, and its tensors."""
    network = build("resnet20", RESNET, torch.device("cpu"))
    return network, {name: value.contiguous() for name, value in network.state_dict().items()}


def kept(state, tmp_path):
    safetensors.torch.save_file(state, tmp_path / "resnet.safetensors")
    return from_elsewhere(tmp_path / "resnet.safetensors", "resnet20", RESNET)


@pytest.mark.parametrize("form", ["as here", "without buffers", "without normalisation", "float64"])
def test_normalisation_is_put_before_it_where_it_has_none(resnet, form, tmp_path):
    """Radii are in pixels, so what normalises is a layer; elsewhere it may be one without weights, or part of the data loader."""
    network, state = resnet
    if form.startswith("without"):
        state = {name: value for name, value in state.items() if not name.startswith("0.")}
    if form == "without normalisation":
        state = {name.removeprefix("1."): value for name, value in state.items()}
    if form == "float64":
        state = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
    assert kept(state, tmp_path) == pack(network, "float32")


def test_one_normalisation_is_not_half_of_another(resnet, tmp_path):
    _, state = resnet
    other, last = state | {"0.mean": torch.full((3, 1, 1), 0.1)}, list(state)[-1]
    assert kept(other, tmp_path) != kept(state, tmp_path)
    for wrong, says in (
        ({name: value for name, value in state.items() if name != "0.sd"}, "they lack 0.sd"),
        (state | {"0.sd": torch.zeros(3, 1, 1)}, "0.sd must be above 0"),
        ({name.removeprefix("1."): value for name, value in state.items() if name[0] == "1" and name != last}, f"they lack {last}$"),
    ):  # fmt: skip
        with pytest.raises(WeightsError, match=says):
            kept(wrong, tmp_path)


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


def test_what_does_not_fit_is_refused_before_anything_is_made(file, tmp_path, capsys):
    path, _ = file
    state = safetensors.torch.load(path.read_bytes())
    name = next(iter(state))
    bad = tmp_path / "bad.safetensors"
    for content, says in (
        (b"no tensors", "is no safetensors file that torch reads"),
        (header('{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}') + b"1", "is no safetensors file that torch reads"),
        (safetensors.torch.save(state | {name: torch.full_like(state[name], float("nan"))}), "holds values that are not finite"),
        (safetensors.torch.save({n: v.double() * 1e300 for n, v in state.items()}), "holds values that are not finite"),
        (safetensors.torch.save(state | {name: state[name][:1].clone()}), f"they lack {name}"),
        (safetensors.torch.save(state | {name: (100 * state[name]).to(torch.int8)}), f"they lack {name}"),
        (safetensors.torch.save({n: v for n, v in state.items() if n != name}), f"they lack {name}"),
    ):  # fmt: skip
        bad.write_bytes(content)
        assert certify(bad, "--dataset", "digits", "--sigma", 0.5) == 1
        assert says in capsys.readouterr().err, says
    with bad.open("wb") as large:
        large.truncate(2**40)
    absent = tmp_path / "none.safetensors"
    (tmp_path / "folder.safetensors").mkdir()
    for arguments, says in (
        ([bad, "--dataset", "digits", "--sigma", 0.5], "is larger than weights of smallcnn for digits can be"),
        ([path, "--dataset", "digits", "--sigma", 0.5, "--architecture", "mlp"], "these weights are not those of mlp for digits: they lack "),
        ([path, "--dataset", "digits"], "does not say its --sigma: give it"),
        ([path], "does not say its --dataset and --sigma: give it"),
        ([path, "--dataset", "digits", "--sigma", 0.5, "--method", "macer"], "give weights from elsewhere another name"),
        ([path, "--dataset", "digits", "--sigma", 0.5, "--method", "a b"], "method must be a word"),
        ([path, "--dataset", "digits", "--sigma", 0.5, "--shards", 2], "--shards 2 wants --executor ray"),
        ([path, "--dataset", "digits", "--sigma", 0.5, "--device", "cuda:77"], "device cuda:77 was asked for" if torch.cuda.is_available() else "device cuda was asked for"),
        (["digits-x", "--sigma", 0.5], "--sigma is said of a .safetensors file: the run digits-x has its own"),
        ([absent, "--dataset", "digits", "--sigma", 0.5], "No such file or directory"),
        ([tmp_path / "folder.safetensors", "--dataset", "digits", "--sigma", 0.5], "Is a directory"),
    ):  # fmt: skip
        assert certify(*arguments) == 1
        assert says in capsys.readouterr().err, says
    assert list(runs_root().glob("*")) == []


def test_its_file_puts_weights_back_that_are_gone(file, capsys):
    path, _ = file
    long = path.with_name("x" * 200 + ".safetensors")
    long.write_bytes(path.read_bytes())
    given = (long, "--dataset", "digits", "--sigma", 0.5)
    assert certify(*given) == 0
    (run,) = all_runs(runs_root())
    whole, rows = run.weights(), run.certificates_file.read_text().splitlines(True)
    run.certificates_file.write_text("".join(rows[:4]) + rows[4][:5])  # stopped in the middle of a row
    run.set_state("interrupted")
    run.weights_file.unlink()
    assert main(["certify", run.run_id, *SMALL]) == 1
    assert "are gone: certify their file, wherever that is, which puts them back" in capsys.readouterr().err
    with pytest.raises(RunError, match="speaks of a network whose"):
        work(run, "cpu")
    run.weights_file.write_bytes(pack(build("smallcnn", DATASETS["digits"], torch.device("cpu")), "float32"))
    with pytest.raises(RunError, match=r"is not the network that file-.* names: bring that back"):
        work(run, "cpu")
    run.certificates_file.unlink()
    run.environment_file.unlink()  # nothing but its name says whose they are
    with pytest.raises(RunError, match=r"is not the network that file-.* names: bring that back"):
        work(run, "cpu")
    assert certify(*given) == 0
    assert run.weights() == whole
    assert len(run.certificates()) == len(rows) - 1
    run.set_environment(run.environment() | {"weights_sha256": "0" * 64})
    assert publish((runs_root(),)).skipped == {run.run_id: f"its certificates are not of {run.spec.weights_of}"}


def test_certifying_it_again_wants_one_who_has_it(file):
    path, _ = file
    assert certify(path, "--dataset", "digits", "--sigma", 0.5) == 0
    (run,) = all_runs(runs_root())
    again = Run.create(runs_root(), certify_again(run.spec, run.run_id, Certification(n=300, n0=20, every=30)))
    assert (run.network, again.network) == (run.spec.weights_of,) * 2
    whole = run.weights()
    run.weights_file.write_bytes(b"others")
    with pytest.raises(
        RunError, match="has no weights here; certify their file, wherever that is, which puts them back"
    ):
        work(again, "cpu")
    run.weights_file.write_bytes(whole)
    assert work(again, "cpu")
    assert again.weights() == whole


def test_its_log_is_imported_elsewhere(published, file, tmp_path):
    path, _ = file
    assert certify(path, "--dataset", "digits", "--sigma", 0.5) == 0
    (run,) = all_runs(runs_root())
    assert main(["export", "logs", str(tmp_path / "logs"), "--dataset", "digits"]) == 0
    assert main(["import", str(tmp_path / "logs"), "--mapping", str(tmp_path / "logs" / "mapping.json")]) == 0
    (there,) = queries.runs().query("source == 'published'").itertuples()
    assert (there.method, there.acr) == ("my_net", queries.run(run.run_id).acr.item())
