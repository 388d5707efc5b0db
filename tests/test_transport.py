"""Run folders in a tar file, there and back; what is in it may be anybody's."""

import io
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.home import CHECKOUT, runs_root
from backend.precompute import finished_here, work_off
from backend.process import identity
from backend.run import Run, RunError
from backend.transport import pack, unpack

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
