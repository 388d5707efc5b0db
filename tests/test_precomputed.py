"""The shipped results: complete, within their budget, certified by this code with the weights that are shipped."""

import pytest
import torch

from backend.certification.certify import certify
from backend.certification.confidence import lower_bound, radius
from backend.certification.metrics import acr
from backend.classifier.weights import unpack
from backend.datasets import DATASETS
from backend.home import PRECOMPUTED
from backend.plan import plan
from backend.precompute import CLAIM, queue
from backend.run import all_runs
from backend.shipping import MOST_BYTES, on_disk, with_weights
from backend.spec import Certification
from backend.store import queries

RUNS = {run.run_id: run for run in all_runs(PRECOMPUTED)}
WITH_WEIGHTS = {run_id: run for run_id, run in RUNS.items() if run.weights() is not None}
TABLE = {spec.run_id for spec in queue(gpu=False)[0].specs}


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_consistency_is_above_gaussian(sigma, published):
    gaussian, consistency = (
        RUNS[plan("mnist", method, sigma, weights_dtype="float16", certification=Certification()).run_id].certificates()
        for method in ("gaussian", "consistency")
    )
    assert [c.idx for c in gaussian] == [c.idx for c in consistency] == list(range(0, 10_000, 20))
    assert acr(consistency) > acr(gaussian)
    gains = queries.acr_gains(list(TABLE), [("gaussian", "consistency")])
    gain = gains[gains.sigma == sigma].iloc[0]
    assert gain.gain == pytest.approx(acr(consistency) - acr(gaussian))
    assert queries.paired([gain.baseline_id], [gain.run_id]).acr_low > 0


SIX = ["gaussian", "stability", "macer", "consistency", "smoothadv", "smoothadv_consistency"]


def test_the_papers_order_at_sigma_one_half(published):
    """Six methods, one recipe, the same images: what the README says of their order, as paired 95 % intervals allow."""
    ids = {
        method: plan("mnist", method, 0.5, weights_dtype="float16", certification=Certification()).run_id
        for method in SIX
    }
    low = {(a, b): queries.paired([ids[a]], [ids[b]]).acr_low for a in SIX for b in SIX if a != b}
    for worse, better in (
        ("gaussian", "stability"), ("stability", "consistency"), ("macer", "consistency"), ("consistency", "smoothadv"),
        ("consistency", "smoothadv_consistency"),
    ):  # fmt: skip
        assert low[worse, better] > 0
    assert low["macer", "stability"] > 0  # not the paper's order
    for a, b in (("gaussian", "macer"), ("smoothadv", "smoothadv_consistency")):  # not told apart
        assert low[a, b] < 0
        assert low[b, a] < 0


@pytest.mark.parametrize("run", RUNS.values(), ids=lambda run: run.run_id)
def test_folders_are_complete_and_their_claims_follow_from_the_counts(run):
    assert run.run_id == run.spec.run_id
    assert run.state()["state"] == "finished"
    assert len(run.epochs()) == run.spec.recipe.epochs
    assert run.weights_sha256() in (None, run.environment()["weights_sha256"])
    assert run.environment()["commit"]
    alpha = run.spec.certification.alpha
    for c in run.certificates():
        assert c.p_lower == pytest.approx(lower_bound(c.top_count, c.n, alpha), abs=2e-12)
        assert c.radius == pytest.approx(radius(c.p_lower, run.spec.sigma), abs=2e-12)
        assert c.correct == (c.predict == c.label)
        assert (c.predict == -1) == (c.p_lower <= 0.5)


def test_a_network_a_cell_travels(home):
    assert set(WITH_WEIGHTS) == with_weights(queue(gpu=False))
    cells = {(run.spec.dataset, run.spec.method, run.spec.sigma) for run in WITH_WEIGHTS.values()}
    assert len(WITH_WEIGHTS) == len(cells) == 3 * len(SIX) + len(CLAIM)


@pytest.mark.parametrize("run", WITH_WEIGHTS.values(), ids=lambda run: run.run_id)
def test_the_shipped_weights_give_the_shipped_certificates(run):
    """One image again, of which some votes are for other classes.

    Other processors round convolutions differently: a few votes of 10 000 may flip. A GPU drew other noise: six standard deviations.
    """
    rows = run.certificates()
    shipped = min(rows, key=lambda c: abs(c.top_count / c.n - 0.8))
    dataset, device = DATASETS[run.spec.dataset], torch.device("cpu")
    classifier = unpack(run.weights(), run.spec.architecture, dataset, device)
    (again,) = certify(run.spec, classifier, dataset, device, {c.idx for c in rows} - {shipped.idx})
    assert (again.idx, again.label, again.predict) == (shipped.idx, shipped.label, shipped.predict)
    p = shipped.top_count / shipped.n
    other_noise = 0.0 if run.devices()[-1].startswith("cpu") else 6 * (2 * shipped.n * p * (1 - p)) ** 0.5
    assert again.top_count == pytest.approx(shipped.top_count, abs=5 + other_noise)


def test_the_budget():
    assert on_disk(PRECOMPUTED.rglob("*")) < MOST_BYTES
