"""From what a person asks for to complete, validated specs. Loads no torch."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from itertools import product
from math import floor, isfinite, log2, prod

from backend.certification.confidence import ceiling, lower_bound
from backend.certification.grid_noise import spending
from backend.datasets import find_dataset
from backend.recipes import for_epochs, recipe_for, usual_values
from backend.spec import Certification, Recipe, RunSpec, SpecError, one_of, six_digits
from backend.training.methods import METHODS, make

OF_FILE = ("dataset", "architecture", "sigma", "method")  # what weights from elsewhere do not say of themselves
MOST_RUNS = 500  # of a grid that the dashboard starts at once


def plan(
    dataset: str,
    method: str,
    sigma: float,
    *,
    architecture: str | None = None,
    values: dict | None = None,
    seed: int = 0,
    recipe: str = "quick",
    epochs: int | None = None,
    weights_dtype: str = "float32",
    train_precision: str = "float32",
    precision: str = "float32",
    certification: Certification | None = None,
) -> RunSpec:
    """One spec. What is not given is the data set's network, the paper's hyper-parameters at this σ where it has them,
    and the method's defaults. Raises SpecError for a name or a value that is not allowed.
    """
    one_of("method", method, METHODS)
    steps = recipe_for(recipe, dataset)
    if epochs is not None:
        steps = for_epochs(steps, epochs)
    steps = replace(steps, precision=train_precision)
    made = make(method, usual_values(method, dataset, float(sigma), recipe, steps.epochs) | (values or {}))
    spec = RunSpec(
        dataset, architecture or find_dataset(dataset).architectures[0], method, float(sigma), asdict(made),
        seed=seed, recipe=steps, weights_dtype=weights_dtype, precision=precision, certification=certification,
    )  # fmt: skip
    check_certification(spec)
    six_digits("sigma", spec.sigma)
    six_digits("lam", spec.hyper.get("lam", 0))
    _check_new(spec)
    return spec


def check_certification(spec: RunSpec) -> None:
    """Raise SpecError for settings that nothing can be certified with, before hours of training."""
    settings = spec.certification
    if settings is None:
        return
    n, alpha = _last_look(settings, spec.sigma, spec.dataset)
    if lower_bound(n, n, alpha) <= 0.5:
        raise SpecError(
            f"n = {n} samples can certify nothing at alpha = {settings.alpha:g}, not even where all agree: "
            f"take {floor(-log2(alpha)) + 1} or more"
        )


def _check_new(spec: RunSpec) -> None:
    """Raise SpecError for a radius that no image can reach, and an α that no page can write: asked of new runs alone, for one that is begun cannot be changed."""
    settings = spec.certification
    if settings is None:
        return
    six_digits("alpha", settings.alpha)
    if settings.radius is None:
        return
    if (most := reach(settings, spec.sigma, spec.dataset)) < settings.radius:
        raise SpecError(
            f"radius must be at most {floor(most * 1e4) / 1e4:.4f}, not {settings.radius:g}: n = {settings.n} samples at sigma = {spec.sigma:g} certify no more, "
            "not even where all agree; take more samples or a smaller radius"
        )


def reach(settings: Certification, sigma: float, dataset: str) -> float:
    """The largest radius that these settings can certify: that of n votes out of n."""
    return ceiling(sigma, *_last_look(settings, sigma, dataset))


def _last_look(settings: Certification, sigma: float, dataset: str) -> tuple[int, float]:
    """n, and the error probability that the last look, which reaches furthest, spends."""
    of = find_dataset(dataset)
    return spending(settings, sigma, of.scale, prod(of.shape))[-1]


def sweep(
    methods: Iterable[str], sigmas: Iterable[float], lams: Iterable[float], seeds: Iterable[int], *,
    most: int | None = None, **rest,
) -> list[RunSpec]:  # fmt: skip
    """The grid methods × σ × λ × seeds; without λ given, each method's own.

    A method that has no λ is there once per σ and seed; a hyper-parameter given goes to the methods that have it.
    Raises SpecError for more than `most` runs, before any is planned.
    """
    specs: dict[str, RunSpec] = {}
    methods, sigmas, lams, seeds = list(methods), list(sigmas), list(lams), list(seeds)
    given = rest.get("values") or {}
    count = len(seeds) * len(sigmas) * sum(len(lams) or 1 if has_lam(method) else 1 for method in methods)
    if most is not None and count > most:
        raise SpecError(f"a grid has at most {most} runs, not {count:,}: take fewer methods, σ, λ or seeds at a time")
    for name in (*given, *(["lam"] if lams else [])):
        if not any(name in METHODS[method].__dataclass_fields__ for method in methods if method in METHODS):
            raise SpecError(f"none of {', '.join(methods)} has a hyper-parameter {name!r}")
    for seed, sigma, method in product(seeds, sigmas, methods):
        one_of("method", method, METHODS)
        known = METHODS[method].__dataclass_fields__
        for lam in (lams or [None]) if has_lam(method) else [None]:
            values = {name: value for name, value in given.items() if name in known}
            if lam is not None:
                values["lam"] = lam
            spec = plan(method=method, sigma=sigma, seed=seed, **rest | {"values": values})
            specs[spec.run_id] = spec
    if not specs:
        raise SpecError("this sweep is empty: give at least one method, one sigma and one seed, not none")
    return list(specs.values())


def has_lam(method: str) -> bool:
    """Whether a method has a λ; False for an unknown one."""
    return method in METHODS and "lam" in METHODS[method].__dataclass_fields__


def numbers(name: str, text: str, kind: type[int] | type[float] = float) -> list:
    """The numbers of a typed list such as "0.25 0.5 1", each once, in their order. Raises SpecError for anything else.

    A comma separates only where a space follows: 0,25 may be meant as one number or as two.
    """
    words = text.replace(";", " ").replace(", ", " ").removesuffix(",").split()
    found = {}
    for word in words:
        try:
            value = kind(word)
            finite = isfinite(value)
        except (ValueError, OverflowError):
            finite = False
        if not finite:
            what = (
                "whole numbers with spaces between them, such as 0 1 2"
                if kind is int
                else "numbers with spaces between them, such as 0.25 0.5 1"
            )
            raise SpecError(f"{name} must be {what}; {word!r} is none")
        found[value] = None
    return list(found)


def command(spec: RunSpec) -> list[str]:
    """The words after `python -m backend` that give this very spec: of `run`, `train`, or `certify` of another run's weights.

    Raises SpecError where there are none: an imported log, or a recipe that has no flag for what it does otherwise.
    """
    if spec.source == "published":
        raise SpecError("this run was imported, not computed here")
    certification = {} if spec.certification is None else asdict(spec.certification)
    if spec.source == "brought":
        facts = {name: getattr(spec, name) for name in OF_FILE} | certification | {"precision": spec.precision}
        return ["certify", f"{spec.weights_of}.safetensors", *_flags(facts)]
    if spec.weights_of is not None:
        return ["certify", spec.weights_of, *_flags(certification | {"precision": spec.precision})]
    training = {
        "architecture": spec.architecture, "seed": spec.seed, "recipe": spec.recipe.name, "epochs": spec.recipe.epochs,
        "train_precision": spec.recipe.precision, "weights_dtype": spec.weights_dtype,
    }  # fmt: skip
    precision = {"precision": spec.precision} if certification else {}
    again = plan(
        spec.dataset, spec.method, spec.sigma, values=dict(spec.hyper), certification=spec.certification,
        **training, **precision,
    )  # fmt: skip
    if again != spec:
        raise SpecError(f"its {_difference(again, spec)} has no flag")
    named = {"dataset": spec.dataset, "method": spec.method, "sigma": spec.sigma}
    flags = _flags(named | training | dict(spec.hyper) | certification | precision)
    return ["run" if certification else "train", *flags]


def _flags(values: Mapping) -> list[str]:
    """--name value for each; a switch that is on is --name alone; what is None or off is left out."""
    words = []
    for name, value in values.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return words


def _difference(a: RunSpec, b: RunSpec) -> str:
    """The name of the first field in which they differ, of the recipe where it is that."""
    name = next(f.name for f in fields(RunSpec) if getattr(a, f.name) != getattr(b, f.name))
    if name != "recipe":
        return name
    return "recipe's " + next(f.name for f in fields(Recipe) if getattr(a.recipe, f.name) != getattr(b.recipe, f.name))


def of_file(
    weights: bytes, dataset: str, architecture: str, sigma: float, method: str, certification: Certification,
    precision: str = "float32",
) -> RunSpec:  # fmt: skip
    """The spec that certifies weights which were trained elsewhere; method: any word that names them, but for those of METHODS, whose settings
    nobody knows here. Other weights are another method's of that name, not a seed of it. Raises SpecError.
    """
    if method in METHODS:
        raise SpecError(
            f"method {method} is one that is trained here: give weights from elsewhere another name, as --method {method}_elsewhere"
        )
    digest = hashlib.sha256(weights).hexdigest()
    spec = RunSpec(
        dataset, architecture, method, sigma, {"weights": f"sha-{digest[:8]}"}, recipe=Recipe("elsewhere"), weights_of=name_of_file(digest),
        certification=certification, precision=precision, source="brought",
    )  # fmt: skip
    check_certification(spec)
    six_digits("sigma", spec.sigma)
    _check_new(spec)
    return spec


def name_of_file(sha256: str) -> str:
    """What runs of weights from elsewhere are said to be of, where others name the run that trained theirs."""
    return f"file-{sha256[:16]}"


def certify_again(source: RunSpec, run_id: str, certification: Certification, precision: str | None = None) -> RunSpec:
    """The spec that certifies the weights of run `run_id`, whose spec is `source`, in another way."""
    spec = replace(
        source, weights_of=source.weights_of or run_id, certification=certification,
        precision=precision or source.precision,
    )  # fmt: skip
    check_certification(spec)
    _check_new(spec)
    return spec
