"""Files that nobody needs any more: what killed processes left on their way. Nothing that a live process holds."""

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.files import ASIDE
from backend.home import home, imported_root, runs_root, snapshot_path
from backend.run import DELETED, RunError, all_runs
from backend.transport import UNPACKED

OLD = 600  # seconds: what is younger may be in a process's hands where no lock tells


@dataclass(frozen=True)
class Leftover:
    """A file or a folder, and why nobody needs it."""

    path: Path
    reason: str

    @property
    def size(self) -> int:
        """Bytes, with all that a folder holds."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.lstat().st_size for file in files if not file.is_dir())

    def remove(self) -> None:
        """Delete it. Raises OSError where that is not allowed."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def collect(delete: bool = False) -> Iterator[tuple[Leftover, int]]:
    """The leftovers under CERTSCOPE_HOME with their sizes in bytes; each is deleted before it is given where `delete` says so.

    Where a lock says who holds a file, it is taken meanwhile; what is held by another process is not given.
    """
    for root in (runs_root(), imported_root()):
        for leftover in _in_root(root):
            yield _taken(leftover, delete)
        for run in all_runs(root):
            if run.leftovers():
                with contextlib.ExitStack() as held:
                    try:
                        held.enter_context(run.held(patience=0))
                    except (RunError, OSError):  # of another process, or of another user
                        continue
                    for path, reason in run.leftovers():
                        yield _taken(Leftover(path, reason), delete)
    with _publisher_lock() as free:
        for path in home().glob(f".{snapshot_path().name}.next*") if free else ():
            yield _taken(Leftover(path, "a publisher was killed"), delete)


def _taken(leftover: Leftover, delete: bool) -> tuple[Leftover, int]:
    size = leftover.size
    if delete:
        leftover.remove()
    return leftover, size


def _in_root(root: Path) -> Iterator[Leftover]:
    for path in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read
            if reason := _reason(path):
                yield Leftover(path, reason)


def _reason(path: Path) -> str | None:
    """Why nobody needs what lies in a root; None where somebody may."""
    if time.time() - path.lstat().st_mtime < OLD or path.is_symlink():
        return None
    if path.name.startswith(DELETED):
        return "deleting this run was cut short"
    if path.name.startswith(UNPACKED):
        return "unpacking was cut short"
    if path.is_dir() and not path.name.startswith(".") and all(f.name.startswith(ASIDE) for f in path.iterdir()):
        return "making this run was cut short"
    return None


@contextlib.contextmanager
def _publisher_lock() -> Iterator[bool]:
    with contextlib.ExitStack() as held:
        try:
            lock = held.enter_context(open(home() / ".publish.lock"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:  # there was no publisher yet, or there is one now
            free = False
        yield free
