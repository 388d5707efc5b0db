"""Stability training: Li et al., Certified Adversarial Robustness with Additive Noise, NeurIPS 2019."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from backend.spec import hyper
from backend.training.methods import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Stability(Method):
    """CE(F(x), y) + λ H(F(x), F(x+δ)): the prediction under noise follows the one without; gradients flow through both."""

    title = "Stability"
    paper = "Li et al., NeurIPS 2019"
    formula = r"\mathrm{CE}\big(F(x),\, y\big) + \lambda\, H\big(F(x),\, F(x+\delta)\big)"
    paper_values: ClassVar = {
        (data, sigma): {"lam": 2.0} for data in ("mnist", "cifar10") for sigma in (0.25, 0.5, 1.0)
    }

    lam: float = hyper(2.0, "λ: weight of the stability term", low=0, high=1000)

    def loss_terms(self, classifier, batch):
        from torch.nn.functional import cross_entropy

        from backend.training.noise import noisy_logits

        clean = classifier(batch.x).float()  # (B, K)
        logits = noisy_logits(classifier, batch.x, batch.noise)  # (1, B, K)
        terms = {"cross_entropy": cross_entropy(clean, batch.y), "stability": self.lam * stability(clean, logits)}
        return logits, terms


def stability(clean: "Tensor", logits: "Tensor") -> "Tensor":
    """(1/m) Σ_i H(F(x), F(x+δ_i)), averaged over the batch, of logits (B, K) without noise and (m, B, K) under it."""
    return -(clean.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()


METHOD = Stability
