"""Delete runs so that the results store forgets them, too."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from backend.jobs import local
from backend.overview import listing
from backend.run import Run, RunError


@dataclass(frozen=True)
class Folder:
    """What goes with a run: `files` of `size` bytes in all, and the runs of the queue that want its weights and have no copy of them yet."""

    files: int
    size: int
    needed_by: tuple[str, ...]


def look(run: Run) -> Folder:
    """What deleting a run would take. Raises OSError where its folder cannot be read."""
    sizes = [file.stat().st_size for file in run.path.iterdir() if file.is_file()]
    needed_by = []
    for one in listing(run.path.parent):
        if one.name in ("queued", "running"):
            with contextlib.suppress(RunError, OSError):
                if one.run.spec.weights_of == run.run_id and not one.run.weights_file.exists():
                    needed_by.append(one.run.run_id)
    return Folder(len(sizes), sum(sizes), tuple(needed_by))


def forget(runs: Iterable[Run]) -> None:
    """Delete each, then publish. Raises RunError or OSError where one cannot be deleted; those before it are gone then."""
    from backend.store.publish import PublishError, publish  # here: this is for machines with the dashboard's packages

    try:
        for run in runs:
            local.delete(run)
    except (RunError, OSError):
        with contextlib.suppress(PublishError):  # what comes first is what is said
            publish()
        raise
    try:
        publish()
    except PublishError as error:
        raise RunError(f"the folders are deleted, but {error}") from error
