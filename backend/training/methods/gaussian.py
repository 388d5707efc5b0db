"""Gaussian augmentation: Cohen et al., Certified Adversarial Robustness via Randomized Smoothing, ICML 2019."""

from dataclasses import dataclass

from backend.training.methods import Method


@dataclass(frozen=True)
class Gaussian(Method):
    """CE(F(x+δ), y), one δ per image per step."""

    title = "Gaussian"
    paper = "Cohen et al., ICML 2019"
    formula = r"\mathrm{CE}\big(F(x+\delta),\, y\big)"

    def loss_terms(self, classifier, batch):
        from torch.nn.functional import cross_entropy

        from backend.training.noise import noisy_logits

        logits = noisy_logits(classifier, batch.x, batch.noise)  # (1, B, K)
        return logits, {"cross_entropy": cross_entropy(logits[0], batch.y)}


METHOD = Gaussian
