"""Per-example logs as other projects publish them, Cohen's tab-separated format, to ordinary run folders.

A log says `idx label predict radius correct time` an image; what network, method and σ it is of stands in its path, in
a mapping, or nowhere. Radii have three significant digits, and no vote counts: both are marked in what is imported.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from backend.certification.confidence import ROUNDING, ceiling, digits_error
from backend.datasets import DatasetError, find_dataset
from backend.files import write_aside
from backend.log_file import COLUMNS, LogError, read_log
from backend.recipes import recipe_for
from backend.rows import ABSTAIN, Certificate
from backend.run import Run, RunError
from backend.spec import KINDS, RECIPES, Certification, Recipe, RunSpec, SpecError, six_digits
from backend.training.methods import METHODS as KNOWN

DIGITS = 3  # significant, of a published radius where nothing else is said
FACTS = {  # and any hyper-parameter
    "dataset": str, "architecture": str, "method": str, "recipe": str, "sigma": float, "alpha": float,
    "seed": int, "epochs": int, "n": int, "n0": int, "digits": int,
}  # fmt: skip
DATA_SETS = {"mnist": "mnist", "cifar10": "cifar10", "cifar": "cifar10", "imagenet": "imagenet",
             "fashion_mnist": "fashion_mnist", "fashionmnist": "fashion_mnist", "fmnist": "fashion_mnist"}  # fmt: skip
METHODS = {"cohen": "gaussian", "gaussian": "gaussian", "stab": "stability", "stability": "stability",
           "salman": "smoothadv", "smoothadv": "smoothadv", "macer": "macer", "smoothmix": "smoothmix", "catrs": "catrs",
           "consistency": "consistency"}  # fmt: skip
NUMBERS = {"num": ("m", int), "lbd": ("lam", float), "eta": ("eta", float), "gamma": ("gamma", float),
           "beta": ("beta", float), "deferred": ("deferred", int)}  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """What became of one file: the run folder it went into, or the reason why it went into none."""

    file: Path
    run: Run | None
    reason: str = ""


def import_logs(
    path: Path,
    root: Path,
    given: Mapping[str, str],
    mapping: Mapping[str, Mapping] | None = None,
    partial: bool = False,
) -> Iterator[Imported]:
    """Import a file or every file of a tree into run folders under root; yields what became of each.

    Facts come from the path, then from the first pattern of `mapping` that fits the path, then from `given`, which
    wins. partial: take a log that ends early, as one of its first images. Raises LogError for a path with no file.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise LogError(f"there is no file at {path}")
    base = path.parent if path.is_file() else path
    for file in files:
        try:
            name = str(file.relative_to(base))
            mapped = next((f for pattern, f in (mapping or {}).items() if fnmatch(name, pattern)), {})
            named = {**mapped, **given}
            facts = _fitting(facts_of(file.absolute()), named) | named
            yield Imported(file, _import(file, name, facts, root, partial))
        except OSError as error:
            yield Imported(file, None, f"cannot be read or written: {error.strerror or error}")
        except SpecError as error:  # begins with what is wrong
            yield Imported(file, None, f"its {error}")
        except (LogError, DatasetError, RunError) as error:
            yield Imported(file, None, str(error))
        except (ValueError, TypeError, OverflowError) as error:
            yield Imported(file, None, f"says something of itself that cannot be: {error}")


def facts_of(path: Path) -> dict:
    """What the parts of a path from the data set on say: data set, architecture, method, σ, seed, hyper-parameters."""
    parts = [part.lower() for part in path.parts[:-1]]
    start = max((i for i, part in enumerate(parts) if part in DATA_SETS), default=-1)
    facts: dict = {"dataset": DATA_SETS[parts[start]]} if start >= 0 else {}
    methods: list[str] = []
    for part in parts[start + 1 :] if start >= 0 else []:
        word, _, rest = part.partition("_")
        if word in NUMBERS and _is_number(rest):
            name, kind = NUMBERS[word]
            number = float(rest)
            facts[name] = kind(number) if kind(number) == number else number
        elif match := re.fullmatch(r"(?:cifar_)?(resnet\d+|densenet\d*|lenet|vgg\d+)", part):
            facts["architecture"] = "densenet40" if match[1] == "densenet" else match[1]
        elif attack := re.fullmatch(r"(?:salman|pgd|ddn)_(\d+(?:\.\d+)?)_(\d+)_(\d+)", part):
            facts |= {"epsilon": float(attack[1]) / 256, "steps": int(attack[2]), "warmup": int(attack[3])}
            facts["attack"] = "ddn" if word == "ddn" else "pgd"
            methods.append("smoothadv")
        elif part in METHODS or re.fullmatch(r"macer_deferred\d+", part):
            methods.append(METHODS[word])
            if rest:
                facts["deferred"] = int(rest.removeprefix("deferred")) + 1  # λ is 0 through that epoch's index
    if methods:
        bases = [m for m in methods if m not in ("consistency", "gaussian")]
        facts["method"] = bases[-1] if bases else methods[0]
        if "consistency" in methods:
            facts["method"] = f"{bases[-1]}_consistency" if bases else "consistency"
    if match := re.search(r"(?:noise|sigma)_(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:_(\d+))?", path.name):
        facts["sigma"] = float(match[1])
        if match[2]:
            facts["seed"] = int(match[2])
    return facts


def _fitting(told: dict, named: dict) -> dict:
    """What a path tells, without what the method has not (num_1, of Gaussian): nobody has said that it has."""
    method = named.get("method") or told.get("method")
    return {
        name: value for name, value in told.items() if name in FACTS or method not in KNOWN or name in _names(method)
    }


def _names(method: str) -> set[str]:
    """The hyper-parameters of a method that is known here."""
    return {f.name for f in fields(KNOWN[method])}


def _import(file: Path, name: str, facts: dict, root: Path, partial: bool) -> Run:
    table, cut = read_log(file)
    spec = _spec(facts, table, partial, cut)
    classes = len(find_dataset(spec.dataset).classes)
    if max(table["label"].max(), table["predict"].max()) >= classes:
        raise LogError(f"has a label or an answer that is none of the {classes} classes of {spec.dataset}")
    most = ceiling(spec.sigma, spec.certification.n, spec.certification.alpha)
    if (table["radius"] > most * (1 + digits_error(spec.radius_digits)) + ROUNDING).any():
        most = table["radius"].max()
        raise LogError(
            f"has a radius of {most}, which n = {spec.certification.n} samples cannot certify; give n or alpha"
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    before = Run(root / spec.run_id).environment()
    if before and before.get("sha256") != digest:
        raise LogError(f"says the same of itself as {before.get('imported_from')}, which is imported: give a seed")
    run = Run.create(root, spec)
    rows = _certificates(table, spec)
    names = list(Certificate.__dataclass_fields__)
    lines = ["\t".join(names), *("\t".join(map(str, row)) for row in zip(*(rows[n] for n in names), strict=True))]
    write_aside(run.certificates_file, ("\n".join(lines) + "\n").encode())
    write_aside(run.environment_file, json.dumps({"imported_from": name, "sha256": digest}, indent=2).encode())
    if run.state()["state"] != "finished":
        run.set_state("finished", imported=datetime.now(UTC).isoformat(timespec="seconds"))
    return run


def _spec(facts: dict, table: dict[str, np.ndarray], partial: bool, cut: bool) -> RunSpec:
    facts = {name: value for name, value in facts.items() if value is not None}  # null in a mapping
    facts |= {name: _typed(name, facts[name], kind) for name, kind in FACTS.items() if name in facts}
    missing = [name for name in ("dataset", "method", "sigma") if name not in facts]
    if missing:
        raise LogError(
            f"its path does not say its {' and '.join(missing)}: give it, as --set dataset=mnist method=gaussian sigma=0.5, or with --mapping"
        )
    dataset = find_dataset(facts["dataset"])
    idx = table["idx"]
    stride = int(idx[1] - idx[0]) if len(idx) > 1 else 1
    settings = Certification(facts.get("n", 100_000), facts.get("n0", 100), facts.get("alpha", 0.001), max(1, stride))
    whole = settings.chosen(dataset.test_images)
    if idx.tolist() != whole[: len(idx)]:
        raise LogError("its images are not every so many-th of the test split from the first on")
    if len(idx) < len(whole):
        if not partial:
            raise LogError(
                f"is cut off: {len(idx)} of {len(whole)} images{' and half a row' if cut else ''} (--partial takes it)"
            )
        settings = replace(settings, limit=len(idx))
    kinds = {f.name: type(f.default) for method in KNOWN.values() for f in fields(method)}
    hyper = {name: _typed(name, value, kinds.get(name)) for name, value in facts.items() if name not in FACTS}
    if facts["method"] in KNOWN and (foreign := hyper.keys() - _names(facts["method"])):
        raise LogError(
            f"says something that is neither a fact ({', '.join(FACTS)}) nor a hyper-parameter of {facts['method']}: {', '.join(sorted(foreign))}"
        )
    if (digits := facts.get("digits", DIGITS)) < DIGITS:
        raise LogError(f"its radii have {digits} significant digits; at least {DIGITS} are wanted")
    name = facts.get("recipe", "paper")
    recipe = recipe_for(name, dataset.name) if name in RECIPES else Recipe(name=name)
    epochs = facts.get("epochs", recipe.epochs)
    recipe = replace(recipe, epochs=epochs, warmup=min(recipe.warmup, epochs))
    for word, value in (("sigma", facts["sigma"]), ("lam", hyper.get("lam", 0)), ("alpha", settings.alpha)):
        six_digits(word, value)
    return RunSpec(
        dataset.name, facts.get("architecture") or dataset.architectures[0], facts["method"], facts["sigma"], hyper,
        seed=facts.get("seed", 0), recipe=recipe, certification=settings, source="published", radius_digits=digits,
    )  # fmt: skip


def _certificates(table: dict[str, np.ndarray], spec: RunSpec) -> dict[str, list]:
    """The columns of `Certificate`; top_count −1 says that the votes are not known, p_lower follows from the radius."""
    count, settings = len(table["idx"]), spec.certification
    constant = {"top_count": -1, "n": settings.n, "n0": settings.n0, "stop": "n"}
    p_lower = np.where(table["predict"] == ABSTAIN, 0.0, ndtr(table["radius"] / spec.sigma))
    known = {name: table[name].tolist() for name in (*COLUMNS, "time")} | {"p_lower": p_lower.tolist()}
    return {f.name: known[f.name] if f.name in known else [constant[f.name]] * count for f in fields(Certificate)}


def _typed(name: str, value, kind: type | None):
    """What a log says of itself in its type; without one, as of a method that is not known here, a number as float.

    Raises LogError for what would become another value.
    """
    value = value if kind is str else _value(value)
    with contextlib.suppress(ValueError, OverflowError, TypeError):
        known = (
            (float(value) if type(value) is int else value) if kind is None else kind(value)
        )  # a str is equal to words alone
        if known == value and type(value) is not bool:
            return known
    raise LogError(f"its {name} must be {KINDS[kind or float]}, not {value}")


def _value(value):
    """A hyper-parameter from a command line: a number where it is one."""
    if isinstance(value, str) and _is_number(value):
        return float(value) if "." in value or "e" in value.lower() else int(value)
    return value


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text, re.IGNORECASE))
