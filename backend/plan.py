"""From what a person asks for to complete, validated specs. Loads no torch."""

from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from itertools import product

from backend.datasets import find_dataset
from backend.spec import RECIPES, Certification, Recipe, RunSpec, SpecError, one_of
from backend.training.methods import METHODS, make


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
        steps = replace(steps, epochs=epochs, warmup=min(steps.warmup, epochs))
    steps = replace(steps, precision=train_precision)
    made = make(method, usual_values(method, dataset, float(sigma), recipe, steps.epochs) | (values or {}))
    return RunSpec(
        dataset, architecture or find_dataset(dataset).architectures[0], method, float(sigma), asdict(made),
        seed=seed, recipe=steps, weights_dtype=weights_dtype, precision=precision, certification=certification,
    )  # fmt: skip


def recipe_for(name: str, dataset: str) -> Recipe:
    """The recipe of that name as it is for a data set. Raises SpecError, or DatasetError for an unknown data set."""
    one_of("recipe", name, RECIPES)
    return replace(RECIPES[name], **find_dataset(dataset).recipes.get(name, {}))


def usual_values(method: str, dataset: str, sigma: float, recipe: str, epochs: int) -> dict:
    """The method's hyper-parameters that a person need not give: the paper's at this σ, else the method's defaults.

    The recipe `quick` has its own where the paper's would take hours or want a smaller learning rate. Those that count
    epochs shrink in proportion with a training that is shorter than the one they were chosen for.
    """
    values = {f.name: f.default for f in fields(METHODS[method])}
    values |= METHODS[method].paper_values.get((dataset, sigma), {})
    for f in fields(METHODS[method]):
        whole = f.metadata["of_epochs"]
        if whole and epochs < whole and values[f.name]:
            values[f.name] = max(1, round(values[f.name] * epochs / whole))
    return values | (METHODS[method].quick_values if recipe == "quick" else {})


def departures(method: str, dataset: str, sigma: float, hyper: dict) -> dict[str, tuple]:
    """Where hyper-parameters are not those of the paper's experiment: {name: (here, there)}; none where it had no such one."""
    if method not in METHODS or (dataset, sigma) not in METHODS[method].paper_values:
        return {}
    paper = usual_values(method, dataset, sigma, "paper", 10**6)
    return {name: (hyper[name], value) for name, value in paper.items() if name in hyper and hyper[name] != value}


def sweep(
    methods: Iterable[str], sigmas: Iterable[float], lams: Iterable[float], seeds: Iterable[int], **rest
) -> list[RunSpec]:
    """The grid methods × σ × λ × seeds; without λ given, each method's own.

    A method that has no λ is there once per σ and seed; a hyper-parameter given goes to the methods that have it.
    """
    specs: dict[str, RunSpec] = {}
    methods, given = list(methods), rest.get("values") or {}
    for name in given:
        if not any(name in METHODS[method].__dataclass_fields__ for method in methods if method in METHODS):
            raise SpecError(f"none of {', '.join(methods)} has a hyper-parameter {name!r}")
    for seed, sigma, method in product(seeds, sigmas, methods):
        one_of("method", method, METHODS)
        known = METHODS[method].__dataclass_fields__
        for lam in (list(lams) or [None]) if "lam" in known else [None]:
            values = {name: value for name, value in given.items() if name in known}
            if lam is not None:
                values["lam"] = lam
            spec = plan(method=method, sigma=sigma, seed=seed, **rest | {"values": values})
            specs[spec.run_id] = spec
    if not specs:
        raise SpecError("this sweep is empty: give at least one method, one sigma and one seed, not none")
    return list(specs.values())


def certify_again(source: RunSpec, run_id: str, certification: Certification, precision: str | None = None) -> RunSpec:
    """The spec that certifies the weights of run `run_id`, whose spec is `source`, in another way."""
    return replace(
        source, weights_of=source.weights_of or run_id, certification=certification,
        precision=precision or source.precision,
    )  # fmt: skip
