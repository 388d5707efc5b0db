"""The loss of Consistency regularization, by hand."""

from math import log

import pytest
import torch

from backend.spec import SpecError
from backend.training.methods import make
from backend.training.methods.consistency import consistency_terms
from tests.training import kl, logits_of


def entropy(p):
    return -sum(a * log(a) for a in p)


P, Q, R = (0.7, 0.2, 0.1), (0.3, 0.3, 0.4), (0.1, 0.8, 0.1)


@pytest.mark.parametrize("predictions", [(P, Q), (P, Q, R), (Q, Q)])
def test_consistency_forms_by_hand(predictions):
    m = len(predictions)
    mean = [sum(p[c] for p in predictions) / m for c in range(3)]
    divergence = sum(kl(mean, p) for p in predictions) / m
    logits = logits_of(*predictions)
    lam, eta = 10.0, 0.5
    default = consistency_terms(logits, "default", lam, eta)
    assert float(default["consistency"]) == pytest.approx(lam * divergence, abs=1e-12)
    assert float(default["entropy"]) == pytest.approx(eta * entropy(mean), abs=1e-12)
    xent = consistency_terms(logits, "xent", lam, eta)
    assert float(xent["consistency"]) == pytest.approx(lam * (divergence + entropy(mean)), abs=1e-12)
    assert float(sum(consistency_terms(logits, "kl", lam, eta).values())) == pytest.approx(lam * divergence, abs=1e-12)


def test_two_numbers_by_hand():
    """F_1 = (1/2, 1/2), F_2 = (1, 0) but for ε: F̂ = (3/4, 1/4)."""
    logits = torch.tensor([[[0.0, 0.0]], [[40.0, 0.0]]], dtype=torch.float64)
    assert float(consistency_terms(logits, "mse", 2.0, 0)["consistency"]) == pytest.approx(2 * (0.25 + 0.25))
    cross = 0.5 * (log(2) + 0.25 * 40)  # H(F̂, F_1) = ln 2, H(F̂, F_2) = 40/4
    assert float(consistency_terms(logits, "xent", 1.0, 0)["consistency"]) == pytest.approx(cross)


def test_consistency_is_averaged_over_the_batch():
    one, other = logits_of(P, Q), logits_of(Q, R)
    both = torch.cat([one, other], 1)
    for form in ("default", "xent", "kl", "mse"):
        terms = [sum(consistency_terms(x, form, 3.0, 0.5).values()) for x in (one, other, both)]
        assert float(terms[2]) == pytest.approx(float(terms[0] + terms[1]) / 2)


@pytest.mark.parametrize("form", ["default", "xent", "kl", "mse"])
def test_gradients_by_finite_differences(form):
    """Gradients flow through the mean prediction too."""
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sum(consistency_terms(z, form, 5.0, 0.5).values()), logits)


@pytest.mark.parametrize("form", ["default", "xent", "kl", "mse"])
def test_certain_predictions_give_finite_gradients(form):
    logits = torch.tensor([[[200.0, -200.0]], [[-200.0, 200.0]]], requires_grad=True)
    loss = sum(consistency_terms(logits, form, 1.0, 0.5).values())
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_m_of_one_is_refused():
    with pytest.raises(SpecError, match=r"consistency\.m must be from 2"):
        make("consistency", {"m": 1})
