"""Logit pairing: after Kannan, Kurakin & Goodfellow, Adversarial Logit Pairing, 2018, with Gaussian noise in place of the attack."""

from dataclasses import dataclass

from backend.spec import hyper
from backend.training.methods import Method


@dataclass(frozen=True)
class LogitPairing(Method):
    """(1/m) Σ_i CE(F(x+δ_i), y) + λ (1/m) Σ_i ‖f(x+δ_i) − f̄(x)‖²/K: the logits under noise are pulled towards their mean f̄."""

    title = "Logit pairing"
    paper = "after Kannan et al., 2018"
    formula = r"\frac{1}{m} \sum_{i=1}^{m} \mathrm{CE}\big(F(x+\delta_i),\, y\big) + \frac{\lambda}{m K} \sum_{i=1}^{m} \|f(x+\delta_i) - \bar{f}(x)\|_2^2"

    lam: float = hyper(0.5, "λ: weight of the pairing term", low=0, high=1000)
    m: int = hyper(2, "m: noise vectors per image, at least 2", low=2, high=64)

    def loss_terms(self, classifier, batch):
        from backend.training.noise import mean_cross_entropy, noisy_logits

        logits = noisy_logits(classifier, batch.x, batch.noise)  # (m, B, K)
        pairing = (logits - logits.mean(0)).square().mean()
        return logits, {"cross_entropy": mean_cross_entropy(logits, batch.y), "pairing": self.lam * pairing}


METHOD = LogitPairing
