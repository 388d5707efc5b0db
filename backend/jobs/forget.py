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
    with contextlib.suppress(RunError):
        network = run.network
        for one in listing(run.path.parent):
            with contextlib.suppress(RunError):
                if one.run.run_id != run.run_id and one.run.network == network:
                    if one.run.weights_file.exists():  # from whom the others take them
                        return Folder(len(sizes), sum(sizes), ())
                    needed_by += [one.run.run_id] * (one.name in ("queued", "running"))
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
