import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from backend.home import runs_root
from backend.jobs import local
from backend.jobs.worker import work
from backend.rows import Checkpoint, Epoch
from backend.run import Run, RunError, all_runs, find_run
from backend.spec import SpecError
from tests.test_rows import ROW


def test_final_checkpoint_becomes_the_weights(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    run.append(Checkpoint(1, b"one"))
    assert (run.checkpoint(), run.weights()) == (b"one", None)
    run.append(Checkpoint(2, b"two", final=True))
    assert (run.checkpoint(), run.weights()) == (None, b"two")


def test_a_run_resumes_behind_its_checkpoint(home, digits_spec):
    """Epochs after it are trained again, those before it stay, and half a row goes."""
    run = Run.create(runs_root(), digits_spec())
    for epoch in (1, 2, 3):
        run.append(Epoch(epoch, 1.0, 100.0, 0.01, 0.5, 0.9, {"cross_entropy": 0.5}))
    with open(run.training_file, "a") as file:
        file.write("4\t1.0\t10")
    assert run.resume_point(2) == set()
    assert [row["epoch"] for row in run.epochs()] == [1, 2]
    assert run.resume_point(2) == set()
    assert [row["epoch"] for row in run.epochs()] == [1, 2]


@pytest.mark.parametrize(
    "content",
    ["[1]", "3", '{"earlier": 3}', '{"earlier": [3]}', '{"missing_classes": "x"}', '{"shape": 3}', '{"classes": [1]}'],
)
def test_an_environment_that_is_none_is_named(home, digits_spec, content):
    run = Run.create(runs_root(), digits_spec())
    run.environment_file.write_text(content)
    with pytest.raises(RunError, match=r"environment\.json does not map names to what they are"):
        run.environment()


def test_nothing_is_written_through_a_link(home, digits_spec, tmp_path):
    """A run folder may be anybody's, and what its links lead to is not."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = Run.create(runs_root(), digits_spec())
    run.lock_file.symlink_to(victim)
    with (
        pytest.raises(RunError, match="lock is a link, through which another file would be written: delete it"),
        run.held(),
    ):
        pass
    run.lock_file.unlink()
    for file in (run.training_file, run.certificates_file, run.log_file, run.lock_file):
        file.unlink(missing_ok=True)
        file.symlink_to(victim)
        with pytest.raises(RunError, match="is a link, through which another file would be written"):
            work(run, "cpu")
        assert run.state()["state"] == "failed"
        run.set_state("queued")
        local.start_worker()
        deadline = time.monotonic() + 60
        while (state := run.state())["state"] != "failed":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "is a link" in state["error"]
        file.unlink()
    assert victim.read_text() == "precious"


def test_who_waits_for_a_run_that_is_deleted_does_not_hold_it(home, digits_spec, monkeypatch):
    """Else two would hold it, once it is made again."""
    run = Run.create(runs_root(), digits_spec())
    waiting, outcome, sleep = threading.Event(), [], time.sleep

    def sleeping(seconds):  # it has the lock file open, and found it locked
        waiting.set()
        sleep(seconds)

    monkeypatch.setattr("backend.run.time", SimpleNamespace(monotonic=time.monotonic, sleep=sleeping))

    def wait():
        try:
            with run.held(patience=10):
                outcome.append("held")
        except RunError as error:
            outcome.append(str(error))

    with run.held():
        other = threading.Thread(target=wait)
        other.start()
        assert waiting.wait(60)
        run.path.rename(run.path.with_name("gone"))
        Run.create(runs_root(), digits_spec())
    other.join()
    assert outcome == [f"{run.run_id} was deleted meanwhile"]
    run.spec_file.unlink()
    run.path.rmdir()
    with pytest.raises(RunError, match="was deleted meanwhile"), run.held():
        pass


def test_running_without_its_process_reads_as_interrupted(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    code = (
        "import sys, time, platform, os; from backend.run import Run; run = Run(sys.argv[1])\n"
        "with run.held():\n"
        "    run.set_state('running', pid=os.getpid(), host=platform.node()); print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, run.path], stdout=subprocess.PIPE)
    process.stdout.readline()
    assert run.state()["state"] == "running"
    with pytest.raises(RunError, match="worked on by another process"), run.held(patience=0.1):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while run.state()["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.state()["state"] == "interrupted"


def test_a_run_on_another_host_is_believed(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    run.set_state("running", pid=1, host="elsewhere")
    assert run.state()["state"] == "running"


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a..b", "a b"])
def test_ids_that_are_no_plain_names_are_refused(home, name):
    with pytest.raises(SpecError, match="a run id is made of"):
        find_run(name, runs_root())


def test_folders_that_are_no_runs_are_passed_over(home, digits_spec):
    Run.create(runs_root(), digits_spec())
    (runs_root() / "empty").mkdir()
    (runs_root() / "with space").mkdir()
    (runs_root() / "with space" / "spec.json").write_text("{}")
    assert len(list(all_runs(runs_root()))) == 1
    with pytest.raises(RunError, match="there is no run 'nope'"):
        find_run("nope", runs_root())


def test_same_folder_other_spec_is_refused(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    values = json.loads(run.spec_file.read_text()) | {"seed": 5}
    run.spec_file.write_text(json.dumps(values))
    with pytest.raises(RunError, match="holds another spec"):
        Run.create(runs_root(), digits_spec())


def test_threads_may_write_one_file_at_once(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: run.set_state("queued"), range(100)))
    assert run.state()["state"] == "queued"
    assert {p.name for p in run.path.iterdir()} == {"spec.json", "state.json"}


def test_other_circumstances_of_earlier_rows_are_kept(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    run.set_environment({"device": "H200", "commit": "a"})
    run.append(ROW)
    run.set_environment({"device": "H200", "commit": "a"})
    assert "earlier" not in run.environment()
    run.set_environment({"device": "cpu", "commit": "a"})
    run.set_environment(run.environment() | {"weights_sha256": "f"})
    earlier = [{"device": "H200", "commit": "a", "until_epoch": 0, "until_image_row": 1}]
    assert run.environment() == {"device": "cpu", "commit": "a", "weights_sha256": "f", "earlier": earlier}


def test_a_folder_with_weights_is_found_before_one_without(home, tmp_path, digits_spec):
    training, shipped = Run.create(runs_root(), digits_spec()), Run.create(tmp_path, digits_spec())
    assert find_run(training.run_id, runs_root(), tmp_path).path == training.path
    shipped.append(Checkpoint(1, b"weights", final=True))
    assert find_run(training.run_id, runs_root(), tmp_path).path == shipped.path


def test_a_state_of_another_version_is_named(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    run.state_file.write_text('{"state": "paused"}')
    with pytest.raises(RunError, match="tells no state that this version knows"):
        run.state()
