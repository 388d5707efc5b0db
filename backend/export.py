"""Results for elsewhere: tables as papers print them, CSV and Parquet, Cohen's logs, run folders, figures of published runs."""

import gzip
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from backend.certification.confidence import ceiling
from backend.datasets import find_dataset
from backend.files import write_aside
from backend.reproduction_report import report
from backend.run import Run
from backend.spec import WHOLE, Certification
from backend.statistics import certified_radii, chances_of_counts, counts_of_radii, early_stop
from backend.store import queries
from backend.training.methods import METHODS, place

SETTINGS = [*queries.SETTINGS, "architecture"]  # equal within a table
PER_UNIT = 50  # radii of a figure's curve in [0, 1)
PACKED = (".bz2", ".xz", ".zip", ".zst", ".7z")  # a name that would promise what is not written
FEWER = 10_000  # samples that published runs are shown at as well


class ExportError(ValueError):
    """What cannot be exported as asked; the message says what to choose."""


def export(kind: str, run_ids: Sequence[str], out: Path, radii: Sequence[float]) -> list[Path]:
    """Write the runs of the store as one of FILES, whole, or into a folder as one of FOLDERS; returns what was written.

    A file whose name ends with .gz is packed. Raises ExportError where nothing was chosen, or the runs are not of the kind's sort.
    """
    runs = queries.runs()
    runs = runs[runs.images.notna() & runs.run_id.isin(run_ids)]
    if runs.empty:
        raise ExportError("no certified run of the store was chosen: `python -m backend runs` lists them")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind in FOLDERS:
        return FOLDERS[kind](runs, out)
    if out.suffix in PACKED:
        raise ExportError(f"{out.name} would not be packed: of packed files .gz alone is written")
    content = FILES[kind](runs, radii)
    if out.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    if out.exists() and not out.is_file():  # a pipe, a terminal
        out.write_bytes(content)
    else:
        new = not out.exists()
        out.touch()  # a new file has the permissions that its maker gives; another keeps its own
        try:
            write_aside(out.resolve(), content, out.stat().st_mode & 0o777)
        except BaseException:
            if new:
                out.unlink()
            raise
    return [out]


def _csv(runs: pd.DataFrame, _) -> bytes:
    return queries.measured(runs).drop(columns="folder").to_csv(index=False).encode()


def _parquet(runs: pd.DataFrame, _) -> bytes:
    """Every certificate, with what its run is."""
    return queries.parquet(runs.run_id)


def _logs(runs: pd.DataFrame, out: Path) -> list[Path]:
    """A file a run in Cohen's format, idx label predict radius correct time, and mapping.json: what `import` needs beside them."""
    if (others := runs[runs["mode"] != "fixed"]).shape[0]:
        raise ExportError(
            f"logs are of fixed n, and {others.run_id.iloc[0]} is {others['mode'].iloc[0]}: choose with --mode fixed"
        )
    out.mkdir(exist_ok=True)
    written, mapping = [], {}
    for run in runs.itertuples():
        rows = Run(Path(run.folder)).certificates()
        if len(rows) != run.images:
            raise ExportError(
                f"{run.run_id} has {len(rows)} rows in {run.folder}, and {run.images} in the store: publish anew"
            )
        columns = ("idx", "label", "predict", "radius", "correct", "time")
        ordered = sorted(rows, key=lambda row: row.idx)
        lines = ["\t".join(columns), *("\t".join(str(getattr(row, c)) for c in columns) for row in ordered)]
        written.append(out / f"{run.run_id}.tsv")
        written[-1].write_text("\n".join(lines) + "\n")
        names = ("dataset", "architecture", "method", "sigma", "seed", "alpha", "recipe", "epochs")
        facts = {name: getattr(run, name) for name in names} | {"n": int(run.n), "n0": int(run.n0)}
        if not run.epochs:  # trained elsewhere
            facts.pop("epochs")
        facts["recipe"] = re.sub(r"[^a-z0-9_]+", "_", run.recipe)  # a word, also where it says in what it departs
        facts["digits"] = WHOLE if pd.isna(run.radius_digits) else int(run.radius_digits)
        mapping[written[-1].name] = json.loads(run.hyper) | facts
    (out / "mapping.json").write_text(json.dumps(mapping, indent=1) + "\n")
    return [*written, out / "mapping.json"]


def _folders(runs: pd.DataFrame, out: Path) -> list[Path]:
    """Run folders as they are complete elsewhere, ready for another machine's `runs/`."""
    if gone := [run.run_id for run in runs.itertuples() if not Run(Path(run.folder)).spec_file.exists()]:
        raise ExportError(
            f"the folders of {', '.join(gone)} are gone: `python -m backend publish` brings the store up to date"
        )
    written = [out / run_id for run_id in runs.run_id]
    for there, folder in zip(map(Run, written), runs.folder, strict=True):
        if there.path.resolve() == Path(folder).resolve():  # maybe by a link
            raise ExportError(f"{out} is where these runs lie: export them to another folder")
        if there.spec_file.exists() and there.state()["state"] != "finished":
            raise ExportError(f"{there.path} is a run that is not finished: export to another folder")
    for folder, copy in zip(runs.folder, written, strict=True):
        copy.mkdir(parents=True, exist_ok=True)
        run, there = Run(Path(folder)), Run(copy)
        while old := there.portable():  # plain and packed certificates may be of two trainings
            for file in old:
                file.unlink()
        for file in sorted(run.portable(), key=run.state_file.__eq__):  # that it is finished comes last
            shutil.copy(file, copy)
    return written


def _markdown(runs: pd.DataFrame, radii: Sequence[float]) -> bytes:
    head, rows, note = _table(runs, radii)
    cells = [[f"**{text}**" if best else text for text, best in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]
    return ("\n".join([*lines, "", note]) + "\n").encode()


def _latex(runs: pd.DataFrame, radii: Sequence[float]) -> bytes:
    head, rows, note = _table(runs, radii)
    math = {
        "σ": r"$\sigma$",
        "λ": r"$\lambda$",
        "±": r"$\pm$",
        "α": r"$\alpha$",
        "%": r"\%",
        "≥": r"$\ge$",
        "_": r"\_",
        "&": r"\&",
    }

    def tex(text: str) -> str:
        return "".join(math.get(letter, letter) for letter in text)

    body = [
        " & ".join(rf"\textbf{{{tex(text)}}}" if best else tex(text) for text, best in row) + r" \\" for row in rows
    ]
    lines = [
        rf"% {note}", r"\begin{tabular}{ll" + "r" * (len(head) - 2) + "}", r"\toprule",
        " & ".join(map(tex, head)) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    return ("\n".join(lines) + "\n").encode()


def _table(runs: pd.DataFrame, radii: Sequence[float]) -> tuple[list[str], list[list[tuple[str, bool]]], str]:
    """Header, rows of (text, best at this σ), and a note: one row a group of seeds, ACR and certified accuracy at radii."""
    differing = [name for name in SETTINGS if runs[name].nunique() > 1]
    if differing:
        values = "; ".join(f"{name}: {', '.join(map(str, runs[name].unique()))}" for name in differing)
        raise ExportError(
            f"one table holds runs that may be compared, and these differ in {values}: choose with the filters"
        )
    if early := early_stop(runs["mode"].iloc[0]):
        raise ExportError(f"a table holds ACR, and accuracy at several radii. {early} Choose with --mode")
    if runs.images.iloc[0] < 2:
        raise ExportError("a table says what is told apart, and of one image nothing is")
    groups = queries.over_seeds(runs.run_id)
    groups["place"] = groups.method.map(place)
    text, several = [], (groups.seeds > 1).any()
    seeds = dict(zip(runs.run_id, runs.seed, strict=True))
    for sigma, there in groups.sort_values(["sigma", "place", "method", "lam"]).groupby("sigma"):
        values = [_values(runs, ids, radii) for ids in there.run_ids]
        for group, row, bold in zip(
            there.itertuples(), values, _leading(list(there.run_ids), values, radii, seeds), strict=True
        ):
            cells = [_mean(row[0], "{:.4f}"), *(_mean(100 * share, "{:.1f}") for share in row[1:])]
            text.append([(f"{sigma:g}", False), (_label(group, groups), False), *zip(cells, bold, strict=True)])
    one = runs.iloc[0]
    head = ["σ", "method", "ACR", *(f"{r:g}" for r in radii)]
    note = (
        f"{one.dataset}, {one.architecture}; {queries.terms(one)}. Certified accuracy at r in %. Bold: the best at its σ, and what "
        "is not told apart from it, image by image, at equal seeds and 5 % (accuracy: McNemar's test, of seeds Student's and signs flipped; ACR: Student's). "
        + ("± is the standard deviation over seeds. " if several else "One seed a row. ")
        + ("Radii of imported logs have three digits. " if (runs.radius_digits < WHOLE).any() else "")
        + "Made with Certscope."
    )
    return head, text, note


def _values(runs: pd.DataFrame, run_ids: Sequence[str], radii: Sequence[float]) -> list[np.ndarray]:
    """A group's columns, a value a seed in each, in any order: ACR, and certified accuracy at the radii."""
    acr = runs.acr[runs.run_id.isin(run_ids)]
    return [acr.to_numpy(), *(queries.accuracy_at(r, run_ids).certified_accuracy.to_numpy() for r in radii)]


def _leading(
    groups: Sequence[Sequence[str]], values: list[list[np.ndarray]], radii: Sequence[float], seeds: dict[str, int]
) -> np.ndarray:
    """Of groups × columns, which is the best of its column or, image by image, not told apart from it; none where all are 0."""
    means = np.array([[one.mean() for one in row] for row in values])
    bold = (means == means.max(0)) & (means > 0)
    for column, best in enumerate(means.argmax(0)):
        for i in np.flatnonzero(means[:, column] < means[best, column]):
            p = queries.paired(*queries.at_equal_seeds(groups[best], groups[i], seeds), (0.0, *radii)[column])
            bold[i, column] = (p.accuracy_told if column else p.acr_told) == 0
    return bold


def _label(group, groups: pd.DataFrame) -> str:
    """The method, λ, every other hyper-parameter or setting in which groups of equal method, σ and λ differ; the recipe of any if there are several."""
    name = METHODS[group.method].title if group.method in METHODS else group.method
    words = [name] + ([f"λ = {group.lam:g}"] if pd.notna(group.lam) else [])
    alike = groups[(groups.method == group.method) & (groups.sigma == group.sigma)]
    alike = alike[alike.lam.isna() if pd.isna(group.lam) else alike.lam == group.lam]
    others = [json.loads(h) for h in alike.hyper]
    words += [f"{k} = {v}" for k, v in json.loads(group.hyper).items() if any(o.get(k) != v for o in others)]
    words += [
        getattr(group, n) for n in ("source", "train_precision", "weights_dtype", "precision") if alike[n].nunique() > 1
    ]
    words += [group.recipe] if groups.recipe.nunique() > 1 else []
    words += ["training collapsed"] if group.missing_classes > 0 else []
    words += [f"{group.epochs} epochs"] if alike[alike.recipe == group.recipe].epochs.nunique() > 1 else []
    return ", ".join(words)


def _mean(values: np.ndarray, form: str) -> str:
    mean = form.format(values.mean())
    return f"{mean} ± {form.format(values.std(ddof=1))}" if len(values) > 1 else mean


def _figures(runs: pd.DataFrame, _) -> bytes:
    """Of each run ACR, certified accuracy at 0, abstention and curve, as it is and, on the data set's usual images, as n = 10 000 of its
    samples show it on average.
    """
    if (others := runs[runs["mode"] != "fixed"]).shape[0]:
        raise ExportError(
            f"figures are of fixed n, and {others.run_id.iloc[0]} is {others['mode'].iloc[0]}: choose with --mode fixed"
        )
    records = []
    for run in runs.itertuples():
        rows = queries.certificates(run.run_id)
        every = find_dataset(run.dataset).every
        usual = Certification(every=every).image_set
        votes = rows.top_count.to_numpy()
        if pd.notna(run.radius_digits):
            votes = counts_of_radii(rows.radius.to_numpy(), int(run.n), run.sigma, run.alpha, int(run.radius_digits))
        right = (rows.predict == rows.label).to_numpy()
        answered = (rows.predict != -1).to_numpy()
        records.append(_figure(run, False, rows.radius.to_numpy(), right, answered, 0.0))
        if run.n > FEWER and set(rows.idx[rows.idx % every == 0]) == set(
            Certification(every=every).chosen(find_dataset(run.dataset).test_images)
        ):
            radius = certified_radii(counts := np.arange(FEWER + 1), FEWER, run.sigma, run.alpha)
            counts, radius = counts[radius > 0], radius[radius > 0]
            keep = (rows.idx % every == 0).to_numpy()
            chances = chances_of_counts(votes[keep], int(run.n), FEWER, counts)
            variances = np.maximum(chances @ radius**2 - (chances @ radius) ** 2, 0.0)  # of each image's radius
            expected = (right[keep] @ chances, answered[keep] @ chances, np.sqrt(variances @ right[keep]) / keep.sum())
            records.append(_figure(run._replace(images=keep.sum(), n=FEWER, image_set=usual), True, radius, *expected))
    return pd.DataFrame(records).to_csv(sep="\t", index=False).encode()


def _figure(
    run, recomputed: bool, radius: np.ndarray, right: np.ndarray, answered: np.ndarray, sampling_sd: float
) -> dict:
    """A record. right and answered (K,): how many images, or parts of one, have each of the radii (K,). sampling_sd: of ACR."""
    n, images = int(run.n), int(run.images)
    most = ceiling(run.sigma, n, run.alpha)
    grid = np.arange(1 + int(np.ceil(most * PER_UNIT))) / PER_UNIT
    reached = [right[radius >= r].sum() if r <= most else 0 for r in grid]
    return {
        **{name: getattr(run, name) for name in ("dataset", "architecture", "method", "sigma", "lam", "hyper", "seed")},
        "mode": "fixed", "n": n, "n0": int(run.n0), "alpha": run.alpha, "image_set": run.image_set, "images": images, "recomputed": recomputed,
        "acr": round(float(right @ radius) / images, 6), "acr_sampling_sd": round(float(sampling_sd), 6),
        "certified_accuracy_0": round(float(right.sum()) / images, 6),
        "abstention": round(1 - float(answered.sum()) / images, 6), "per_unit": PER_UNIT,
        "curve": " ".join(f"{float(count):.2f}".rstrip("0").rstrip(".") for count in reached),
    }  # fmt: skip


def _reproduction(runs: pd.DataFrame, _) -> bytes:
    """The store's runs beside the published values of one data set."""
    if (names := runs.dataset.unique()).size > 1:
        raise ExportError(f"a reproduction is of one data set: choose with --dataset one of {', '.join(names)}")
    return report(runs.dataset.iloc[0]).encode()


FILES = {
    "csv": _csv, "parquet": _parquet, "markdown": _markdown, "latex": _latex, "figures": _figures,
    "reproduction": _reproduction,
}  # fmt: skip
FOLDERS = {"logs": _logs, "folders": _folders}
