"""What a run is, and what its numbers rest on: its spec, its environment, its files."""

import contextlib
from dataclasses import asdict, fields

import pandas as pd
import streamlit as st

from app.figures.palette import title
from app.widgets.attempt import plain
from app.widgets.deletion import size
from app.widgets.launch import symbol
from backend.overview import took
from backend.progress import duration
from backend.recipes import departures, on_another
from backend.run import Run, RunError
from backend.spec import RunSpec
from backend.training.methods import METHODS


def _table(facts: dict, alt: str) -> None:
    """Names and values, those that are missing left out."""
    rows = {plain(name.replace("_", " ")): plain(str(value)) for name, value in facts.items() if value is not None}
    st.table(
        pd.DataFrame({"name": rows.keys(), "value": rows.values()}),
        hide_index=True,
        hide_header=True,
        border="horizontal",
        alt=alt,
    )


def settings(spec: RunSpec) -> None:
    """The spec, and where it departs from the paper's experiment."""
    facts = {
        "data set": spec.dataset,
        "network": spec.architecture,
        "method": title(spec.method),
        "σ": f"{spec.sigma:g}",
    }
    symbols = {f.name: symbol(f) for f in fields(METHODS[spec.method])} if spec.method in METHODS else {}
    facts |= {symbols.get(name, name): value for name, value in spec.hyper.items()}
    facts |= {"seed": spec.seed, "weights of": spec.weights_of, "weights rounded to": spec.weights_dtype}
    facts |= {"precision of the network": spec.precision}
    if spec.source == "trained":
        facts |= {f"recipe: {name}": value for name, value in asdict(spec.recipe).items()}
    if spec.certification is not None:
        facts |= {f"certification: {name}": value for name, value in asdict(spec.certification).items()}
    _table(facts, "settings of this run")
    if other := departures(spec.method, spec.dataset, spec.sigma, dict(spec.hyper)):
        words = ", ".join(f"{name} {here} instead of {there}" for name, (here, there) in other.items())
        st.caption(f"Other than in the paper's experiment{on_another(spec.dataset)}: {words}.")


def circumstances(run: Run) -> None:
    """What else the numbers rest on, and the files. Raises RunError or OSError for a folder that cannot be read."""
    facts = run.environment()
    earlier, sha256 = facts.pop("earlier", []), facts.pop("weights_sha256", None)
    with contextlib.suppress(RunError, OSError):  # the page says so beside its curves
        parts = zip(("training took", "certification took"), took(run), strict=True)
        facts |= {words: duration(seconds) for words, seconds in parts if seconds}
    if facts:
        _table(facts, "environment of this run")
    else:
        st.caption("Nothing is known of where it was computed.")
    if sha256:
        st.caption("SHA-256 of the weights")
        st.code(str(sha256), language=None, wrap_lines=True)
    if earlier:
        st.caption(
            "Earlier rows were computed elsewhere or by other versions: environment.json has that under `earlier`."
        )
    files = {
        file.name: size(file.stat().st_size) for file in sorted(run.path.iterdir()) if not file.name.startswith(".")
    }
    st.markdown("**Files**")
    _table(files, "files of this run and their sizes")
