"""SmoothMix: Jeong et al., Training Confidence-calibrated Smoothed Classifiers for Certified Robustness, NeurIPS 2021."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, ClassVar

from backend.spec import hyper
from backend.training.methods import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SmoothMix(Method):
    """(1/m) Σ_i CE(F(x⁰+δ_i), y) + η · warm-up · KL to (1−t) F̂(x⁰) + t · uniform at (1−t) x⁰ + t x', t ~ U[0, 1/2].

    x' is the end of an unconstrained ascent; x⁰ is x, or the first iterate (mix_step 1) within warm-up × step of x.
    """

    title = "SmoothMix"
    paper = "Jeong et al., NeurIPS 2021"
    formula = (
        r"\frac{1}{m} \sum_{i=1}^{m} \mathrm{CE}\big(F(x^0+\delta_i),\, y\big) \\ + \eta\, w\, \mathbf{1}\big[\operatorname{arg\,max} \hat{F}(x^0) = y\big] \\ "
        r"\times \frac{1}{m} \sum_{i=1}^{m} \mathrm{KL}\big(q \,\big\|\, F(x^{\mathrm{mix}}+\delta_i)\big), \\ q = (1-t)\,\hat{F}(x^0) + \tfrac{t}{K}, \\ "
        r"x^{\mathrm{mix}} = (1-t)\, x^0 + t\, x', \quad t \sim U[0, \tfrac{1}{2}]"
    )
    paper_values: ClassVar = {
        ("cifar10", 0.25): {"step": 0.5, "mix_step": 0},
        ("cifar10", 0.5): {"step": 1.0, "mix_step": 1},
        ("cifar10", 1.0): {"step": 2.0, "mix_step": 1},
    }

    eta: float = hyper(5.0, "η: weight of the mixed term", low=0, high=1000)
    m: int = hyper(2, "m: noise vectors per image", low=1, high=64)
    steps: int = hyper(4, "T: steps of the ascent", low=1, high=1000)
    step: float = hyper(1.0, "α: ℓ2 length of a step, images in [0, 1]", low=0.001, high=100)
    mix_step: int = hyper(0, "0: mix with x; 1: with the first iterate", choices=(0, 1))
    warmup: int = hyper(10, "epochs over which η grows linearly to its value", low=1, high=100_000, of_epochs=90)

    def loss_terms(self, classifier, batch):
        import torch

        from backend.training.attack import ascent, shortened
        from backend.training.noise import mean_cross_entropy, noisy_logits

        warm = min(1.0, (batch.epoch + 1) / self.warmup)
        iterates = ascent(classifier, batch.x, batch.y, batch.noise, self.step, self.steps, batch.generator)
        clean = batch.x
        if self.mix_step:
            clean = batch.x + shortened(iterates[0] - batch.x, warm * self.step)
        t = torch.rand((len(clean), 1), generator=batch.generator, device=clean.device) / 2  # (B, 1)
        mixed = clean + t[..., None, None] * (iterates[-1] - clean)
        logits = noisy_logits(classifier, clean, batch.noise)  # (m, B, K)
        mixed_logits = noisy_logits(classifier, mixed, batch.noise)
        terms = {"cross_entropy": mean_cross_entropy(logits, batch.y)}
        return logits, terms | {"mixed": self.eta * warm * mixed_term(logits, mixed_logits, batch.y, t)}


def mixed_term(logits: "Tensor", mixed_logits: "Tensor", y: "Tensor", t: "Tensor") -> "Tensor":
    """1[argmax F̂(x⁰) = y] · (1/m) Σ_i KL(target ‖ F(x^mix+δ_i)), averaged over the batch; gradients flow through F̂.

    logits, mixed_logits: (m, B, K); y: (B,); t: (B, 1), the weight of the uniform distribution in the target.
    """
    log_mean = logits.log_softmax(-1).logsumexp(0) - log(len(logits))  # (B, K)
    import torch

    target = (1 - t) * log_mean.exp() + t / logits.shape[-1]
    log_target = target.clamp_min(torch.finfo(target.dtype).tiny).log()  # 0 where F̂ is too small for a float and t = 0
    log_mixed = mixed_logits.log_softmax(-1).mean(0)  # (B, K): Σ target · log F is linear in log F
    divergence = (target * (log_target - log_mixed)).sum(-1)  # (B,)
    return ((log_mean.argmax(-1) == y) * divergence).mean()


METHOD = SmoothMix
