"""What precomputed/ holds: finished runs of the queue, and the weights of one network a cell."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from backend.home import PRECOMPUTED
from backend.precompute import Part, done
from backend.run import Run, all_runs
from backend.spec import RunSpec, SpecError

MOST_BYTES = 28 * 2**20  # of precomputed/


def ship(parts: list[Part]) -> Iterator[str]:
    """Copy finished runs of the queue to precomputed/, weights where they travel, in the place of those of a shorter training; yields their ids.

    Raises SpecError before precomputed/ would pass its 28 MB.
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
            held = _size(file for file in PRECOMPUTED.rglob("*") if file.is_file()) - _size(shorter)
            if held + _size(files) > MOST_BYTES:
                raise SpecError(
                    f"precomputed/ holds {held / 2**20:.1f} MB of at most 28; {run.run_id} would add {_size(files) / 2**20:.1f}"
                )
            _copy(files, shipped.path)
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


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _copy(files: list[Path], folder: Path) -> None:
    """Put files into a folder, maybe a new one; cut short, it leaves what was there, or nothing, which the next call makes anew."""
    aside, before = (folder.with_name(f".{word}-{folder.name}") for word in ("aside", "before"))
    if before.exists() and not folder.exists():
        before.rename(folder)
    for rest in (aside, before):
        shutil.rmtree(rest, ignore_errors=True)
    if folder.exists():
        shutil.copytree(folder, aside)
    aside.mkdir(exist_ok=True)
    for file in files:
        shutil.copy2(file, aside)
    if folder.exists():
        folder.rename(before)
    aside.rename(folder)
    shutil.rmtree(before, ignore_errors=True)
