"""The list of runs, read again only where it changed, and how far one is."""

import os
import platform
from pathlib import Path

from backend.home import runs_root
from backend.overview import counts, listing, progress, tail, took
from backend.rows import Certificate, Epoch
from backend.run import Run


def made(digits_spec, seed, state, **facts):
    run = Run.create(runs_root(), digits_spec(seed=seed))
    run.set_state(state, **facts)
    return run


def test_running_then_waiting_then_the_latest(home, digits_spec):
    seeds = {"first": 5, "second": 1, "done": 2, "later": 3, "runs": 4}
    runs = {}
    for name, state in (
        ("done", "finished"),
        ("first", "queued"),
        ("second", "queued"),
        ("later", "failed"),
        ("runs", "running"),
    ):
        runs[name] = made(digits_spec, seeds[name], state, host="elsewhere")
        os.utime(runs[name].state_file, ns=(len(runs), len(runs)))
    (runs_root() / ".deleted-one").mkdir()
    (runs_root() / "no run").mkdir()
    order = [one.run.run_id for one in listing(runs_root())]
    assert order == [runs[name].run_id for name in ("runs", "first", "second", "later", "done")]
    assert counts(listing(runs_root())) == {"queued": 2, "running": 1, "finished": 1, "failed": 1}
    runs["second"].set_state("queued", priority=1, ticket=9)
    assert listing(runs_root())[1].run.run_id == runs["second"].run_id  # as the queue takes them
    assert listing(home / "nothing") == []


def test_a_file_is_read_again_only_where_it_changed(home, digits_spec, monkeypatch):
    runs = [made(digits_spec, seed, "finished") for seed in range(3)]
    listing(runs_root())
    read = []
    whole = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *rest, **more: read.append(path) or whole(path, *rest, **more))
    runs[1].set_state("queued")
    assert counts(listing(runs_root())) == {"queued": 1, "finished": 2}
    assert set(read) == {runs[1].state_file, runs[1].spec_file}


def test_a_process_that_is_gone_and_a_damaged_folder_are_told(home, digits_spec):
    gone = made(digits_spec, 0, "running", host=platform.node(), pid=1)
    damaged = made(digits_spec, 1, "queued")
    damaged.state_file.write_text("{")
    for _ in range(2):
        states = {one.run.run_id: one.state for one in listing(runs_root())}
        assert states[gone.run_id]["state"] == "interrupted"
        assert states[damaged.run_id]["state"] == "damaged"
        assert "is not JSON" in states[damaged.run_id]["error"]
    whole = gone.spec_file.read_text()
    for text, name in (("{}", "damaged"), (whole, "interrupted")):  # mended, while state.json stays as it is
        gone.spec_file.write_text(text)
        assert {one.run.run_id: one.name for one in listing(runs_root())}[gone.run_id] == name
    with gone.held():  # resumed: the file is the same
        assert {one.run.run_id: one.name for one in listing(runs_root())}[gone.run_id] == "running"


def test_progress_comes_with_rates(home, digits_spec):
    run = made(digits_spec, 0, "running", host="elsewhere")
    so_far = progress(run)
    assert (so_far.epochs, so_far.of_epochs, so_far.images, so_far.of_images) == (0, 2, 0, 15)
    assert so_far.seconds_left is so_far.loss is None
    run.append(Epoch(1, 4.0, 300.0, 0.1, 0.7, 0.5, {"cross_entropy": 0.7}))
    so_far = progress(run)
    assert (so_far.epochs, so_far.loss, so_far.images_per_second, so_far.seconds_left) == (1, 0.7, 300, 4)
    run.append(Epoch(2, 4.0, 300.0, 0.1, 0.6, 0.5, {"cross_entropy": 0.6}, missing_classes=3))
    for i in range(3):
        run.append(Certificate(30 * i, 0, 0, 0.5, 1, 0.5, 200, 200, 20, 0.9))
    so_far = progress(run)
    assert so_far.samples_per_second == 220 / 0.5
    assert took(run) == (8.0, 1.5)
    assert so_far.seconds_left == 12 * 0.5
    assert so_far.missing_classes == 3


def test_the_tail_has_whole_lines(tmp_path):
    file = tmp_path / "log"
    assert tail(file) == []
    file.write_text("one\ntwo\nthr")
    assert tail(file) == ["one", "two"]
    link = tmp_path / "link"
    link.symlink_to(file)
    assert tail(link) == []
    file.write_text("".join(f"{i:09d}\n" for i in range(10_000)))
    assert tail(file)[-1] == "000009999"
    assert all(len(line) == 9 for line in tail(file))
