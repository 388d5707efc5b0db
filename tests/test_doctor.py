import shutil
import socket

import pytest

from backend import doctor
from backend.cli import main
from backend.doctor import Finding, examine
from backend.home import PRECOMPUTED, runs_root, snapshot_path
from backend.jobs import queue
from backend.run import Run


def said(level):
    return [finding.says + ". " + finding.do for finding in examine() if finding.level == level]


def test_a_machine_that_is_well(published, monkeypatch, capsys):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 10**12))
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok ", "note ")) for line in lines)
    shipped = len(list(PRECOMPUTED.glob("*/spec.json")))
    assert any(f"the store has {shipped} runs, and is" in line for line in lines)
    assert any("digits" in line for line in lines)
    assert any("torch 2." in line for line in lines)


def test_a_home_that_is_not_made_yet_is_well(home):
    assert not home.exists()
    assert said("problem") == []
    assert any("there is no store yet. python -m backend publish" in line for line in said("note"))
    assert not home.exists()


def test_what_is_amiss_is_named_with_what_to_do(home, digits_spec, monkeypatch, capsys):
    runs = [Run.create(runs_root(), digits_spec(seed=seed)) for seed in range(5)]
    queue.enqueue(runs_root(), runs[:1])
    runs[1].set_state("failed", error="x")
    runs[2].state_file.write_text("{")
    runs[3].set_state("finished")
    snapshot_path().write_bytes(b"no store")
    monkeypatch.setattr("backend.overview.STARTS", -1)  # that it waits is not of this moment
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 10**8))
    problems, notes = "\n".join(said("problem")), "\n".join(said("note"))
    assert f"{runs[2].path}" in problems
    assert "0.1 GB free" in problems
    assert "gc" in problems
    assert f"interrupted: {runs[4].run_id}. python -m backend queue --resume all" in notes
    assert f"failed: {runs[1].run_id}" in notes
    assert "1 runs wait, and none runs. python -m backend worker" in notes
    assert main(["doctor"]) == 1
    assert "Traceback" not in capsys.readouterr().out


def test_a_home_that_is_a_file_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CERTSCOPE_HOME", str(tmp_path / "file" / "home"))
    assert f"{tmp_path / 'file'} is no folder. Set CERTSCOPE_HOME" in "\n".join(said("problem"))


def test_a_store_that_cannot_be_read_and_a_port_that_is_taken(home, monkeypatch):
    home.mkdir()
    snapshot_path().write_bytes(b"no store")
    assert any("store" in line for line in said("problem"))
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        monkeypatch.setattr(doctor, "PORT", busy.getsockname()[1])
        assert any(f"port {doctor.PORT} is in use" in line for line in said("note"))


def test_packages_too_old_or_missing(home, monkeypatch):
    versions = {"torch": "2.3.1+cpu", "duckdb": "0.1"}
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: versions.get(name) or real(name))
    assert any("torch 2.3.1+cpu. pip install -r backend/requirements.txt" in line for line in said("problem"))
    assert any("duckdb 0.1. pip install -r requirements.txt" in line for line in said("note"))


def test_gpus_that_torch_does_not_see(home, monkeypatch):
    monkeypatch.setattr(doctor, "gpus", lambda: ["0", "1"])
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    assert any("2 GPUs are here, but torch 2" in line for line in said("problem"))


def test_a_check_that_fails_is_a_problem_itself(home, monkeypatch):
    def broken():
        raise OSError("no")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken,))
    assert list(examine()) == [Finding("problem", "broken could not be looked at: OSError: no")]
    assert queue.waiting(runs_root()) == []
