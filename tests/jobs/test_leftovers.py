import fcntl
import json
import os
import shutil
import time

import pytest

from backend import process
from backend.cli import main
from backend.home import imported_root, runs_root
from backend.jobs.leftovers import OLD, collect
from backend.rows import Checkpoint
from backend.run import Run, all_runs


def aged(path):
    os.utime(path, (time.time() - 2 * OLD,) * 2)
    return path


@pytest.fixture
def littered(home, digits_spec):
    """A home with one leftover of each kind; returns their paths."""
    run = Run.create(runs_root(), digits_spec())
    run.append(Checkpoint(1, b"checkpoint"))
    content = run.checkpoint_file
    kept = content.read_bytes()
    run.append(Checkpoint(2, b"weights", final=True))
    content.write_bytes(kept)
    run.set_state("finished")
    aside = run.path / ".aside-x1"
    aside.write_bytes(b"half a file")
    shutil.copytree(run.path, deleted := runs_root() / f".deleted-{run.run_id}-77-5")
    (halfway := runs_root() / "digits-half").mkdir()
    (halfway / ".aside-x2").write_bytes(b"half a spec")
    (home / ".publish.lock").touch()
    (following := home / ".results.duckdb.next").write_bytes(b"half a store")
    (imported_root() / "empty").mkdir(parents=True)
    for path in (deleted, halfway, imported_root() / "empty"):
        aged(path)
    return {content, aside, deleted, halfway, following, imported_root() / "empty"}


def test_gc_says_what_it_would_delete_and_deletes_it_when_told_to(home, littered, capsys):
    (run,) = all_runs(runs_root())
    before = run.fingerprint(), run.weights()
    assert {leftover.path for leftover, _ in collect()} == littered
    assert main(["gc"]) == 0
    assert all(path.exists() for path in littered)
    said = capsys.readouterr().out
    assert said.count("would delete") == 6
    assert "checkpoint.safetensors: training is finished" in said
    assert main(["gc", "--delete"]) == 0
    assert not any(path.exists() for path in littered)
    assert (run.fingerprint(), run.weights()) == before
    assert list(collect()) == []


def test_a_link_is_left_alone(home, tmp_path):
    """Whatever its name: what it leads to is somebody's."""
    (there := tmp_path / "elsewhere").mkdir()
    (there / "precious").write_bytes(b"results")
    runs_root().mkdir(parents=True)
    link = runs_root() / ".deleted-digits-77-5"
    link.symlink_to(there)
    os.utime(link, (time.time() - 2 * OLD,) * 2, follow_symlinks=False)
    assert list(collect(delete=True)) == []
    assert link.is_symlink()
    assert (there / "precious").exists()


def test_what_cannot_be_deleted_is_named(home, littered, monkeypatch, capsys):
    def refused(leftover):
        raise PermissionError(13, "Permission denied", str(leftover.path))

    for left in littered - {home / ".results.duckdb.next"}:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    monkeypatch.setattr("backend.jobs.leftovers.Leftover.remove", refused)
    assert main(["gc", "--delete"]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_what_a_live_process_holds_is_left_alone(home, littered):
    (run,) = all_runs(runs_root())
    with run.held(), open(home / ".publish.lock") as publisher:
        fcntl.flock(publisher, fcntl.LOCK_EX)
        (young := runs_root() / "just-being-made").mkdir()
        kept = {path for path in littered if path.parent in (run.path, home)} | {young}
        assert {leftover.path for leftover, _ in collect(delete=True)} == littered - kept
        assert all(path.exists() for path in kept)


def test_a_folder_that_cannot_be_locked_is_passed_over(home, littered):
    """Another user's, say; here a folder lies where its lock would."""
    (run,) = all_runs(runs_root())
    run.lock_file.unlink(missing_ok=True)
    run.lock_file.mkdir()
    assert {leftover.path for leftover, _ in collect(delete=True)} == {p for p in littered if p.parent != run.path}


def test_the_queue_from_the_command_line(home, digits_spec, capsys, monkeypatch):
    started = []
    monkeypatch.setattr("backend.jobs.local.start_worker", lambda: started.append(1))
    runs = [Run.create(runs_root(), digits_spec(seed=seed)) for seed in range(3)]
    runs[2].set_state("failed", error="the disk is full\nand more")
    assert main(["queue"]) == 0
    assert not started  # a list starts nothing
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Nothing runs or waits."
    broken = [f"interrupted  {run.run_id}" for run in runs[:2]] + [f"failed  {runs[2].run_id}: the disk is full"]
    assert sorted(said[1:]) == sorted(broken)
    assert main(["queue", "--resume", "all"]) == 0
    assert started
    waiting = [line.split()[3] for line in capsys.readouterr().out.splitlines()]
    assert sorted(waiting) == sorted(run.run_id for run in runs)
    assert main(["queue"]) == 0
    assert "nothing runs" not in capsys.readouterr().err  # a job may just have ended, whose worker publishes
    monkeypatch.setattr("backend.overview.STARTS", -1)
    assert main(["queue"]) == 0
    assert capsys.readouterr().err == "nothing runs: `python -m backend worker` takes the queue up\n"
    assert main(["queue", "--first", waiting[2], "--cancel", waiting[0]]) == 0
    assert [line.split()[2:4] for line in capsys.readouterr().out.splitlines()] == [
        ["100", waiting[2]],
        ["0", waiting[1]],
    ]
    assert main(["queue", "--cancel", waiting[0], waiting[1]]) == 1  # the others are ended all the same
    assert f"certscope: {waiting[0]} is cancelled: nothing is there to end\n" in capsys.readouterr().err
    assert main(["queue", "--resume", waiting[1]]) == 0
    assert main(["queue", "--resume", waiting[1]]) == 1
    assert f"certscope: {waiting[1]} is queued\n" in capsys.readouterr().err
    assert main(["queue", "--first", waiting[0]]) == 1
    assert "only a queued run has a priority" in capsys.readouterr().err
    assert main(["queue", "--first", waiting[1], "--priority", "1000"]) == 1
    assert "a priority is a whole number from -100 to 100, not 1000" in capsys.readouterr().err
    started.clear()
    assert main(["queue", "--resume", waiting[0], "--priority", "1000"]) == 1
    assert main(["queue", "--cancel", waiting[1], "--resume", "nonsense"]) == 1  # nothing is done where a name is none
    assert Run(runs_root() / waiting[1]).state()["state"] == "queued"
    assert not started
    capsys.readouterr()
    foreign = Run.create(runs_root(), digits_spec(seed=3))  # from a command line: not the queue's to end
    damaged = Run.create(runs_root(), digits_spec(seed=4))
    with foreign.held():
        foreign.set_state("running", **process.identity())
        damaged.state_file.write_text("{")
        assert main(["queue", "--cancel", "all"]) == 0
        said = capsys.readouterr().out
        assert f"{foreign.run_id}  since" in said
        assert f"damaged  {damaged.run_id}: " in said
        assert "queued" not in said
        assert foreign.state()["state"] == "running"
    assert main(["queue", "--resume", damaged.run_id]) == 1
    assert "is not JSON" in capsys.readouterr().err
    assert main(["queue", "--cancel", "nonsense"]) == 1
    assert "this machine has started no run 'nonsense': `python -m backend queue` lists" in capsys.readouterr().err
    assert {json.loads(run.state_file.read_text())["state"] for run in runs} == {"cancelled"}
    runs[0].set_state("failed", error="the disk is full")
    assert main(["queue"]) == 0
    assert f"failed  {runs[0].run_id}: the disk is full\n" in capsys.readouterr().out
