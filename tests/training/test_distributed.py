"""Two processes on one run, started by torchrun, on the CPU."""

import os
import subprocess
import sys

import pytest

from backend.home import CHECKOUT, runs_root
from backend.run import Run

SMALL = ["--dataset", "digits", "--epochs", "6", "--sigma", "0.25", "--m", "2", "--steps", "2", "--epsilon", "0.25"]


def torchrun(method, *arguments):
    given = SMALL[:6] if method == "stability" else SMALL
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "--",
        "backend",
    ]
    result = subprocess.run(
        [*command, "train", "--method", method, *given, *arguments],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = runs_root().glob(f"digits-smallcnn-{method}-*")
    return Run(folder)


@pytest.mark.parametrize("method", ["stability", "smoothadv_consistency"])
def test_two_processes_train_one_run(method, home):
    """Two forward passes a step; an attack inside the step. The rows are one run's, and it learns."""
    run = torchrun(method)
    rows = run.epochs()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["accuracy"] > 0.5
    assert run.environment()["processes"] == 2
    assert run.state()["state"] == "finished"
    assert run.weights()
