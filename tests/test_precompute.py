"""The queue of the shipped results, worked off for real on small runs."""

import io
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from backend import precompute, shipping
from backend.home import CHECKOUT, PRECOMPUTED, runs_root
from backend.precompute import Part, done, finished_here, overview, queue, work_off
from backend.process import identity
from backend.run import Run, RunError, all_runs
from backend.shipping import ship
from backend.spec import SpecError
from backend.transport import pack, unpack


@pytest.fixture
def parts(digits_spec):
    first = tuple(digits_spec(seed=seed) for seed in (0, 1))
    return [Part("first", first, weights=True), Part("second", (digits_spec("consistency"),))]


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


rename = Path.rename


def no_room(path, to):
    raise OSError(28, "No space left on device")


def test_a_finished_run_takes_the_place_of_an_unfinished_one_of_its_name(home, parts, tmp_path, monkeypatch):
    work_off(parts[:1], "cpu", None, (1, 1))
    packed = pack(finished_here(parts), tmp_path / "out.tar")
    first, second = (Run(runs_root() / run_id) for run_id in packed)
    second.weights_file.unlink()
    second.weights_file.hardlink_to(first.weights_file)  # of a copy that shares what is equal
    second.set_environment(second.environment() | {"weights_sha256": second.weights_sha256()})
    assert pack(finished_here(parts), tmp_path / "out.tar") == packed
    monkeypatch.setenv("CERTSCOPE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(KeyboardInterrupt):
        work_off(parts[:1], "cpu", 0.0, (1, 1))
    begun = Run(runs_root() / packed[0])
    other = Run.create(runs_root(), parts[0].specs[1])
    with other.held(), pytest.raises(RunError, match="being worked on by another process"):
        unpack(tmp_path / "out.tar")
    other.set_state("running", host="elsewhere", boot="x", pid=1)
    with pytest.raises(RunError, match="is running on another machine; nothing was taken"):
        unpack(tmp_path / "out.tar")
    other.set_state("failed", error="a path that is no UTF-8: \udce9")
    assert other.state()["error"].endswith(": ?")
    assert begun.state()["state"] == "interrupted"
    moves = iter([rename, rename, rename, no_room])  # what lies there away, the new one in; and again

    def while_there_is_room(path, to):
        return next(moves, rename)(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", while_there_is_room)
        with pytest.raises(OSError, match="No space left"):
            unpack(tmp_path / "out.tar")
    assert begun.state()["state"] == "finished"
    assert other.state()["state"] == "failed"  # back in its place
    assert unpack(tmp_path / "out.tar") == packed[1:]
    assert other.state()["state"] == "finished"
    assert {path.name for path in runs_root().iterdir()} == set(packed)


def test_a_run_that_begins_while_others_are_unpacked_keeps_its_folder(home, parts, tmp_path, monkeypatch):
    work_off(parts[:1], "cpu", None, (1, 1))
    packed = pack(finished_here(parts), tmp_path / "out.tar")
    monkeypatch.setenv("CERTSCOPE_HOME", str(tmp_path / "elsewhere"))
    first, second = parts[0].specs
    held, begun = Run.held, []

    @contextmanager
    def slowly(run, *_, **__):  # another process had the first until now, and the second begins
        if not begun:
            begun.append(Run.create(runs_root(), second))
            begun[0].set_state("running", **identity())
            begun[0].log_file.write_text("rows of mine")
        with held(run):
            yield

    Run.create(runs_root(), first)
    monkeypatch.setattr(Run, "held", slowly)
    with pytest.raises(OSError, match="not empty"):
        unpack(tmp_path / "out.tar")
    assert Run(runs_root() / packed[0]).state()["state"] == "finished"
    assert begun[0].log_file.read_text() == "rows of mine"


def test_packed_runs_arrive_whole_elsewhere(home, parts, tmp_path, monkeypatch):
    work_off(parts[:1], "cpu", None, (1, 1))
    ids = pack(finished_here(parts), tmp_path / "out.tar")
    assert ids == [spec.run_id for spec in parts[0].specs]
    assert [run.run_id for run in finished_here([*parts, *parts])] == ids  # a run of two parts is packed once
    before = {i: (Run(runs_root() / i).certificates(), Run(runs_root() / i).weights_sha256()) for i in ids}
    monkeypatch.setenv("CERTSCOPE_HOME", str(tmp_path / "elsewhere"))
    assert sorted(unpack(tmp_path / "out.tar")) == sorted(ids)
    assert {i: (Run(runs_root() / i).certificates(), Run(runs_root() / i).weights_sha256()) for i in ids} == before
    assert unpack(tmp_path / "out.tar") == []
    whole = (tmp_path / "out.tar").read_bytes()
    assert pack([], tmp_path / "out.tar") == []
    assert (tmp_path / "out.tar").read_bytes() == whole
    with tarfile.open(tmp_path / "out.tar") as whole:
        *_, weights, _ = whole.getmembers()
    assert weights.name.endswith("model.safetensors")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "out.tar").read_bytes()[: weights.offset])
    monkeypatch.setenv("CERTSCOPE_HOME", str(tmp_path / "third"))
    with pytest.raises(RunError, match="is cut off"):
        unpack(tmp_path / "cut.tar")
    assert list(runs_root().iterdir()) == []
    assert not any(path.name.startswith(".") for path in runs_root().iterdir())


def test_a_tar_that_holds_anything_else_is_refused_whole(home, tmp_path):
    def tar(name, *members):
        with tarfile.open(tmp_path / name, "w") as out:
            for member in members:
                out.addfile(member, io.BytesIO(b"{}"[: member.size]))
        return tmp_path / name

    def file(name):
        member = tarfile.TarInfo(name)
        member.size = 2
        return member

    link = tarfile.TarInfo("mnist-x/spec.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    neighbour = tarfile.TarInfo("mnist-x/lock")  # stays within the folder of all runs
    neighbour.type, neighbour.linkname = tarfile.SYMTYPE, "../mnist-y/certificates.tsv"
    for name, members in (
        ("up", [file("../../evil/spec.json")]),
        ("stray", [file("notes.txt")]),
        ("link", [link]),
        ("neighbour", [neighbour]),
        ("spec", [file("mnist-x/spec.json")]),
    ):
        with pytest.raises(RunError):
            unpack(tar(name, *members))
    with pytest.raises(RunError, match="holds something that is no run folder"):
        unpack(tmp_path / "stray")
    (tmp_path / "cut").write_bytes(b"no tar")
    with pytest.raises(RunError, match="cannot be unpacked"):
        unpack(tmp_path / "cut")
    assert list(runs_root().iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_tar_holds_finished_runs_and_nothing_else(home, digits_spec, tmp_path, monkeypatch):
    run = Run.create(home / "elsewhere", digits_spec())
    run.set_state("finished")

    def tar(mode="w"):
        with tarfile.open(tmp_path / "some.tar", mode) as out:
            for file in run.path.iterdir():
                out.add(file, f"{run.run_id}/{file.name}")
        return tmp_path / "some.tar"

    with pytest.raises(RunError, match="its last file must name all others"):
        unpack(tar())
    with pytest.raises(RunError, match="cannot be unpacked"):  # what is compressed may become of any size
        unpack(tar("w:xz"))
    (run.path / "more.sh").write_text("echo")
    with pytest.raises(RunError, match=r"holds more\.sh in .*, which --pack leaves out"):
        unpack(tar())
    (run.path / "more.sh").unlink()
    run.set_state("queued", priority=100_000)
    with pytest.raises(RunError, match="which is not finished"):
        unpack(tar())
    run.set_state("finished")
    other = run.path.rename(run.path.with_name("digits-of-another-name"))
    with tarfile.open(tmp_path / "renamed.tar", "w") as out:
        for file in other.iterdir():
            out.add(file, f"{other.name}/{file.name}")
    with pytest.raises(RunError, match="it holds something that is no run folder"):
        unpack(tmp_path / "renamed.tar")
    other.rename(run.path)
    with run.weights_file.open("wb") as file:
        file.truncate(2**30)
    names = [f"{run.run_id}/{file.name}" for file in run.path.iterdir()]
    subprocess.run(["tar", "--sparse", "-C", run.path.parent, "-cf", tmp_path / "holes.tar", *names], check=True)
    assert (tmp_path / "holes.tar").stat().st_size < 2**20  # which would be a thousand times as much on the disk
    with pytest.raises(RunError, match="holds a link or another thing that is no plain file"):
        unpack(tmp_path / "holes.tar")
    run.weights_file.unlink()
    run.weights_file.symlink_to("/etc/hostname")
    with pytest.raises(RunError, match=r"model\.safetensors is a link to /etc/hostname: put that file in its place"):
        pack([run], tmp_path / "link.tar")
    run.weights_file.unlink()
    with pytest.raises(RunError, match=r"digits-gone was deleted meanwhile"):
        pack([Run(home / "elsewhere" / "digits-gone")], tmp_path / "gone.tar")
    assert not (tmp_path / "gone.tar").exists()
    run.weights_file.write_bytes(b"of another")
    run.set_environment({"weights_sha256": "f00"})
    with pytest.raises(RunError, match=r"the weights of .* are not those that its environment.json names"):
        unpack(tar())
    run.spec_file.write_text("{")
    with pytest.raises(
        RunError, match=rf"some\.tar is not of --pack: {run.run_id}/spec\.json: .*; nothing was taken from it"
    ):
        unpack(tar())
    assert list(runs_root().iterdir()) == []


def test_a_full_disk_leaves_no_half_a_tar(home, parts, tmp_path):
    work_off(parts[:1], "cpu", None, (1, 1))
    small = (
        "import resource, signal; from pathlib import Path; from backend.run import Run; from backend.transport import pack\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))\n"
        f"pack([Run(Path({str(runs_root() / parts[0].specs[0].run_id)!r}))], Path({str(tmp_path / 'out.tar')!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", small], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert "File too large" in ended.stderr
    assert not list(tmp_path.glob("*.tar*")) + list(tmp_path.glob(".*.tar*"))


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
