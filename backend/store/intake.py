"""From a run folder to what the results store keeps of it; nothing that claims more than its counts support."""

import csv
import io
import json
import re
from math import floor, prod
from statistics import median

import numpy as np
import pandas as pd

from backend.certification.confidence import ROUNDING, ceiling, digits_error, lower_bounds, radii
from backend.certification.grid_noise import spending
from backend.datasets import DatasetError, find_dataset
from backend.plan import name_of_file
from backend.recipes import recipe_in_words
from backend.rows import ABSTAIN, Certificate
from backend.run import Run, RunError
from backend.spec import RunSpec

OFTEN = 20  # images of a class: with fewer, that it is not answered may be chance


def what_is_kept(run: Run) -> tuple[dict, pd.DataFrame]:
    """Columns of `runs` in schema.sql but for its id, folder and fingerprint, and the rows of certificates.tsv.

    Raises RunError for a folder that cannot be read or claims too much, and what a wrong type in it raises.
    """
    spec, environment = run.spec, run.environment()
    if spec.run_id != run.run_id:
        raise RunError(f"its spec is that of {spec.run_id}")
    if spec.source == "brought" and name_of_file(str(environment.get("weights_sha256"))) != spec.weights_of:
        raise RunError(f"its certificates are not of {spec.weights_of}")
    if spec.source == "published" and (run.weights_file.exists() or run.training_file.exists()):
        raise RunError("it calls itself published, and has weights or epochs of its own")
    certification = spec.certification
    certificates = _certificates(run)
    if certification is not None:
        _check_claims(spec, certificates, environment.get("images"))
    epochs = run.epochs()
    seconds = [row["seconds"] for row in epochs]
    values = {
        "radius_digits": spec.radius_digits,
        **{name: getattr(spec, name) for name in ("source", "dataset", "architecture", "method", "sigma", "seed")},
        **{name: getattr(spec, name) for name in ("weights_dtype", "precision", "weights_of")},
        "lam": spec.hyper.get("lam"),
        "hyper": json.dumps(dict(spec.hyper), sort_keys=True),
        "train_precision": spec.recipe.precision,
        "recipe": recipe_in_words(spec) if spec.source == "trained" else spec.recipe.name,
        "epochs": 0 if spec.source == "brought" else spec.recipe.epochs,
        "missing_here": max(
            int((epochs[-1] if epochs else environment).get("missing_classes", 0)), _hardly_answered(certificates)
        ),
        "device": ", ".join(run.devices()) or None,
        "git_commit": environment.get("commit"),
        "weights_sha256": environment.get("weights_sha256"),
        "train_seconds": float(sum(seconds)) if seconds else None,
        "epoch_seconds": float(median(seconds)) if seconds else None,
        "certify_seconds": float(certificates["time"].sum()) if len(certificates) else None,
    }
    if certification is not None:
        values |= {name: getattr(certification, name) for name in ("n", "n0", "alpha", "image_set")}
        values["mode"] = certification.label
        if images := environment.get("images"):  # of a folder, which may hold others another time
            values["image_set"] += f"/images {_version(images)}"
        n, alpha = _spending(spec)[-1]
        values["ceiling"] = ceiling(spec.sigma, n, alpha)
    return values, certificates


def _hardly_answered(certificates: pd.DataFrame) -> int:
    """How many classes are answered less than a tenth as often as they occur, among the images that are answered at all; of those of which enough are, and not fewer
    than abstained on: few samples leave the doubtful ones out.
    """
    answered = certificates[certificates["predict"] != ABSTAIN]
    occur, given = answered["label"].value_counts(), answered["predict"].value_counts()
    occur = occur[(occur >= OFTEN) & (2 * occur >= certificates["label"].value_counts().reindex(occur.index))]
    return int((10 * given.reindex(occur.index, fill_value=0) < occur).sum())


def _version(images: object) -> str:
    if not isinstance(images, str) or not re.fullmatch("[0-9a-f]{8}", images):
        raise RunError("its environment names a version of the test images that is none")
    return images


def _certificates(run: Run) -> pd.DataFrame:
    """certificates.tsv, read at once. Raises RunError for a row that is no certificate."""
    kinds = Certificate.__annotations__
    if (content := run.content(run.certificates_file)) is None:
        return pd.DataFrame(columns=list(kinds))
    whole_rows = content[: content.rfind(b"\n") + 1]
    try:
        table = pd.read_csv(
            io.BytesIO(whole_rows), sep="\t", dtype=kinds, keep_default_na=False, na_values={}, quoting=csv.QUOTE_NONE, index_col=False,
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        raise RunError(f"{run.certificates_file} holds a row that is no certificate: {error}") from error
    if list(table.columns) == list(kinds)[:-1]:  # written before there were modes
        table["stop"] = "n"
    if list(table.columns) != list(kinds):
        raise RunError(f"{run.certificates_file} has the columns {', '.join(table.columns)}, not those of certificates")
    return table


def _spending(spec: RunSpec) -> list[tuple[int, float]]:
    try:
        dataset = find_dataset(spec.dataset)
        scale, pixels = dataset.scale, prod(dataset.shape)
    except (
        DatasetError
    ):  # images of another machine: their size, and what noise on a grid leaves of alpha, are not known here
        scale, pixels = 255, 1
    return spending(spec.certification, spec.sigma, scale, pixels)


def _check_claims(spec: RunSpec, rows: pd.DataFrame, version: str | None) -> None:
    """Raise RunError unless the rows are those of the spec's images, and claim no more than their counts support. version: of a
    folder of images when it was certified.
    """
    settings = spec.certification
    try:
        dataset = find_dataset(spec.dataset)
        if version is not None and version != dataset.version:
            raise DatasetError("it holds other images now")
        size, classes = dataset.test_images, len(dataset.classes)
    except DatasetError:  # a folder of images, elsewhere or as it was then: its size is what the rows say
        size, classes = min(max(rows["idx"], default=-1) + 1, settings.every * len(rows)), 1_000_000
    chosen = settings.chosen(size)
    numbers = rows[["radius", "p_lower", "time"]]
    if not (np.isfinite(numbers) & (numbers >= 0)).all(axis=None):
        raise RunError("it has a radius, a bound or a time that cannot be")
    if not (rows["label"].between(0, classes - 1) & rows["predict"].between(ABSTAIN, classes - 1)).all():
        raise RunError(f"it has labels or answers that are none of {classes} classes")
    if len(rows) != len(chosen) or sorted(rows["idx"]) != chosen:
        raise RunError(f"it has {len(rows)} rows, not one for each of the {len(chosen)} images of {settings.image_set}")
    spent = rows["n"].map(dict(_spending(spec)))
    if spent.isna().any() or (rows["n0"] != settings.n0).any():
        raise RunError(f"its rows rest on other n or n0 than its spec says (n = {settings.n}, n0 = {settings.n0})")
    if spec.source == "published":  # no counts: what they could be at most
        if (
            spec.radius_digits is None
            or spec.radius_digits < 3
            or (rows["top_count"] != -1).any()
            or settings.mode != "fixed"
        ):
            raise RunError("it calls itself published, and is not what an import of a log makes")
        largest = ceiling(spec.sigma, settings.n, settings.alpha)
        if (rows["radius"][rows["predict"] == ABSTAIN] > 0).any():
            raise RunError("it abstains with a radius")
        if (rows["radius"] > largest * (1 + digits_error(spec.radius_digits)) + ROUNDING).any():
            raise RunError(
                f"it has a radius beyond {floor(largest * 1e4) / 1e4:.4f}, the most that n = {settings.n} samples certify"
            )
        return
    if not rows["top_count"].between(0, rows["n"]).all():
        raise RunError("its rows count more votes than samples")
    counts, n = rows["top_count"].to_numpy(), rows["n"].to_numpy()
    too_much = rows["p_lower"] > lower_bounds(counts, n, spent.to_numpy()) + ROUNDING
    too_much |= rows["radius"] > radii(rows["p_lower"].to_numpy().clip(0, 1), spec.sigma) + ROUNDING
    too_much |= (rows["predict"] >= 0) & (rows["p_lower"] <= 0.5)
    if too_much.any():
        raise RunError(f"image {rows['idx'][too_much].iloc[0]} claims more than its votes support")
