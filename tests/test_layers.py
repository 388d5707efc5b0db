"""The layering of CONTRIBUTING.md: who may import what. A line here is a line there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from backend.home import CHECKOUT
from backend.run import Run

MODULES = sorted(path.relative_to(CHECKOUT) for part in ("app", "backend") for path in (CHECKOUT / part).rglob("*.py"))
TORCH = (
    "backend/training",
    "backend/certification",
    "backend/classifier",
    "backend/pipeline.py",
    "backend/live.py",
    "backend/playground.py",
)


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere in it, dotted."""
    names = set()
    for node in ast.walk(ast.parse((CHECKOUT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imported(path))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_layers(path):
    place = path.as_posix()
    if place.startswith("backend"):
        for package in ("streamlit", "plotly", "app"):
            assert not imports(path, package), f"only app draws, and {place} imports {package}"
    if imports(path, "torch"):
        assert place.startswith(TORCH), (
            f"only training, certification, classifier (pipeline, live, playground) import torch, not {place}"
        )
    if imports(path, "duckdb"):
        assert place.startswith("backend/store"), f"only store speaks SQL, and {place} imports duckdb"
    if place.startswith("app/figures"):
        assert not imports(path, "streamlit"), f"figures are DataFrame -> Figure, and {place} imports streamlit"
    if imports(path, "ray"):
        assert place == "backend/jobs/ray.py", f"only its executor imports ray, not {place}"
    if place in (
        "backend/spec.py", "backend/rows.py", "backend/run.py", "backend/home.py", "backend/process.py", "backend/files.py",
    ):  # fmt: skip
        allowed = {"backend.spec", "backend.rows", "backend.home", "backend.process", "backend.files"}
        outside = {n for n in imported(path) if n.split(".")[0] not in sys.stdlib_module_names}
        assert all(any(n == a or n.startswith(a + ".") for a in allowed) for n in outside), (
            f"{place} is standard library only"
        )
    for left, right in (("spec", "run"), ("training", "certification"), ("certification", "store"), ("training", "store"),
                        ("pipeline", "jobs"), ("store", "jobs"), ("certification", "pipeline")):  # fmt: skip
        if place.startswith(f"backend/{left}"):
            assert not imports(path, f"backend.{right}"), (
                f"imports point left along the line, not from {left} to {right}"
            )
    assert "utils" not in path.stem
    strings = {
        node.value for node in ast.walk(ast.parse((CHECKOUT / path).read_text())) if isinstance(node, ast.Constant)
    }
    files = {value.name for name, value in vars(Run(Path("run"))).items() if name.endswith("_file")}
    assert len(files) == 9
    assert place == "backend/run.py" or not files & strings, f"only run.py names a run's files, not {place}"


def test_the_executor_loads_ray_only_when_it_is_used():
    code = "import sys, backend.cli, backend.jobs.ray; print('ray' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert result.stdout.strip() == "False"


def test_pages_open_without_torch(home):
    """A fresh interpreter draws every page on the shipped results and has loaded neither torch nor ray."""
    pages = sorted(map(str, (CHECKOUT / "app" / "views").glob("[a-z]*.py")))
    code = (
        "import sys; from backend.store.publish import publish; publish()\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"for page in {pages}:\n"
        "    app = AppTest.from_file(page, default_timeout=60).run()\n"
        "    assert not app.exception, (page, app.exception)\n"
        "    assert not {'torch', 'ray'} & set(sys.modules), page\n"
        "    print('drawn')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert result.stdout.split() == ["drawn"] * len(pages), result.stdout + result.stderr


def test_a_gpu_box_trains_and_certifies_without_the_dashboards_packages(home):
    """duckdb, streamlit, plotly and pandas hidden: `run` works, and publishing is left to another machine.

    Nor does it load torch's compiler, which would cost every job seconds at its start.
    """
    code = (
        "import sys\n"
        "for name in ('duckdb', 'streamlit', 'plotly', 'pandas', 'PIL'): sys.modules[name] = None\n"
        "from backend.cli import main\n"
        "status = main('run --dataset digits --epochs 1 --n 50 --n0 10 --every 100'.split())\n"
        "loaded = 'torch._dynamo' in sys.modules\n"
        "sys.exit(status or loaded or main(['runs']) != 1)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert result.returncode == 0, result.stderr
    assert "certified 5/5 images" in result.stdout
    (last,) = result.stderr.splitlines()[-1:]
    assert last.endswith("which is not installed here: pip install -r requirements.txt")
