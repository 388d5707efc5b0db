"""Stability training with Consistency regularization: not in a paper; the same composition as over Gaussian."""

from dataclasses import dataclass

from backend.spec import hyper
from backend.training.methods.consistency import Regularised
from backend.training.methods.stability import stability


@dataclass(frozen=True)
class StabilityConsistency(Regularised):
    """CE(F(x), y) + λ_s (1/m) Σ_i H(F(x), F(x+δ_i)) + L_con over the m noise vectors."""

    title = "Stability + Consistency"
    paper = "composition; Li et al., NeurIPS 2019, and Jeong & Shin, NeurIPS 2020"
    formula = (
        r"\mathrm{CE}\big(F(x),\, y\big) \\ + \frac{\lambda_s}{m} \sum_{i=1}^{m} H\big(F(x),\, F(x+\delta_i)\big) \\ + "
        + Regularised.formula
    )

    lam_stability: float = hyper(2.0, "λ_s: weight of the stability term", low=0, high=1000)
    m: int = hyper(2, "m: noise vectors per image", low=2, high=64)

    def loss_terms(self, classifier, batch):
        from torch.nn.functional import cross_entropy

        from backend.training.noise import noisy_logits

        clean = classifier(batch.x).float()  # (B, K)
        logits = noisy_logits(classifier, batch.x, batch.noise)  # (m, B, K)
        terms = {
            "cross_entropy": cross_entropy(clean, batch.y),
            "stability": self.lam_stability * stability(clean, logits),
        }
        return logits, terms | self.consistency(logits)


METHOD = StabilityConsistency
