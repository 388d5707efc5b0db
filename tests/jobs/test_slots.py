import subprocess

import pytest

from backend.jobs import slots as module
from backend.jobs.slots import Slot, gpus, slots
from backend.spec import SpecError


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of nine cores without a GPU."""
    for name in ("CUDA_VISIBLE_DEVICES", "CERTSCOPE_SLOTS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "_listed_gpus", lambda: 0)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: range(9), raising=False)
    monkeypatch.setattr(module.Path, "glob", lambda *_: [])


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("2, 3", ["2", "3"]),
        ("1,-1,2", ["1"]),
        ("GPU-5a,GPU-7b", ["GPU-5a", "GPU-7b"]),
    ],
)
def test_visible_gpus_are_those_that_cuda_would_take(monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == found


def test_a_slot_a_gpu(monkeypatch):
    monkeypatch.setattr(module, "_listed_gpus", lambda: 8)
    assert [slot.gpu for slot in slots()] == list("01234567")
    assert len({slot.name for slot in slots()}) == 8
    assert slots()[5].environment()["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [slot.environment()["CUDA_VISIBLE_DEVICES"] for slot in slots()] == ["4", "6"]
    monkeypatch.setenv("CERTSCOPE_SLOTS", "4")  # two jobs a GPU
    assert [slot.gpu for slot in slots()] == ["4", "6", "4", "6"]
    assert len({slot.name for slot in slots()}) == 4


def test_nvidia_smi_is_read(monkeypatch):
    monkeypatch.undo()
    lines = (
        "GPU 0: NVIDIA H100 (UUID: GPU-a)\n  MIG 1g.10gb Device 0: (UUID: MIG-b)\nGPU 1: NVIDIA H100 (UUID: GPU-c)\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, lines))
    assert module._listed_gpus() == 2


def test_cpu_slots_share_the_threads(monkeypatch):
    assert slots() == [Slot("cpu-0", None, 8)]
    monkeypatch.setenv("CERTSCOPE_SLOTS", "3")
    assert [slot.threads for slot in slots()] == [2, 2, 2]
    assert "CUDA_VISIBLE_DEVICES" not in slots()[0].environment()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's counts
    assert slots()[0].environment()["OMP_NUM_THREADS"] == "5"


def test_a_job_that_starts_workers_means_all_gpus(monkeypatch):
    """Its own worker has died; the ones that it starts are for the machine, not for the one GPU that it sees."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setenv("CERTSCOPE_SLOTS", "4")
    before = slots()
    for name, value in before[1].environment().items():
        monkeypatch.setenv(name, value)
    assert module.os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    assert [(slot.name, slot.gpu) for slot in slots()] == [(slot.name, slot.gpu) for slot in before]


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", "²", "9999"])
def test_a_number_of_slots_that_is_none(monkeypatch, wrong):
    monkeypatch.setenv("CERTSCOPE_SLOTS", wrong)
    with pytest.raises(SpecError, match=f"CERTSCOPE_SLOTS must be a whole number from 1 to 1024, not '{wrong}'"):
        slots()


def test_a_slot_is_held_once(tmp_path):
    slot = slots()[0]
    with slot.held(tmp_path) as lock:
        assert lock is not None
        with slot.held(tmp_path) as second:
            assert second is None
    with slot.held(tmp_path) as third:
        assert third is not None
