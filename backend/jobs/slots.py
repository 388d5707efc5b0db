"""Slots: how many jobs this machine runs at once, and on what. A page may ask; nothing here loads torch."""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.spec import SpecError

FOLDER = ".slots"
ALL_GPUS = "CERTSCOPE_GPUS"  # those of the machine that jobs may use: a job itself sees one of them, and may have to start workers for all


@dataclass(frozen=True)
class Slot:
    """One job at a time: on the GPU `gpu` as CUDA_VISIBLE_DEVICES names it, or on `threads` threads of the CPU."""

    name: str
    gpu: str | None
    threads: int
    all_gpus: tuple[str, ...] = ()

    @contextlib.contextmanager
    def held(self, root: Path) -> Iterator[int | None]:
        """Hold the slot: yields the lock's file descriptor, None where another process has it.

        Whoever inherits the descriptor holds the slot too; it is free when the last of them is gone, however it went.
        """
        folder = root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / self.name, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield file.fileno()

    def environment(self) -> dict[str, str]:
        """The environment of a job here. An OMP_NUM_THREADS of the user's counts."""
        own = {"CUDA_VISIBLE_DEVICES": self.gpu, ALL_GPUS: ",".join(self.all_gpus)} if self.gpu is not None else {}
        return {"OMP_NUM_THREADS": str(self.threads)} | os.environ | own


def slots() -> list[Slot]:
    """A slot a GPU, else one for the CPU; CERTSCOPE_SLOTS says another number. Raises SpecError where that is none.

    More slots than GPUs share them in turn. The CPU's threads are shared out, less one for the dashboard.
    """
    found = gpus()
    number = wanted_slots() or len(found) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, (cores - 1) // number)
    if not found:
        return [Slot(f"cpu-{i}", None, threads) for i in range(number)]
    return [
        Slot(f"gpu-{found[i % len(found)]}-{i // len(found)}", found[i % len(found)], threads, tuple(found))
        for i in range(number)
    ]


def wanted_slots() -> int | None:
    """CERTSCOPE_SLOTS; None where it is not set. Raises SpecError where it is no number of slots."""
    if not (wanted := os.environ.get("CERTSCOPE_SLOTS")):
        return None
    if not (wanted.isascii() and wanted.isdecimal() and 1 <= int(wanted) <= 1024):
        raise SpecError(f"CERTSCOPE_SLOTS must be a whole number from 1 to 1024, not {wanted!r}")
    return int(wanted)


def gpus() -> list[str]:
    """The NVIDIA GPUs that jobs may use, as CUDA_VISIBLE_DEVICES names them, which counts where it is set."""
    if (visible := os.environ.get(ALL_GPUS, os.environ.get("CUDA_VISIBLE_DEVICES"))) is not None:
        names = [name.strip() for name in visible.split(",")]
        wrong = next((i for i, name in enumerate(names) if name in ("", "-1") or "/" in name), len(names))
        return names[:wrong]  # CUDA, too, stops at the first that is none
    number = len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) or _listed_gpus()
    return [str(i) for i in range(number)]


def _listed_gpus() -> int:
    """What nvidia-smi lists; 0 where there is none."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())
