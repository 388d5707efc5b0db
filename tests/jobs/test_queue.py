"""What the queue does where the machine is not as it should be. Jobs here are long; none is waited for to its end."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from backend import process
from backend.home import runs_root
from backend.jobs import journal, local, queue
from backend.plan import certify_again
from backend.rows import Certificate
from backend.run import Run, RunError
from backend.spec import Certification, SpecError

ROW = Certificate(20, 7, 7, 1.25, 1, 0.5, 9990, 10_000, 100, 0.99)


@pytest.fixture
def new(digits_spec):
    """A function: the folder of a run that would take minutes."""
    return lambda seed: Run.create(
        runs_root(), digits_spec(epochs=1, seed=seed, certification=Certification(n=1_000_000, every=1))
    )


def order():
    return [run.run_id for run, _ in queue.waiting(runs_root())]


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_higher_priority_first_then_who_came_first(home, new):
    runs = [new(seed) for seed in range(4)]
    for run, priority in zip(runs, (0, 5, 0, 5), strict=True):
        queue.enqueue(runs_root(), [run], priority)
    assert order() == [runs[i].run_id for i in (1, 3, 0, 2)]
    queue.prioritise(runs[2], 7)
    assert order() == [runs[i].run_id for i in (2, 1, 3, 0)]
    queue.prioritise(runs[2], 0)  # back to where it stood
    assert order() == [runs[i].run_id for i in (1, 3, 0, 2)]
    with pytest.raises(SpecError, match="a priority is a whole number from -100 to 100, not 101"):
        queue.prioritise(runs[0], 101)
    local.cancel(runs[0])
    with pytest.raises(RunError, match="is cancelled: only a queued run"):
        queue.prioritise(runs[0], 1)


def test_what_runs_on_another_machine_is_not_queued(home, new):
    run = new(0)
    run.set_state("running", pid=1, host="elsewhere")
    queue.enqueue(runs_root(), [run])
    assert run.state()["state"] == "running"


def test_the_order_does_not_hang_on_the_clock(home, new, monkeypatch):
    runs = [new(seed) for seed in range(4)]
    for day, run in enumerate(runs):
        queue.enqueue(runs_root(), [run])
        os.utime(run.state_file, (1e9 - 86400 * day,) * 2)  # the clock goes back a day each time
    assert order() == [run.run_id for run in runs]


def test_tickets_that_were_lost_are_found_again(home, new):
    runs = [new(seed) for seed in range(4)]
    queue.enqueue(runs_root(), runs[:2])
    for damaged in (b"half a num", b"\xff\xfe", b"9" * 5000):
        (runs_root() / queue.TICKETS).write_bytes(damaged)
        assert queue._tickets(runs_root(), 0) == range(3, 3)
    (runs_root() / queue.TICKETS).write_bytes(damaged)
    queue.enqueue(runs_root(), runs[2:3])
    (runs_root() / queue.TICKETS).unlink()
    queue.enqueue(runs_root(), runs[3:])
    assert order() == [run.run_id for run in runs]


def test_a_full_disk_gives_no_ticket_twice(home, new):
    runs = [new(seed) for seed in range(2)]
    queue.enqueue(runs_root(), runs[:1])
    code = (
        "import resource, signal; from backend.home import runs_root; from backend.jobs import queue\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "queue._tickets(runs_root(), 3)"
    )
    full = subprocess.run(
        [local.sys.executable, "-c", code], cwd=local.CHECKOUT, capture_output=True, text=True, check=False
    )
    assert "File too large" in full.stderr
    local.cancel(runs[0])
    queue.enqueue(runs_root(), runs[1:])
    assert runs[1].state()["ticket"] == 2


def test_two_dashboards_submit_to_one_folder(home, new):
    """Two processes queue the same grid at once: every run waits once, in one order that all see."""
    runs = [new(seed) for seed in range(6)]
    code = (
        "from backend.home import runs_root; from backend.jobs import queue; from backend.run import all_runs\n"
        "queue.enqueue(runs_root(), list(all_runs(runs_root())))"
    )
    both = [subprocess.Popen([local.sys.executable, "-c", code], cwd=local.CHECKOUT) for _ in range(2)]
    assert [dashboard.wait(60) for dashboard in both] == [0, 0]
    assert sorted(order()) == sorted(run.run_id for run in runs)
    tickets = [state["ticket"] for _, state in queue.waiting(runs_root())]
    assert len(set(tickets)) == 6


def test_unreadable_folders_do_not_hold_up_the_queue(home, new):
    queue.enqueue(runs_root(), runs := [new(seed) for seed in range(3)])
    runs[0].state_file.unlink()
    runs[0].state_file.mkdir()
    runs[1].state_file.write_bytes(b"\xff\x00")
    assert order() == [runs[2].run_id]


def test_a_restart_leaves_no_run_running(home, new):
    """After one, the pid may be another process's: it reads as interrupted, and nobody is killed for it."""
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    run = new(0)
    run.set_state("running", **process.identity(bystander.pid) | {"boot": "another"}, queue=True)
    assert run.state()["state"] == "interrupted"
    with run.held():  # as on a network disk that does not know of the restart
        assert not process.is_alive(run.state())
        with pytest.raises(RunError, match="could not be ended"):
            local.cancel(run, patience=0.5)
    local.cancel(run)
    assert run.state()["state"] == "cancelled"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_pid_that_was_given_again_is_not_killed(home, new):
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    run = new(0)
    state = process.identity(bystander.pid)
    assert process.is_alive(state)
    run.set_state("running", **state | {"started": state["started"] - 1}, queue=True)
    with run.held(), pytest.raises(RunError, match="could not be ended"):
        local.cancel(run, patience=0.5)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_container_that_changed_its_name(home, new):
    run = new(0)
    run.set_state("running", **process.identity() | {"host": "f3a90c"}, queue=True)
    assert run.state()["state"] == "interrupted"


def test_two_slots_run_two_jobs_and_cancel_ends_all_their_processes(home, new, monkeypatch):
    monkeypatch.setenv("CERTSCOPE_SLOTS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    specs = [new(seed).spec for seed in range(3)]
    runs = local.submit(specs)
    until(lambda: sum(run.state()["state"] == "running" for run in runs) == 2)
    assert [run.state()["state"] for run in runs] == ["running", "running", "queued"]
    first, second = (run.state() for run in runs[:2])
    for state in (first, second):  # a share of the threads each
        until(lambda pid=state["pid"]: b"OMP_NUM_THREADS=" in Path(f"/proc/{pid}/environ").read_bytes())
    assert {first["slot"], second["slot"]} == {"cpu-0", "cpu-1"}
    local.cancel(runs[2])
    local.cancel(runs[0])  # at once, whatever it was about
    local.cancel(runs[1])
    for state in (first, second):
        until(lambda state=state: _gone(state["pid"]))
    assert {run.state()["state"] for run in runs} == {"cancelled"}
    lines = [json.loads(line) for line in (runs_root() / journal.NAME).read_text().splitlines()]
    started = [line for line in lines if line["event"] == "job started"]
    assert {line["run_id"] for line in started} == {runs[0].run_id, runs[1].run_id}
    assert all(list(line)[:4] == ["time", "level", "event", "run_id"] for line in lines)


def test_certifying_waits_for_the_weights_that_another_slot_trains(home, digits_spec, monkeypatch):
    monkeypatch.setenv("CERTSCOPE_SLOTS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = digits_spec(epochs=20, certification=None)
    trained, certified = local.submit([spec, certify_again(spec, spec.run_id, Certification(n=200, every=30))])
    until(lambda: certified.state()["state"] in ("finished", "failed"))
    assert certified.state()["state"] == "finished"
    assert certified.weights() == trained.weights()


def _gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_job_is_cancelled_from_its_first_moment(home, new):
    """The state says `running` before the job's interpreter has started."""
    run = local.submit([new(0).spec])[0]
    until(lambda: run.state()["state"] == "running")
    state = run.state()
    os.kill(state["pid"], signal.SIGSTOP)  # wherever it is in its start
    local.cancel(run)
    assert run.state()["state"] == "cancelled"
    until(lambda: _gone(state["pid"]))
    assert run.count() == (0, 0)


def test_a_hundred_runs_wait_without_a_hundred_processes(home, new):
    runs = local.submit([new(seed).spec for seed in range(100)])
    until(lambda: runs[0].state()["state"] == "running")
    assert order() == [run.run_id for run in runs[1:]]
    assert len(_processes(str(home))) <= 2  # a worker and its job
    for run in reversed(runs):
        local.cancel(run)


def _processes(home):
    """Of this home's queue."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            ours = f"CERTSCOPE_HOME={home}\0".encode() in place.read_bytes()
            if ours and b"backend" in place.with_name("cmdline").read_bytes():
                found.append(place)
        except OSError:
            continue
    return found


@pytest.fixture
def small_disk(home):
    """`runs` on a file system of 60 MB. Where one cannot be mounted: a failure in CI, else a skip that says so."""
    runs_root().mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "none", str(runs_root())]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("only root can mount a small disk")
    yield runs_root()
    subprocess.run(["umount", "-l", str(runs_root())], check=True)


def fill(file):
    with file.open("wb") as out:
        while True:
            out.write(bytes(2**16))
            out.flush()


def append_for_ever(run):
    while True:
        run.append(ROW)


def test_a_full_disk_keeps_the_queue_waiting(small_disk, new):
    runs = [new(seed) for seed in range(2)]
    queue.enqueue(runs_root(), runs)
    (small_disk / "filler").write_bytes(bytes(20 * 2**20))
    local.start_worker()
    until(lambda: "disk full" in (small_disk / journal.NAME).read_text())
    assert order() == [run.run_id for run in runs]
    (small_disk / "filler").unlink()
    local.start_worker()
    until(lambda: runs[0].state()["state"] == "running")
    for run in reversed(runs):
        local.cancel(run)


def test_a_disk_that_fills_up_in_mid_run_costs_the_row_in_flight(small_disk, new):
    run = new(0)
    filler = small_disk / "filler"
    with run.held():
        run.set_state("running", **process.identity(), queue=True)
        for idx in range(0, 100, 20):
            run.append(Certificate(idx, *[getattr(ROW, name) for name in list(ROW.__annotations__)[1:]]))
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        written = run.certificates()
        with pytest.raises(OSError, match=r"No space left on device: '.*certificates\.tsv'"):
            append_for_ever(run)
        kept = run.certificates()
        assert kept[: len(written)] == written
        with pytest.raises(OSError, match=r"No space left on device: '.*state\.json'"):
            run.set_state("failed", error="x" * 5000)
    assert run.state()["state"] == "interrupted"
    assert not list(run.path.glob(".aside-*"))
    filler.unlink()
    assert run.resume_point(0) == {c.idx for c in kept}
    run.append(ROW)
    assert run.certificates() == [*kept, ROW]


def test_the_workers_log_is_bounded(home, monkeypatch):
    runs_root().mkdir(parents=True)
    log = runs_root() / journal.NAME
    log.write_bytes(b"x" * (journal.MOST_BYTES + 1))
    journal.turn_over(log)
    assert not log.exists()
    assert log.with_name(f"{journal.NAME}.1").stat().st_size == journal.MOST_BYTES + 1
