"""How long runs will take, from the finished ones of the store; nothing where none tells."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from math import log

import pandas as pd

from backend.home import runs_root
from backend.jobs.slots import gpus
from backend.overview import images_of, listing
from backend.spec import RunSpec
from backend.store import queries
from backend.store.snapshot import StoreError
from backend.training.methods import METHODS


@dataclass(frozen=True)
class Estimate:
    """seconds: of computing, one run after the other, without the start of each and without waiting; None where no
    finished run tells anything. missing: what is not in it. basis: what it rests on. Both in words.
    """

    seconds: float | None
    missing: tuple[str, ...]
    basis: tuple[str, ...]


def finished(specs: Iterable[RunSpec]) -> set[str]:
    """The ids of those that need no computing: finished on this machine, or in the store (shipped ones are there)."""
    try:
        known = queries.run_ids()
    except StoreError:
        known = set()
    known |= {one.run.run_id for one in listing(runs_root()) if one.name == "finished"}
    return known & {spec.run_id for spec in specs}


def estimate(specs: Sequence[RunSpec]) -> Estimate:
    """Of these runs together. An epoch takes what it took in runs of the same data set, network and method, with equal
    whole-number and word hyper-parameters (m, steps, …); a sample what it took the same network in the same precision, in the same mode where one tells; a mode that may
    stop early draws as many as in runs with its very settings, else n.
    Runs of this machine count first, then those of others, which is said; of a GPU's speed only runs on GPUs tell.
    """
    seconds, missing, basis, cpu = 0.0, {}, [], not gpus()
    try:
        tables = {place: _speeds(*place, cpu) for place in {(spec.dataset, spec.architecture) for spec in specs}}
    except StoreError:  # there is no store yet
        return Estimate(None, ("training", "certifying"), ())
    for name, tell, alike in (
        ("training", _training, _training_kind),
        ("certification", _certification, _certified_kind),
    ):
        groups: dict[tuple, list[RunSpec]] = {}
        for spec in specs:
            groups.setdefault(alike(spec), []).append(spec)
        used = []
        for group in groups.values():  # σ, λ and seed make no difference
            took, rows, what = tell(group[0], tables[group[0].dataset, group[0].architecture])
            seconds += took * len(group)
            missing |= {what: None} if what else {}
            used += [rows] if len(rows) and not what else []
        if used:
            basis.append(_words(name, pd.concat(used).drop_duplicates("run_id")))
    return Estimate(seconds if basis else None, tuple(missing), tuple(basis))


def _training_kind(spec: RunSpec) -> tuple:
    cost = _cost(spec.method, dict(spec.hyper))
    return spec.dataset, spec.architecture, spec.method, spec.weights_of, spec.recipe, tuple(cost.items())


def _certified_kind(spec: RunSpec) -> tuple:
    return spec.dataset, spec.architecture, spec.precision, spec.certification


def _speeds(dataset: str, architecture: str, cpu: bool) -> pd.DataFrame:
    """Those of runs that were computed on the kind of device that a job here would take."""
    table = queries.speeds(dataset, architecture)
    alike = [{part.startswith("cpu") for part in device.split(", ")} == {cpu} for device in table.device.fillna("cpu")]
    table = table[pd.Series(alike, index=table.index, dtype=bool)]
    return table.assign(own=table.folder.str.startswith(f"{runs_root()}/"))


def _training(spec: RunSpec, known: pd.DataFrame) -> tuple[float, pd.DataFrame, str]:
    """Seconds, the rows that tell them, and where there are none, what is missing."""
    if spec.weights_of is not None:
        return 0.0, known[:0], ""
    alike = known[known.epoch_seconds.notna() & (known.method == spec.method)]
    alike = alike[alike.train_precision == spec.recipe.precision]
    cost = _cost(spec.method, dict(spec.hyper))
    rows = _nearest([_cost(spec.method, json.loads(hyper)) == cost for hyper in alike.hyper], alike)
    if rows.empty:
        return 0.0, rows, f"training by {spec.method} with {spec.architecture} on {spec.dataset}"
    return float(rows.epoch_seconds.median()) * spec.recipe.epochs, rows, ""


def _certification(spec: RunSpec, known: pd.DataFrame) -> tuple[float, pd.DataFrame, str]:
    settings, images = spec.certification, images_of(spec)
    if settings is None:
        return 0.0, known[:0], ""
    sound = known["mode"].fillna("").str.endswith("float-sound")
    alike = known[
        known.samples_per_second.notna() & (known.precision == spec.precision) & (sound == settings.float_sound)
    ]
    rows = _nearest([True] * len(alike), alike)
    same = rows["mode"].str.split(",").str[0] == settings.mode  # modes that stop early are slower by the sample
    rows = rows[same] if same.any() else rows
    if rows.empty or images is None:
        return 0.0, rows, f"certifying with {spec.architecture} on {spec.dataset}"
    distance = rows.n.map(lambda n: abs(log(n / settings.n)))  # few samples an image are slower each
    rows = rows[distance == distance.min()]
    drawn = settings.n
    if settings.mode != "fixed" and len(same := rows[(rows["mode"] == settings.label) & (rows.n == settings.n)]):
        rows, drawn = same, float(same.samples.mean())
    return images * (drawn + settings.n0) / float(rows.samples_per_second.median()), rows, ""


def _nearest(wanted: list[bool], rows: pd.DataFrame) -> pd.DataFrame:
    """The wanted ones of this machine, else those of others."""
    rows = rows[pd.Series(wanted, index=rows.index, dtype=bool)]
    own = rows[rows.own]
    return own if len(own) else rows


def _cost(method: str, hyper: dict) -> dict:
    """The hyper-parameters that decide how much one epoch computes."""
    if method not in METHODS:
        return hyper
    counted = [f.name for f in fields(METHODS[method]) if type(f.default) is not float and not f.metadata["of_epochs"]]
    return {name: hyper.get(name) for name in counted}


def _words(part: str, rows: pd.DataFrame) -> str:
    rates = rows.epoch_seconds if part == "training" else rows.samples_per_second
    unit, digits = ("s an epoch", ".2g") if part == "training" else ("samples/s", ",.0f")
    low, high = f"{rates.min():{digits}}", f"{rates.max():{digits}}"
    where = (
        "of this machine"
        if rows.own.all()
        else "of other machines"
        if not rows.own.any()
        else "of this and other machines"
    )
    runs = f"{len(rows)} finished run{'s' if len(rows) > 1 else ''} {where} ({', '.join(sorted(set(rows.device.dropna())))})"
    return f"{part}: {runs}, {low if low == high else f'{low} to {high}'} {unit}"
