import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from backend import process
from backend.home import CHECKOUT, runs_root
from backend.jobs import local, queue
from backend.jobs.journal import NAME
from backend.jobs.slots import slots
from backend.plan import certify_again
from backend.run import Run, RunError
from backend.spec import Certification, SpecError
from backend.store import queries
from backend.store.snapshot import StoreError

pytestmark = pytest.mark.usefixtures("published")  # whoever publishes need not begin with the shipped runs


def wait(run, *states, seconds=120):
    deadline = time.monotonic() + seconds
    while (state := run.state()["state"]) not in states:
        assert time.monotonic() < deadline, f"{run.run_id} is still {state}: {log(run)}"
        time.sleep(0.05)
    return state


def log(run):
    return run.log_file.read_text() if run.log_file.exists() else ""


@pytest.fixture
def long_spec(digits_spec):
    """A function: specs of runs that take minutes."""
    return lambda seed: digits_spec(epochs=1, seed=seed, certification=Certification(n=1_000_000, every=1))


def test_a_submitted_run_finishes_and_is_published(home, digits_spec):
    run = local.submit([digits_spec()])[0]
    assert wait(run, "finished", "failed") == "finished", log(run)
    deadline = time.monotonic() + 20
    while run.run_id not in _published():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "certified 15/15 images" in log(run)  # written after the state, before it is published
    local.submit([digits_spec()])  # equal specs are one run
    assert run.state()["state"] == "finished"


def _published():
    try:
        return set(queries.runs().run_id)
    except StoreError:
        return set()


def test_one_runs_and_the_others_wait_their_turn(home, long_spec):
    first, second, third = (local.submit([long_spec(seed)])[0] for seed in range(3))
    wait(first, "running")
    assert [run.run_id for run, _ in queue.waiting(runs_root())] == [second.run_id, third.run_id]
    local.cancel(second)
    assert second.state()["state"] == "cancelled"
    pid = first.state()["pid"]
    local.cancel(first)
    assert first.state()["state"] == "cancelled"
    with pytest.raises(ProcessLookupError):
        _wait_gone(pid)
    wait(third, "running")  # the slot was freed and the cancelled one passed over
    local.cancel(third)
    assert second.count() == (0, 0)


def _wait_gone(pid):
    for _ in range(100):
        os.kill(pid, 0)
        time.sleep(0.05)


def test_a_killed_job_is_interrupted_frees_the_slot_and_resumes(home, digits_spec, long_spec):
    first = local.submit([digits_spec(certification=Certification(n=20_000, n0=20, every=30))])[0]
    second = local.submit([digits_spec(seed=1)])[0]
    wait(first, "running")
    while first.count()[1] < 1:
        time.sleep(0.02)
    os.kill(first.state()["pid"], signal.SIGKILL)
    assert wait(first, "interrupted", seconds=5)
    wait(second, "finished")
    before = first.certificates()
    local.resume(first)
    wait(first, "finished")
    assert first.certificates()[: len(before)] == before
    assert len({c.idx for c in first.certificates()}) == len(first.certificates()) == 15


def test_a_job_that_cannot_run_says_why(home, digits_spec):
    run = Run.create(runs_root(), digits_spec(architecture="lenet"))
    local.submit([run.spec])
    wait(run, "failed")
    assert "no network lenet for digits" in run.state()["error"]
    deadline = time.monotonic() + 10
    while "certscope: no network lenet" not in log(run):
        assert time.monotonic() < deadline, log(run)
        time.sleep(0.05)
    assert "Traceback" not in log(run)


def test_what_is_not_this_queues_is_not_killed(home, digits_spec):
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    run = Run.create(runs_root(), digits_spec())
    run.set_state("running", pid=bystander.pid, host="gpu-node-7", queue=True)
    with run.held():
        with pytest.raises(RunError, match="runs on gpu-node-7; cancel it there"):
            local.cancel(run)
        run.set_state("running", pid=bystander.pid, host=platform.node(), queue=False)
        with pytest.raises(RunError, match="started from the command line; end it there"):
            local.cancel(run)
    run.set_state("running", pid=bystander.pid, host="gpu-node-7", queue=True)  # copied from there in mid-run
    local.cancel(run)
    assert run.state()["state"] == "cancelled"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("state", ["{", '{"state": "queued", "ticket": [1]}', '{"state": "queued", "priority": "1"}'])
def test_a_damaged_folder_does_not_hold_up_the_queue(home, digits_spec, state):
    damaged = Run.create(runs_root(), digits_spec(seed=1))
    damaged.state_file.write_text(state)
    run = local.submit([digits_spec()])[0]
    assert wait(run, "finished", "failed") == "finished"


def test_a_damaged_folder_keeps_no_other_run_out_of_the_queue(home, digits_spec):
    damaged = Run.create(runs_root(), digits_spec(seed=1))
    damaged.spec_file.write_text("{")
    with pytest.raises(RunError, match=r"spec\.json: .*; the other 2 are queued"):
        local.submit([digits_spec(seed=seed) for seed in range(3)])
    for seed in (0, 2):
        wait(Run(runs_root() / digits_spec(seed=seed).run_id), "finished")


def test_who_starts_a_worker_hears_that_it_cannot_begin(home):
    (runs_root() / NAME).mkdir(parents=True)
    started = subprocess.run(
        [sys.executable, "-m", "backend", "worker"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert started.returncode == 1
    assert started.stderr.startswith("certscope: Is a directory: ")


def test_a_job_that_was_killed_before_it_could_say_so_is_failed(home, digits_spec):
    """Between the fork and its first state: nobody would take it up again, and nothing would say that it does not run."""
    run = Run.create(runs_root(), digits_spec())
    queue.enqueue(runs_root(), [run])
    code = (
        "import os, signal; from backend.jobs import local\n"
        "local.process.identity = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "local.work_off_queue()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)
    assert wait(run, "failed", seconds=20)
    assert run.state()["error"] == "the job ended by signal 9 before it began; see its log"


def test_a_worker_that_cannot_begin_is_told_of_in_a_sentence(home, digits_spec, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match=r"no worker could begin \(exit status 1\): the end of .*worker\.log says why"):
        local.submit([digits_spec()])
    assert [run.run_id for run, _ in queue.waiting(runs_root())] == [digits_spec().run_id]


def test_a_run_is_submitted_at_its_priority(home, digits_spec, monkeypatch):
    started = []
    monkeypatch.setattr(local, "start_worker", lambda: started.append(1))
    (run,) = local.submit([digits_spec()], 7)
    assert run.state()["priority"] == 7
    started.clear()
    with pytest.raises(SpecError, match="a priority is a whole number"):
        local.enqueue([run], 1000)
    assert not started


def test_what_does_not_wait_any_more_is_not_started(home, digits_spec):
    """It was cancelled between a worker's look and its grip."""
    run = Run.create(runs_root(), digits_spec())
    run.set_state("cancelled")
    with slots()[0].held(runs_root()) as lock:
        assert local._start(run, slots()[0], lock) is None
    assert run.state()["state"] == "cancelled"


def test_certifying_waits_for_whom_a_queue_is_at_and_for_nobody_else(home, digits_spec):
    spec = digits_spec(certification=None)
    trained = Run.create(runs_root(), spec)
    certified = Run.create(runs_root(), certify_again(spec, spec.run_id, Certification(n=200, every=30)))
    assert not local._too_early(certified, Counter())  # nobody trains: it fails, and says so
    trained.set_state("queued", ticket=3)
    assert local._too_early(certified, Counter())
    assert not local._too_early(certified, Counter({(trained.run_id, 3): local.TRIES}))
    for queued, held in ((True, True), (True, False), (False, True)):  # by another machine, or copied from there
        trained.set_state("running", pid=1, host="elsewhere", boot="x", queue=queued)
        with trained.held() if held else nullcontext():
            assert local._too_early(certified, Counter()) == (queued and held)


def test_the_queue_goes_on_when_its_worker_dies(home, digits_spec):
    first = local.submit([digits_spec(certification=Certification(n=20_000, n0=20, every=30))])[0]
    second = local.submit([digits_spec(seed=1)])[0]
    wait(first, "running")
    worker = int(Path(f"/proc/{first.state()['pid']}/stat").read_text().rsplit(")", 1)[1].split()[1])  # its parent
    assert os.getsid(worker) != os.getsid(0)  # what ends a terminal ends no worker
    os.kill(worker, signal.SIGKILL)
    wait(first, "finished")
    wait(second, "finished")


def test_the_queue_goes_on_when_its_worker_dies_and_the_next_job_cannot_begin(home, digits_spec):
    """It finds its rows damaged before it computes anything."""
    first, damaged, last = local.submit([
        digits_spec(certification=Certification(n=20_000, n0=20, every=30)), digits_spec(seed=1), digits_spec(seed=2)
    ])  # fmt: skip
    wait(first, "running")
    damaged.certificates_file.write_text("no\ncertificates\n")
    worker = int(Path(f"/proc/{first.state()['pid']}/stat").read_text().rsplit(")", 1)[1].split()[1])  # its parent
    os.kill(worker, signal.SIGKILL)
    wait(first, "finished")
    wait(damaged, "failed")  # interrupted for an instant: between its job's end and its worker's word
    wait(last, "finished")


def test_resuming_leaves_finished_and_running_runs_alone(home, digits_spec, long_spec):
    finished, running = local.submit([digits_spec()])[0], local.submit([long_spec(1)])[0]
    wait(running, "running")
    for run, state in ((finished, "finished"), (running, "running")):
        with pytest.raises(RunError, match=f"is {state}|being worked on"):
            local.resume(run)
        assert run.state()["state"] == state
    local.cancel(running)
    for run, says in (
        (finished, "is finished: nothing is there to end"),
        (running, "is cancelled: nothing is there to end"),
    ):
        with pytest.raises(RunError, match=says):
            local.cancel(run)
    local.delete(running)
    with pytest.raises(RunError, match="was deleted meanwhile"):
        local.resume(running)


def test_a_folder_that_cannot_be_locked_costs_itself_alone(home, digits_spec, monkeypatch):
    """Another user's, say; here a folder lies where its lock would."""
    started = []
    monkeypatch.setattr(local, "start_worker", lambda: started.append(1))
    specs = [digits_spec(seed=seed) for seed in range(3)]
    runs = [Run.create(runs_root(), spec) for spec in specs]
    runs[1].lock_file.unlink(missing_ok=True)
    runs[1].lock_file.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        local.submit(specs)
    assert started
    assert [json.loads(run.state_file.read_text())["state"] for run in (runs[0], runs[2])] == ["queued", "queued"]


def test_a_grid_queues_in_its_order_with_one_worker(home, digits_spec, long_spec):
    first = local.submit([long_spec(9)])[0]
    wait(first, "running")
    runs = local.submit([digits_spec(seed=seed) for seed in (3, 1, 2)])
    assert [run.run_id for run, _ in queue.waiting(runs_root())] == [run.run_id for run in runs]
    local.cancel(first)
    for run in runs:
        wait(run, "finished")


def test_deleting_takes_the_folder_of_a_run_that_nobody_works_on(home, digits_spec, long_spec):
    running = local.submit([long_spec(9)])[0]
    wait(running, "running")
    with pytest.raises(RunError, match="being worked on"):
        local.delete(running)
    local.cancel(running)
    local.delete(running)
    assert not running.path.exists()
    assert list(runs_root().glob("*/spec.json")) == list(runs_root().glob(".deleted*")) == []
    stranger = Run.create(home / "elsewhere", digits_spec())
    with pytest.raises(RunError, match="not among the runs of this machine"):
        local.delete(stranger)
    assert stranger.spec_file.exists()


def test_a_job_that_finishes_while_it_is_cancelled_stays_finished(home, digits_spec, monkeypatch):
    """Its last row was written between the look at its state and the signal: nothing of it is lost."""
    run = Run.create(runs_root(), digits_spec())
    run.set_state("running", **process.identity(), queue=True)
    job = ExitStack()
    job.enter_context(run.held())

    def ends(_):
        run.set_state("finished")
        job.close()
        return False

    monkeypatch.setattr("backend.process.is_alive", ends)
    local.cancel(run)
    assert json.loads(run.state_file.read_text())["state"] == "finished"
