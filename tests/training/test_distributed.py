"""Two processes on one run, started by torchrun, on the CPU."""

import json
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


def test_a_step_of_two_processes_is_one_over_the_whole_batch(tmp_path):
    """Gradients of a linear network over both shares are those over the batch in one process, and equal on both sides."""
    script = tmp_path / "step.py"
    script.write_text(
        "import json, sys, torch\n"
        "from backend.training.attack import frozen\n"
        "from backend.spec import RECIPES\n"
        "from backend.training.distributed import leave, rank, share, together\n"
        "from backend.training.sgd import SGD\n"
        "torch.manual_seed(0)\n"
        "x, y = torch.randn(10, 4, dtype=torch.float64), torch.arange(10) % 3\n"
        "net = torch.nn.Linear(4, 3, dtype=torch.float64)\n"
        "whole = torch.nn.functional.cross_entropy(net(x), y)\n"
        "expected = torch.autograd.grad(whole, net.weight)[0]\n"
        "called = together(net, SGD(net, RECIPES['quick']), torch.device('cpu'))\n"
        "own = share(torch.arange(10))\n"
        "with frozen(called) as still: still(x[own])\n"
        "torch.nn.functional.cross_entropy(called(x[own]), y[own]).backward()\n"
        "error = float((net.weight.grad - expected).abs().max())\n"
        "open(f'{sys.argv[1]}/{rank()}.json', 'w').write(json.dumps([error, own.tolist()]))\n"
        "leave()\n"
        "import os; os._exit(0)\n"  # torch's threads may abort the interpreter's end
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, tmp_path]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "ignore"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    (first, own), (second, other) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert max(first, second) < 1e-12
    assert sorted(own + other) == list(range(10))
