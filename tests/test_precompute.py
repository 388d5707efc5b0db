"""The queue of the shipped results, worked off for real on small runs."""

from dataclasses import replace

import pytest

from backend import precompute, shipping
from backend.home import PRECOMPUTED, runs_root
from backend.precompute import Part, done, finished_here, overview, queue, work_off
from backend.run import Run, all_runs
from backend.shipping import ship
from backend.spec import SpecError


@pytest.mark.parametrize("gpu", [False, True])
def test_the_table_is_queued_once_on_each_devices_terms(gpu):
    parts = {part.name: part for part in queue(gpu)}
    specs = [spec for part in parts.values() for spec in part.specs]
    assert len({spec.run_id for spec in specs}) == len(specs)
    assert {(spec.method, spec.sigma) for spec in parts["table"].specs} == {
        (m, s) for m in precompute.SIX for s in (0.25, 0.5, 1.0)
    }
    assert {spec.certification.n for spec in parts["table"].specs} == {100_000 if gpu else 10_000}
    assert {spec.recipe.name for spec in parts["table"].specs} == {"paper" if gpu else "quick"}
    lams = {spec.hyper["lam"] for spec in specs if spec.method == "consistency" and spec.sigma == 1}
    assert {0, 1, 2, 5, 10, 15, 20, 25, 30} <= lams


def test_a_gpu_begins_with_what_stands_beside_the_shipped_runs():
    """On the terms of the CPU's queue, whose runs they are too."""
    cpu = {spec.run_id for part in queue(gpu=False) for spec in part.specs}
    first = [part for part in queue(gpu=True) if part.name.startswith("paper")]
    assert first == queue(gpu=True)[: len(first)]
    assert [part.name for part in first[:2]] == ["paper", "paper, SmoothAdv"]  # what misses in the table, before seeds
    assert queue(gpu=False)[-1] == first[1]
    assert {spec.run_id for part in first for spec in part.specs} <= cpu


def test_shipped_runs_are_of_the_queue():
    """What ships came out of this queue, and none of it is done again."""
    specs = {spec.run_id: spec for part in queue(gpu=False) for spec in part.specs}
    for run in all_runs(PRECOMPUTED):
        assert done(specs[run.run_id]).path == run.path


def test_a_budget_ends_in_the_middle_and_the_same_call_goes_on(home, parts, capsys):
    assert overview(parts).startswith("first: 0 of 2 runs done, which took 0 s; the rest: not known")
    with pytest.raises(KeyboardInterrupt):
        work_off(parts, "cpu", 0.0, (1, 1))
    run = Run(runs_root() / parts[0].specs[0].run_id)
    assert run.state()["state"] == "interrupted"
    assert run.count() == (1, 0)
    assert run.checkpoint() is not None  # the epoch was not lost
    work_off(parts, "cpu", None, (1, 1))
    assert all(done(spec) for part in parts for spec in part.specs)
    assert len(run.certificates()) == len({c.idx for c in run.certificates()}) == 15
    assert "first: 2 of 2 runs done, which took" in capsys.readouterr().out
    assert "the rest" not in overview(parts)


def test_a_budget_ends_between_two_runs_too(home, parts):
    """What is missing of the first is that it is called finished."""
    work_off([Part("one", parts[0].specs[:1])], "cpu", None, (1, 1))
    first, second = (Run(runs_root() / spec.run_id) for spec in parts[0].specs)
    first.set_state("interrupted")
    with pytest.raises(KeyboardInterrupt):
        work_off(parts, "cpu", 0.0, (1, 1))
    assert first.state()["state"] == "finished"
    assert not second.path.exists()


def test_shards_share_the_queue(home, parts):
    work_off(parts, "cpu", None, (2, 2))
    assert [bool(done(spec)) for part in parts for spec in part.specs] == [False, True, False]
    assert "first: 1 of 2 runs done" in overview(parts)
    assert "; the rest: about" in overview(parts).splitlines()[0]  # a run alike is finished
    assert overview(parts).splitlines()[1].endswith("the rest: not known")  # none of Consistency is
    assert overview(parts, gpu=True).splitlines()[0].endswith("the rest: not known")  # how fast a CPU is says nothing


@pytest.mark.parametrize(
    ("file", "content"), [("state.json", '{"state": "paused"}'), ("certificates.tsv", "idx\nx\n"), ("spec.json", "{")]
)
def test_a_damaged_folder_is_named_and_the_others_are_done(home, parts, capsys, file, content):
    run = Run.create(runs_root(), parts[0].specs[0])
    (run.path / file).write_text(content)
    work_off(parts[:1], "cpu", None, (1, 1))
    assert f"left out: {run.path / file}" in capsys.readouterr().out
    assert done(parts[0].specs[1])
    if file == "certificates.tsv":
        run.set_state("finished")
        assert f"left out: {run.path / file}" in overview(parts)
    assert overview(parts).startswith("first: 1 of 2 runs done")
    assert [one.run_id for one in finished_here(parts)][-1] == parts[0].specs[1].run_id


def test_a_copy_that_was_cut_short_is_made_anew(tmp_path):
    """Killed between two names: the old folder waits beside; killed before that, it stands."""
    folder = tmp_path / "run"
    shipping._put({"a": b"new"}, folder)
    (folder / "weights").write_text("kept")
    folder.rename(folder.with_name(".before-run"))
    shipping._put({"a": b"new", "b": b"new"}, folder)
    assert {file.name for file in folder.iterdir()} == {"a", "b", "weights"}
    assert {path.name for path in tmp_path.iterdir() if "run" in path.name} == {"run"}


def test_one_state_that_cannot_be_read_stops_nothing(home, parts, capsys):
    run = Run.create(runs_root(), parts[0].specs[0])
    run.state_file.mkdir()
    assert done(parts[0].specs[0]) is None
    work_off(parts[:1], "cpu", None, (1, 1))
    assert "left out: " in capsys.readouterr().out
    assert done(parts[0].specs[1])


def test_shipping_copies_what_travels_within_the_budget(home, parts, tmp_path, monkeypatch):
    work_off(parts, "cpu", None, (1, 1))
    for module in (precompute, shipping):
        monkeypatch.setattr(module, "PRECOMPUTED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    assert list(ship(parts)) == [spec.run_id for part in parts for spec in part.specs]
    assert list(ship(parts)) == []
    for run in all_runs(tmp_path / "shipped"):
        assert run.certificates() == Run(runs_root() / run.run_id).certificates()
        assert not run.certificates_file.exists()  # packed
    with_weights = [run.run_id for run in all_runs(tmp_path / "shipped") if run.weights() is not None]
    assert with_weights == [parts[0].specs[0].run_id]  # seed 0 of the part whose weights travel
    longer = replace(parts[0].specs[0], recipe=replace(parts[0].specs[0].recipe, epochs=3))
    parts.append(Part("longer", (longer,), weights=True))
    work_off(parts, "cpu", None, (1, 1))
    assert list(ship(parts)) == [longer.run_id]
    with_weights = [run.run_id for run in all_runs(tmp_path / "shipped") if run.weights() is not None]
    assert with_weights == [longer.run_id]  # those of the shorter training of the cell have left
    again = Run(tmp_path / "shipped" / longer.run_id)
    again.weights_file.unlink()
    assert list(ship(parts)) == [longer.run_id]
    assert again.weights_sha256() == again.environment()["weights_sha256"]
    again.weights_file.rename(again.path / "its own")
    (runs_root() / longer.run_id / "model.safetensors").write_bytes(b"of another training of the same spec")
    assert list(ship(parts)) == []
    assert not again.weights_file.exists()
    monkeypatch.setattr(shipping, "MOST_BYTES", 1)
    for module in (precompute, shipping):
        monkeypatch.setattr(module, "PRECOMPUTED", tmp_path / "full")
    (tmp_path / "full").mkdir()
    with pytest.raises(SpecError, match="of at most 28"):
        list(ship(parts))
    assert list((tmp_path / "full").iterdir()) == []


def test_a_disk_gives_whole_blocks_to_files_and_folders(tmp_path):
    for size in (0, 1, 4096, 4097):
        (tmp_path / str(size)).write_bytes(b"x" * size)
    (tmp_path / "folder").mkdir()
    assert shipping.on_disk(tmp_path.iterdir()) == (0 + 1 + 1 + 2 + 1) * 4096
