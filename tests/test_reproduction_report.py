"""What docs/reproduction.md and docs/fashion-mnist.md say is what the store says."""

from functools import partial

import pytest

from backend.home import CHECKOUT, PRECOMPUTED, runs_root
from backend.plan import plan
from backend.reproduction import cells
from backend.reproduction_report import report
from backend.run import find_run
from backend.store import queries
from backend.store.publish import publish
from tests.app import imitate


def test_the_report_says_what_the_store_says(published):
    text = report("mnist")
    runs = queries.runs().query("dataset == 'mnist'")
    peers = queries.published_groups("mnist", 10_000, 100, 0.001, "test/every 20")
    for cell in cells(runs, peers).itertuples():
        seeds = f" ({cell.our_seeds} seeds)" if cell.our_seeds > 1 else ""
        assert (
            f"| {cell.ours:.4f}{seeds} | {cell.theirs:.4f} ± {cell.their_sd:.4f} | {cell.difference:+.4f} ± {cell.half:.4f} | **{cell.verdict}** |"
            in text
        )
    assert "| 1.6653 ± 0.0007 |" in text  # the authors' table
    for run in runs[
        (runs.recipe == "quick") & runs.hyper.str.contains('"m": 4') & (runs.method == "consistency")
    ].itertuples():
        assert f"| {run.sigma:g} | {run.lam:g} | 4 | default | {run.acr:.4f} |" in text
    assert text.rstrip("\n") in (CHECKOUT / "docs" / "reproduction.md").read_text()  # export reproduction makes it anew
    garments = report("fashion_mnist")
    seeds = queries.runs().query("dataset == 'fashion_mnist' and method == 'consistency' and sigma == 0.25")
    assert (
        f"| 0.25 | Gaussian + Consistency | quick, 8 epochs | {seeds.acr.mean():.4f} (5 seeds) | {seeds.certified_accuracy_0.mean():.1%} | "
        "0.7436 (88.5%; cat-rs, n = 100,000, 10,000 images) |  |"
    ) in garments
    assert "| 1: " not in garments  # one seed
    assert "| **above** | 5: +0.0509 to +0.0554 | +0.0735 (cat-rs, at its own n) |" in garments
    assert "## The path" not in garments  # one λ a σ
    assert garments.rstrip("\n") in (CHECKOUT / "docs" / "fashion-mnist.md").read_text()
    with pytest.raises(ValueError, match="holds no certified run on cifar10"):
        report("cifar10")


def test_the_report_keeps_networks_and_entropies_apart(home):
    """Two architectures are two parts, each beside its own published networks alone; η = 0 is an ablation, not on the path."""
    shipped = find_run("mnist-lenet-consistency-s0.5-l5-seed0-e203f8c4", PRECOMPUTED)
    again = partial(
        plan, "mnist", "consistency", 0.5, weights_dtype="float16", certification=shipped.spec.certification
    )
    for spec in (shipped.spec, again(values={"eta": 0.0}), again(architecture="resnet20")):
        imitate(shipped, spec)
    publish((runs_root(),))
    acr = f"{queries.runs().acr[0]:.4f}"
    lenet, resnet = report("mnist").split("mnist, resnet20: ")
    path, ablations = lenet.split("## Other m")
    assert path.count(f"| quick | 0.5 | 5 | {acr} | 97.8% | 1.43") == 1
    assert f"| quick | 0.5 | 5 | 2 | default, η = 0 | {acr} | 97.8% | {acr} |  |" in ablations
    assert (
        f"| 0.5 | Gaussian + Consistency | quick, 8 epochs | {acr} | 97.8% |  |" in resnet
    )  # nothing is published of it
    assert "1.43" not in resnet
