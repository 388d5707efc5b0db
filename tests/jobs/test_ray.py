"""A real Ray cluster of two nodes on this machine, in processes of its own; one node is killed in mid-run."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from backend.cli import main
from backend.home import CHECKOUT, runs_root
from backend.jobs.ray import LOSSES, Nodes, Part
from backend.jobs.worker import work
from backend.plan import sweep
from backend.rows import Certificate, Checkpoint, Epoch
from backend.run import Run
from backend.spec import Certification
from backend.store import queries

RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_worker_niceness": "0",  # Ray's 15 would starve beside other tests
    "PYTHONWARNINGS": "ignore",
}
# The head computes nothing; each node is one CPU. Started far from the checkout: the code must travel.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False} | small)
nodes = [cluster.add_node(num_cpus=1, **small), cluster.add_node(num_cpus=1, **small)]
print("address", cluster.address, flush=True)
for line in sys.stdin:
    (lost,) = [node for node in nodes if node.node_id.startswith(line.strip())]
    cluster.remove_node(lost, allow_graceful=False)
    print("lost", flush=True)
cluster.shutdown()
"""


class TwoNodes:
    def __init__(self, folder):
        self.errors = folder / "errors"
        for attempt in range(5):  # Ray gives a node's agents 15 s to start, which a busy machine does not always keep
            with self.errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", CLUSTER], cwd=folder, text=True, stderr=errors, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, env=os.environ | RAY | {"CERTSCOPE_HOME": str(folder)},
                )  # fmt: skip
            try:
                self.address = self.answer("address").split()[1]
                return
            except AssertionError:
                self.process.communicate()
                if attempt == 4:
                    raise

    def answer(self, word):
        for line in self.process.stdout:
            if line.startswith(word):
                return line
        raise AssertionError(self.errors.read_text()[-3000:])

    def lose(self, node):
        """Kill the node that a run's environment.json names."""
        self.process.stdin.write(f"{node.split('/')[1]}\n")
        self.process.stdin.flush()
        self.answer("lost")


def test_what_is_missing_is_said_in_a_sentence(home, monkeypatch, capsys):
    small = ["run", "--dataset", "digits", "--executor", "ray"]
    assert main([*small, "--address", "127.0.0.1:1"]) == 1
    assert "no Ray cluster answers at '127.0.0.1:1' ([Errno 111] Connection refused)" in capsys.readouterr().err
    assert main([*small, "--shards", "0"]) == 1
    assert "shards must be from 1 to 10000, not 0" in capsys.readouterr().err
    assert main(["run", "--dataset", "digits", "--shards", "2"]) == 1
    assert "--shards 2 wants --executor ray, not local" in capsys.readouterr().err
    monkeypatch.setattr("backend.jobs.ray.find_spec", lambda _: None)
    assert main(small) == 1
    assert "not installed here: pip install -r backend/jobs/requirements-ray.txt" in capsys.readouterr().err
    assert not runs_root().exists()


def test_what_a_successor_of_a_lost_node_need_not_do_again(digits_spec):
    """An epoch counts once its checkpoint is there; a row ends a row of losses."""
    part = Part(digits_spec(), None, None, set())
    epoch = Epoch(1, 1.0, 1.0, 0.1, 0.5, 0.9, {})
    assert list(part.take(epoch)) == []
    middle, final = Checkpoint(1, b"checkpoint"), Checkpoint(2, b"weights", final=True)
    assert list(part.take(middle)) == [epoch, middle]
    assert (part.checkpoint, part.weights, part.epoch) == (b"checkpoint", None, None)
    assert list(part.take(final)) == [final]
    assert part.weights == b"weights"
    for _ in range(LOSSES - 1):
        Nodes._lost(None, part, RuntimeError("the node died\nof this"))
    (row,) = part.take(Certificate(20, 7, 7, 1.25, 1, 0.5, 9990, 10_000, 100, 0.99))
    assert (part.done, part.losses) == ({row.idx}, 0)
    for _ in range(LOSSES - 1):
        Nodes._lost(None, part, RuntimeError("the node died"))
    with pytest.raises(RuntimeError, match="lost 5 times in a row without a row; last: the node died"):
        Nodes._lost(None, part, RuntimeError("the node died\nof this"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    nodes = TwoNodes(tmp_path_factory.mktemp("cluster"))
    yield nodes
    nodes.process.communicate(timeout=60)


def backend(cluster, verb, *arguments):
    command = [
        sys.executable,
        "-m",
        "backend",
        verb,
        *map(str, arguments),
        "--executor",
        "ray",
        "--address",
        cluster.address,
    ]
    return subprocess.Popen(
        command, cwd=CHECKOUT, env=os.environ | RAY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def to_the_end(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def results(run):
    """What must be equal: everything but times, in the order of the images."""
    epochs = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.epochs()]
    return sorted((replace(c, time=0.0) for c in run.certificates()), key=lambda c: c.idx), epochs, run.weights()


def undisturbed(spec, home):
    """The results of the same spec, on this machine."""
    run = Run.create(home / "undisturbed", spec)
    assert work(run, "cpu")
    return results(run)


def test_a_sharded_sweep_gives_what_one_process_gives(home, cluster):
    grid = ["--dataset", "digits", "--methods", "gaussian", "consistency", "--sigmas", 0.5, "--lams", 5, "--epochs", 2]
    certify = ["--n", 1000, "--n0", 20, "--every", 15]
    output = to_the_end(backend(cluster, "sweep", *grid, *certify, "--shards", 2))
    assert output.count("is finished") == 2, output
    specs = sweep(["gaussian", "consistency"], [0.5], [5.0], [0], dataset="digits", epochs=2,
                  certification=Certification(n=1000, n0=20, every=15))  # fmt: skip
    for spec in specs:
        run = Run(runs_root() / spec.run_id)
        assert run.state()["state"] == "finished"
        assert results(run) == undisturbed(spec, home)
        assert {"torch", "device", "commit", "weights_sha256"} <= run.environment().keys()
    assert {spec.run_id for spec in specs} <= set(queries.runs().run_id)


def test_a_node_lost_in_mid_run_costs_nothing(home, cluster):
    grid = ["--dataset", "digits", "--method", "gaussian", "--epochs", 3, "--n", 2000, "--n0", 20, "--every", 6]
    process = backend(cluster, "run", *grid)
    deadline = time.monotonic() + 240
    while not (folders := list(runs_root().glob("digits-*"))) or Run(folders[0]).count()[1] < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run = Run(folders[0])
    cluster.lose(run.environment()["node"])
    output = to_the_end(process)
    assert "goes on elsewhere from its last row" in output
    assert results(run) == undisturbed(run.spec, home)
    (earlier,) = run.environment()["earlier"]
    assert earlier["node"] != run.environment()["node"]
    assert 3 <= earlier["until_image_row"] < len(run.certificates())
