"""What precomputed/ holds: finished runs of the queue, and the weights of one network a cell."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from backend.home import PRECOMPUTED
from backend.precompute import Part, done
from backend.run import Run, all_runs
from backend.spec import RunSpec, SpecError

MOST_BYTES = 28 * 2**20  # that precomputed/ takes of a disk
BLOCK = 4096  # bytes; what a disk gives to a file, or a folder, is a multiple of it


def ship(parts: list[Part]) -> Iterator[str]:
    """Copy finished runs of the queue to precomputed/, weights where they travel, in the place of those of a shorter training; yields their ids.

    Raises SpecError before precomputed/ would take more than 28 MB of a disk.
    """
    travel = with_weights(parts)
    for part in parts:
        for spec in part.specs:
            run, shipped = done(spec), Run(PRECOMPUTED / spec.run_id)
            if run is None:
                continue
            files = run.portable(weights=spec.run_id in travel)
            if shipped.path.exists():
                # Its weights may be missing; those of another training of the same spec are not its own.
                own = run.weights_sha256() == shipped.environment().get("weights_sha256")
                files = (
                    [run.weights_file] if own and spec.run_id in travel and not shipped.weights_file.exists() else []
                )
            if not files:
                continue
            shorter = _weights_of(_cell(spec)) if run.weights_file in files else []
            held = on_disk(PRECOMPUTED.rglob("*")) - on_disk(shorter)
            contents = dict(run.compact(file) for file in files)
            more = sum(blocks(len(content)) for content in contents.values()) + (0 if shipped.path.exists() else BLOCK)
            if held + more > MOST_BYTES:
                raise SpecError(
                    f"precomputed/ takes {held / 2**20:.1f} MB of at most 28 on a disk; {run.run_id} would add {more / 2**20:.2f}"
                )
            _put(contents, shipped.path)
            for file in shorter:
                file.unlink()
            yield run.run_id


def with_weights(parts: list[Part]) -> set[str]:
    """The finished runs whose weights travel: of every data set, method and σ that of the longest training, of seed 0, that has any."""
    chosen: dict[tuple, RunSpec] = {}
    for spec in (spec for part in parts if part.weights for spec in part.specs if spec.seed == 0):
        run, cell = done(spec), _cell(spec)
        if run is None or not run.weights_file.exists():
            continue
        if cell not in chosen or spec.recipe.epochs > chosen[cell].recipe.epochs:
            chosen[cell] = spec
    return {spec.run_id for spec in chosen.values()}


def _cell(spec: RunSpec) -> tuple:
    return spec.dataset, spec.method, spec.sigma


def _weights_of(cell: tuple) -> list[Path]:
    """The weights that ship for a cell."""
    return [run.weights_file for run in all_runs(PRECOMPUTED) if _cell(run.spec) == cell and run.weights_file.exists()]


def on_disk(paths: Iterable[Path]) -> int:
    """Bytes that files and folders take of a disk, a folder's own included."""
    return sum(BLOCK if path.is_dir() else blocks(path.stat().st_size) for path in paths)


def blocks(size: int) -> int:
    """Bytes that a disk gives to a file of that size."""
    return -(-size // BLOCK) * BLOCK


def _put(contents: dict[str, bytes], folder: Path) -> None:
    """Put files into a folder, maybe a new one; cut short, it leaves what was there, or nothing, which the next call makes anew."""
    aside, before = (folder.with_name(f".{word}-{folder.name}") for word in ("aside", "before"))
    if before.exists() and not folder.exists():
        before.rename(folder)
    for rest in (aside, before):
        shutil.rmtree(rest, ignore_errors=True)
    if folder.exists():
        shutil.copytree(folder, aside)
    aside.mkdir(exist_ok=True)
    for name, content in contents.items():
        (aside / name).write_bytes(content)
    if folder.exists():
        folder.rename(before)
    aside.rename(folder)
    shutil.rmtree(before, ignore_errors=True)
