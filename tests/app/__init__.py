"""Pages without a browser: open one, read it, press its buttons."""

import shutil

from streamlit.testing.v1 import AppTest

from backend.home import CHECKOUT, runs_root
from backend.plan import plan
from backend.reproduction import usual
from backend.run import Run
from backend.spec import Certification
from backend.store import queries

GAUSSIAN, CONSISTENCY = (
    "mnist-lenet-gaussian-s0.5-seed0-06682b8c",
    "mnist-lenet-consistency-s0.5-l5-seed0-e203f8c4",
)  # shipped runs


def page(name, **query):
    """The page of that file in views/, not drawn yet, with this in its address."""
    app = AppTest.from_file(str(CHECKOUT / "app" / "views" / f"{name}.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    return app


def words(app):
    """Everything it says in sentences, without the marks that keep Markdown off."""
    kinds = ("markdown", "caption", "info", "warning", "error", "success", "toast")
    return " ".join(e.value for kind in kinds for e in getattr(app, kind)).replace("\\", "")


def value(app, label):
    """Of the metric of that name."""
    return next(m.value for m in app.metric if m.label == label)


def press(app, label):
    """Press the button of that name."""
    app = next(b for b in app.button if b.label == label).click().run()
    assert not app.exception
    return app


def imitate(shipped, spec):
    """A run of that spec among the user's, with the rows of a shipped one."""
    run = Run.create(runs_root(), spec)
    for file in set(shipped.portable(weights=False)) - {shipped.spec_file}:
        shutil.copy2(file, run.path)


def ordinary(sigma, recipe="paper"):
    """The table's runs: {method: run ids of its seeds}."""
    runs = queries.runs()
    return (
        runs[usual(runs)]
        .query("dataset == 'mnist' and recipe == @recipe and sigma == @sigma")
        .groupby("method")
        .run_id.agg(list)
    )


def digits(**certification):
    """The spec of a run of a second, certified so."""
    settings = Certification(n=500, n0=20, every=90, **certification)
    return plan("digits", "gaussian", 0.5, epochs=1, certification=settings)
