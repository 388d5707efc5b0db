"""Which process a state speaks of: a pid alone is given again to another one, and means nothing after a restart."""

import os
import platform
from functools import lru_cache
from pathlib import Path


def identity(pid: int | None = None) -> dict:
    """A process of this machine (default: this one) as it is written into state.json."""
    pid = pid or os.getpid()
    return {"pid": pid, "host": platform.node(), "boot": boot_id(), "started": _started(pid)}


def is_here(state: dict) -> bool:
    """Whether a state was written on this machine, maybe under another name: a container's changes with every start."""
    return state.get("host") == platform.node() or (boot_id() is not None and state.get("boot") == boot_id())


def is_alive(state: dict) -> bool:
    """Whether the process that a state of this machine names is there still, and is not another one of its number."""
    pid = state.get("pid")
    if type(pid) is not int or pid < 1 or state.get("boot", boot_id()) != boot_id():
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return state.get("started", _started(pid)) == _started(pid)


@lru_cache(maxsize=1)
def boot_id() -> str | None:
    """Differs after every restart of the machine; None where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """When a process began, in ticks since the machine started: the wall clock has no part in it."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):
        return None
