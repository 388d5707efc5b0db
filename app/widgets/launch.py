"""The form that starts runs: one, or a grid of methods × σ × λ × seeds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields

import streamlit as st

from app.figures.palette import title
from app.widgets.certification import certification_inputs
from app.widgets.glossary import TERMS
from app.widgets.start import start_button
from backend.datasets import Dataset, DatasetError, dataset_names, find_dataset
from backend.plan import MOST_RUNS, command, has_lam, numbers, plan, sweep
from backend.recipes import recipe_for, usual_values
from backend.spec import PRECISIONS, RECIPES, WEIGHT_TYPES, Certification, RunSpec, SpecError
from backend.training.methods import METHODS, make

KINDS = ("One run", "Grid")
Key = Callable[[str], str]
MOST_SEED = 2**53 - 1  # the last whole number that a browser tells from its neighbours


def fill(spec: RunSpec) -> str:
    """Let the form begin with a run's settings; returns what of them it does not take over, in words, or nothing.

    Raises SpecError for a run whose settings its fields cannot hold.
    """
    if spec.seed > MOST_SEED:
        raise SpecError(
            f"a seed is at most {MOST_SEED} in a browser, not {spec.seed}; `python -m backend run` takes it"
        )
    if spec.method in METHODS:
        make(spec.method, {f.name: spec.hyper[f.name] for f in fields(METHODS[spec.method]) if f.name in spec.hyper})
    number, _ = st.session_state.get("draft", (0, None))
    st.session_state["draft"] = (number + 1, spec)
    if spec.source != "trained":
        return "It was not trained here: what the form shows of its training may not be how it was trained."
    if spec.weights_of is not None:
        return f"It certified the weights of {spec.weights_of}; started from here it trains its own."
    try:
        command(spec)
    except (SpecError, DatasetError) as error:
        return f"Not all of it can be taken over: {error}."
    return ""


def launch_form() -> None:
    """Everything that a run or a grid needs, with defaults that finish soon, what it will cost, and the button."""
    number, start = st.session_state.get("draft", (0, None))

    def key(name: str) -> str:
        return f"launch {name}" + (f" {number}" if number else "")

    grid = st.segmented_control(
        "How many", KINDS, default=KINDS[0], required=True, key=key("kind"), label_visibility="collapsed"
    ) == KINDS[1]  # fmt: skip
    one, two, three, four = st.columns(4)
    names = dataset_names()
    known = start is not None and start.dataset in names
    name = one.selectbox("Data set", names, names.index(start.dataset if known else "digits"), key=key("dataset"))
    try:
        dataset = find_dataset(name)
        one.caption(dataset.note)
        shared = _recipe(dataset, start, (two, three, four), key)
        specs = (_grid if grid else _one)(dataset, start, shared, key)
    except (SpecError, DatasetError) as error:  # a folder of images that is not as it must be is one, too
        st.error(f"No run can be started like this: {error}")
        return
    start_button(specs, "Start", "launch start")
    if start is not None and st.button("Default settings", type="tertiary", icon=":material/undo:", key=key("reset")):
        st.session_state["draft"] = (number + 1, None)
        st.rerun()


def _recipe(dataset: Dataset, start: RunSpec | None, columns, key: Key) -> dict:
    """Network, recipe and epochs, of all runs."""
    two, three, four = columns
    networks = list(dataset.architectures)
    if start is not None and start.dataset == dataset.name and start.architecture not in networks:
        networks.insert(0, start.architecture)
    place = networks.index(start.architecture) if start is not None and start.architecture in networks else 0
    architecture = two.selectbox(
        "Network", networks, place, key=key(f"network {dataset.name}"),
        help="The command line takes every classification network of torchvision as well.",
    )  # fmt: skip
    names = list(RECIPES)
    place = names.index(start.recipe.name) if start is not None and start.recipe.name in names else 0
    recipe = three.selectbox("Recipe", names, place, key=key("recipe"), help=TERMS["recipe"])
    usual = recipe_for(recipe, dataset.name).epochs
    if start is not None and (start.dataset, start.recipe.name) == (dataset.name, recipe):
        usual = start.recipe.epochs
    epochs = four.number_input("Epochs", value=usual, key=key(f"epochs {dataset.name} {recipe}"))
    return {"architecture": architecture, "recipe": recipe, "epochs": epochs}


def _one(dataset: Dataset, start: RunSpec | None, shared: dict, key: Key) -> list[RunSpec]:
    one, two, three = st.columns([2, 1, 1])
    methods = list(METHODS)
    place = methods.index(start.method) if start is not None and start.method in methods else 0
    method = one.selectbox("Method", methods, place, format_func=title, key=key("method"))
    one.caption(METHODS[method].paper)
    sigma = two.number_input(
        "Noise σ", value=start.sigma if start else 0.5, step=0.25, format="%g", help=TERMS["σ"], key=key("sigma")
    )
    seed = three.number_input("Seed", value=start.seed if start else 0, step=1, help=TERMS["seed"], key=key("seed"))
    usual = usual_values(method, dataset.name, sigma, shared["recipe"], shared["epochs"])
    if start is not None and start.method == method:  # a clone keeps what it was not asked to change
        usual |= {name: value for name, value in start.hyper.items() if name in usual}
    values = {}
    for f, column in zip(fields(METHODS[method]), _columns(), strict=False):
        # What was typed stays until there is another value to begin with.
        values[f.name] = _hyper_input(column, [f], usual[f.name], key(f"{method} {f.name} {usual[f.name]}"))
    rest = _rest(dataset, start, key)
    return [plan(dataset.name, method, sigma, values=values, seed=seed, **shared, **rest)]


def _grid(dataset: Dataset, start: RunSpec | None, shared: dict, key: Key) -> list[RunSpec]:
    usual = [start.method] if start is not None and start.method in METHODS else ["gaussian", "consistency"]
    methods = st.multiselect("Methods", list(METHODS), usual, format_func=title, key=key("methods"))
    one, two, three = st.columns(3)
    typed = "numbers with spaces between them"
    first, own = ("0.25 0.5 1", "", "0"), {} if start is None else _its_own(start)
    if start is not None:
        first = (f"{start.sigma:g}", f"{own['lam']:g}" if "lam" in own else "", f"{start.seed}")
    own = {name: value for name, value in own.items() if name != "lam" and methods == usual}
    sigmas = one.text_input("Noise σ", first[0], 500, help=f"{typed}. {TERMS['σ']}", key=key("sigmas"))
    lams = two.text_input(
        "λ", first[1], 500, help=f"{typed}. {TERMS['λ']} Methods that have none are there once.", key=key("lams"),
        placeholder="what the recipe takes at each σ", disabled=not any(map(has_lam, methods)),
    )  # fmt: skip
    seeds = three.text_input("Seeds", first[2], 500, help=f"whole {typed}. {TERMS['seed']}", key=key("seeds"))
    with st.expander("Other hyper-parameters", expanded=bool(own)):
        values = _grid_hyper_inputs(methods, own, key)
    rest = _rest(dataset, start, key)
    axes = numbers("σ", sigmas), numbers("λ", lams) if any(map(has_lam, methods)) else [], numbers("seeds", seeds, int)
    return sweep(methods, *axes, most=MOST_RUNS, dataset=dataset.name, values=values, **shared, **rest)


def _its_own(start: RunSpec) -> dict:
    """The hyper-parameters of a run that are not those its recipe takes at its σ: what is left to each stays so in a grid."""
    if start.method not in METHODS:
        return {}
    usual = usual_values(start.method, start.dataset, start.sigma, start.recipe.name, start.recipe.epochs)
    return {name: value for name, value in start.hyper.items() if name in usual and usual[name] != value}


def _grid_hyper_inputs(methods: list[str], first: Mapping, key: Key) -> dict:
    """Those that are given, at first as in `first`, for every method that has them; the others are left to each method."""
    of: dict[str, list[Field]] = {}
    for method in methods:
        for f in fields(METHODS[method]):
            of.setdefault(f.name, []).append(f)
    of.pop("lam", None)
    if not of:
        st.caption("These methods have none.")
    values = {}
    for (name, same), column in zip(of.items(), _columns(), strict=False):
        values[name] = _hyper_input(column, same, first.get(name), key(f"grid {name} {' '.join(methods)}"))
    return {name: value for name, value in values.items() if value is not None}


def _columns() -> Iterator:
    """Rows of four, one column after the other, which is also their order where they stand below each other."""
    while True:
        yield from st.columns(4)


def _hyper_input(column, same: list[Field], default, key: str):
    """An input for a hyper-parameter: of one method, or of the same name in several (then None leaves it to each)."""
    f, meta = same[0], [one.metadata for one in same]
    about = " | ".join(dict.fromkeys(m["doc"] for m in meta))
    left = "each method's own"
    if meta[0]["choices"]:
        choices = list(dict.fromkeys(choice for m in meta for choice in m["choices"]))
        place = choices.index(default) if default in choices else None
        return column.selectbox(symbol(f), choices, place, help=about, key=key, placeholder=left)
    kind = type(f.default)
    return column.number_input(
        symbol(f), value=None if default is None else kind(default), step=kind(1), help=about, key=key,
        format="%d" if kind is int else "%.4g", placeholder=left,
    )  # fmt: skip


def symbol(f: Field) -> str:
    """A hyper-parameter as papers write it (λ, η, …), where its words begin with that; α is that of the certificates."""
    head, colon, _ = f.metadata["doc"].partition(":")
    written = colon and len(head) <= 3 and not head.isdigit() and not f.metadata["choices"] and head != "α"
    return head if written else f.name.replace("_", " ")


def _rest(dataset: Dataset, start: RunSpec | None, key: Key) -> dict:
    """Precisions, and the certification."""
    train, dtype = (start.recipe.precision, start.weights_dtype) if start else (PRECISIONS[0], WEIGHT_TYPES[0])
    with st.expander("More training settings", expanded=(train, dtype) != (PRECISIONS[0], WEIGHT_TYPES[0])):
        one, two = st.columns(2)
        train = one.selectbox(
            "Precision of training", PRECISIONS, PRECISIONS.index(train), key=key("train precision"),
            help="bfloat16: torch's autocast; faster on a GPU, and on processors with AVX512-BF16.",
        )  # fmt: skip
        dtype = two.selectbox(
            "Weights rounded to", WEIGHT_TYPES, WEIGHT_TYPES.index(dtype), key=key("weights dtype"),
            help="before anything is certified; float16 halves the file",
        )  # fmt: skip
        wanted = st.checkbox(
            "Certify when it is trained", start is None or start.certification is not None, key=key("certify")
        )
    given = {"train_precision": train, "weights_dtype": dtype}
    if not wanted:
        return given
    usual = Certification(every=dataset.every)
    if start is not None and start.certification is not None and start.dataset == dataset.name:
        usual = start.certification
    certification, precision = certification_inputs(
        dataset, usual, start.precision if start else PRECISIONS[0], key("")
    )
    return given | {"certification": certification, "precision": precision}
