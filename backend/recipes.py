"""What a recipe takes on a data set, and where a run departs from it, or it from the papers. Loads no torch."""

from dataclasses import asdict, fields, replace

from backend.datasets import DATASETS, FOLDER_RECIPES, DatasetError, find_dataset
from backend.spec import RECIPES, Recipe, RunSpec, one_of
from backend.training.methods import METHODS


def recipe_for(name: str, dataset: str) -> Recipe:
    """The recipe of that name as it is for a data set. Raises SpecError, or DatasetError for an unknown data set."""
    one_of("recipe", name, RECIPES)
    return replace(RECIPES[name], **find_dataset(dataset).recipes.get(name, {}))


def for_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """A recipe for other epochs: a shorter training has its drops of the rate in proportion earlier."""
    shorter = replace(recipe, epochs=epochs, warmup=min(recipe.warmup, epochs))
    if recipe.schedule == "step" and epochs < recipe.epochs:
        shorter = replace(shorter, drop_every=max(1, round(recipe.drop_every * epochs / recipe.epochs)))
    return shorter


def recipe_in_words(spec: RunSpec) -> str:
    """The name of a run's recipe, with whatever it does otherwise than the recipe of that name for as many epochs: equal words, equal training."""
    recipe = spec.recipe
    if recipe.name not in RECIPES:
        usual = Recipe(recipe.name, recipe.epochs, warmup=min(Recipe.warmup, recipe.epochs))
    else:
        recipes = DATASETS[spec.dataset].recipes if spec.dataset in DATASETS else FOLDER_RECIPES
        usual = for_epochs(replace(RECIPES[recipe.name], **recipes.get(recipe.name, {})), recipe.epochs)
    changed = [(name, value) for name, value in asdict(recipe).items() if value != getattr(usual, name)]
    # The precision stands beside the recipe everywhere.
    return ", ".join([recipe.name, *(f"{name} {value}" for name, value in changed if name != "precision")])


def usual_values(method: str, dataset: str, sigma: float, recipe: str, epochs: int) -> dict:
    """The method's hyper-parameters that a person need not give: the paper's at this σ, else the method's defaults.

    The recipe `quick` has its own where the paper's would take hours or want a smaller learning rate. Those that count
    epochs shrink in proportion with a training that is shorter than the one they were chosen for. recipe: its name, or `recipe_in_words`.
    """
    values = {f.name: f.default for f in fields(METHODS[method])}
    values |= METHODS[method].paper_values.get(_experiment(dataset, sigma), {})
    for f in fields(METHODS[method]):
        whole = f.metadata["of_epochs"]
        if whole and epochs < whole and values[f.name]:
            values[f.name] = max(1, round(values[f.name] * epochs / whole))
    if recipe.partition(", ")[0] == "quick":
        values |= METHODS[method].quick_values | METHODS[method].quick_values_at.get(_experiment(dataset, sigma), {})
    counted = {f.name for f in fields(METHODS[method]) if f.metadata["of_epochs"]}
    return {name: min(value, epochs) if name in counted else value for name, value in values.items()}


def _experiment(dataset: str, sigma: float) -> tuple[str, float]:
    """The experiment whose hyper-parameters are taken: (data set, σ). Planes of the playground and folders that are gone have their own."""
    return (DATASETS[dataset].like if dataset in DATASETS else "") or dataset, sigma


def departures(method: str, dataset: str, sigma: float, hyper: dict) -> dict[str, tuple]:
    """Where hyper-parameters are not those of the paper's experiment: {name: (here, there)}; none where it had no such one.

    Of a data set `like` another, its experiment on that one.
    """
    if method not in METHODS or _experiment(dataset, sigma) not in METHODS[method].paper_values:
        return {}
    paper = usual_values(method, dataset, sigma, "paper", 10**6)
    return {name: (hyper[name], value) for name, value in paper.items() if name in hyper and hyper[name] != value}


def recipe_departures(name: str, dataset: str) -> dict[str, tuple]:
    """In what a named recipe is not the paper's, epochs aside: {field: (here, there)}; none on a data set, or like one, that the paper has none of.

    Of `recipe_in_words`, which say themselves what is done otherwise, those of the recipe named.
    """
    name, _, otherwise = name.partition(", ")
    if name not in RECIPES or not in_papers(dataset):
        return {}
    here, there = (asdict(recipe_for(recipe, dataset)) for recipe in (name, "paper"))
    if here["schedule"] != there["schedule"]:  # one alone has epochs between drops, the other a rise
        here, there = (
            {k: v for k, v in recipe.items() if k not in ("drop_every", "warmup")} for recipe in (here, there)
        )
    told = {"name", "epochs", *(words.split(" ")[0] for words in otherwise.split(", "))}
    return {k: (here[k], there[k]) for k in here if k not in told and here[k] != there[k]}


def in_papers(dataset: str) -> bool:
    """Whether the papers have an experiment on a data set, or on one that it is like."""
    experiment, _ = _experiment(dataset, 0.0)
    return any(experiment == of for method in METHODS.values() for of, _ in method.paper_values)


def whole_training(dataset: str) -> int:
    """Epochs of the recipe `paper` on a data set, which may be gone."""
    try:
        return recipe_for("paper", dataset).epochs
    except DatasetError:
        return RECIPES["paper"].epochs


def on_another(dataset: str) -> str:
    """ ", on mnist" where `departures` of a data set are from an experiment on that one, else nothing."""
    other, _ = _experiment(dataset, 0.0)
    return "" if other == dataset else f", on {other}"


def in_words(value) -> str:
    """A hyper-parameter as people write it: 1, not 1.0; words as they are."""
    return value if isinstance(value, str) else f"{value:g}"
