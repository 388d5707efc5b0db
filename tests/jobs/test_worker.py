"""Real processes, killed with SIGKILL at any moment; what they leave is resumed to the same result."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from backend.home import CHECKOUT, runs_root
from backend.jobs.worker import accompany, work
from backend.plan import certify_again
from backend.rows import Checkpoint
from backend.run import Run, RunError
from backend.spec import Certification

pytestmark = pytest.mark.usefixtures("published")  # whoever publishes need not begin with the shipped runs
COMMAND = ["run", "--dataset", "digits", "--method", "consistency"]
LONG = ["--epochs", "4", "--n", "2000", "--n0", "50", "--every", "20"]  # 4 epochs, 23 images
SHORT = ["--epochs", "1", "--n", "100", "--n0", "10", "--every", "200"]


def start(*settings):
    return subprocess.Popen(
        [sys.executable, "-m", "backend", *COMMAND, *settings],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def to_the_end(*settings):
    process = start(*settings)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def only_run():
    (path,) = runs_root().glob("digits-*")
    return Run(path)


def results(run):
    """What must be equal: everything but times."""
    epochs = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.epochs()]
    return [replace(c, time=0.0) for c in run.certificates()], epochs, run.weights()


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of the command, never killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CERTSCOPE_HOME", str(tmp_path_factory.mktemp("undisturbed")))
        to_the_end(*LONG)
        return results(only_run())


@pytest.mark.parametrize(("epochs", "images"), [(1, 0), (3, 0), (4, 1), (4, 9)], ids=str)
def test_killed_while_training_or_certifying(home, undisturbed, epochs, images):
    process = start(*LONG)

    def far_enough():
        folders = list(runs_root().glob("digits-*"))
        done = Run(folders[0]).count() if folders else (0, 0)
        return done[0] >= epochs and done[1] >= images

    wait_for(far_enough, process)
    process.kill()
    process.communicate()
    run = only_run()
    assert run.state()["state"] == "interrupted"
    assert len(run.certificates()) < 23
    to_the_end(*LONG)
    assert results(run) == undisturbed
    assert run.state()["state"] == "finished"


def test_killed_again_and_again(home, undisturbed):
    """Killed a few rows further, again and again until it is through: progress is never lost, nothing is doubled."""

    def written():
        return sum(only_run().count()) if list(runs_root().glob("digits-*")) else 0

    dice, kills, returned = random.Random(0), 0, None
    while returned != 0:
        process, rows = start(*LONG), written()
        aim = rows + dice.randint(3, 6)
        deadline = time.monotonic() + 120
        while process.poll() is None and (now := written()) < aim:
            assert now >= rows - 1, "more was lost than the row in flight"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        output, _ = process.communicate()
        returned = process.returncode
        assert returned in (0, -signal.SIGKILL), output
        kills += returned != 0
    assert kills > 3, "it was hardly ever killed"
    assert only_run().state()["state"] == "finished"
    assert results(only_run()) == undisturbed


def test_a_finished_run_is_left_alone(home):
    to_the_end(*SHORT)
    before = only_run().certificates_file.stat().st_mtime_ns
    assert "is finished already" in to_the_end(*SHORT)
    assert only_run().certificates_file.stat().st_mtime_ns == before


def test_failure_is_written_down_and_can_be_mended(home, digits_spec):
    run = Run.create(runs_root(), certify_again(digits_spec(), "nowhere-seed0-1", Certification(n=10)))
    with pytest.raises(RunError, match="nowhere-seed0-1 has no weights here"):
        work(run, "cpu")
    assert run.state()["state"] == "failed"
    assert "train it first" in run.state()["error"]


@pytest.mark.parametrize("cut", [0, 4, 300, -10])
def test_a_checkpoint_that_is_not_whole_says_what_to_do(home, digits_spec, cut):
    run = Run.create(runs_root(), digits_spec())

    def stop(row):
        if isinstance(row, Checkpoint):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(run, "cpu", stop)
    run.checkpoint_file.write_bytes(run.checkpoint()[:cut])
    with pytest.raises(
        RunError, match=r"checkpoint\.safetensors is damaged \(.+\): delete it, and training begins anew"
    ):
        work(run, "cpu")
    assert run.count() == (1, 0)
    run.checkpoint_file.unlink()
    assert work(run, "cpu")
    assert run.count()[0] == 2


def test_two_workers_cannot_hold_one_run(home, digits_spec):
    run = Run.create(runs_root(), digits_spec())
    with run.held(), pytest.raises(RunError, match="another process"):
        work(run, "cpu")


def test_an_error_without_words_is_called_by_its_name(home, digits_spec):
    def nothing_said(*_, **__):
        raise ArithmeticError
        yield

    run = Run.create(runs_root(), digits_spec())
    with pytest.raises(ArithmeticError):
        work(run, "cpu", executor=nothing_said)
    assert run.state()["error"] == "ArithmeticError"


@pytest.mark.parametrize("which", ["images", "training_images"])
def test_nodes_that_find_different_images_are_refused_before_the_first_row(home, digits_spec, which):
    def shards(*_, **__):
        yield {"images": "aaaaaaaa", "training_images": "bbbbbbbb"}
        yield {"images": "aaaaaaaa", "training_images": "bbbbbbbb"} | {which: "cccccccc"}

    with pytest.raises(RunError, match=r"images of digits are not those that its earlier rows rest on"):
        work(Run.create(runs_root(), digits_spec()), "cpu", executor=shards)


def test_who_trains_beside_the_first_process_begins_where_it_does(home, digits_spec, monkeypatch):
    run = Run.create(runs_root(), digits_spec())
    run.append(Checkpoint(1, b"after one epoch"))
    given = []
    monkeypatch.setattr("backend.pipeline.execute", lambda *_, **left: given.append(left) or ())
    accompany(run, "cpu")
    assert given == [{"checkpoint": b"after one epoch"}]
