"""Consistency regularization: Jeong & Shin, NeurIPS 2020, Eq. 7 and its variants, over Gaussian augmentation."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, ClassVar

from backend.spec import hyper
from backend.training.methods import Method

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("default", "xent", "kl", "mse")


@dataclass(frozen=True)
class Consistency(Method):
    """(1/m) Σ_i CE(F(x+δ_i), y) + L_con: predictions under the m noise vectors are pulled towards their mean."""

    title = "Gaussian + Consistency"
    paper = "Jeong & Shin, NeurIPS 2020"
    paper_values: ClassVar = {
        ("mnist", 0.25): {"lam": 10.0},
        ("mnist", 0.5): {"lam": 5.0},
        ("mnist", 1.0): {"lam": 5.0},
    }

    lam: float = hyper(
        5.0, "λ: weight of the consistency term; larger trades accuracy for robustness", low=0, high=1000
    )
    eta: float = hyper(0.5, "η: weight of the entropy of the mean prediction (form `default` alone)", low=0, high=1000)
    m: int = hyper(2, "m: noise vectors per image; at m = 1 the term vanishes", low=2, high=64)
    form: str = hyper("default", "form of the consistency term", choices=FORMS)

    @property
    def noises(self):
        return self.m

    @property
    def chunks(self):
        return self.m

    def loss_terms(self, classifier, x, y, noise):
        from torch.nn.functional import cross_entropy

        from backend.training.noise import noisy_logits

        logits = noisy_logits(classifier, x, noise)  # (m, B, K)
        labels = y.repeat(len(logits))
        terms = {"cross_entropy": cross_entropy(logits.flatten(0, 1), labels)}
        return logits, terms | consistency_terms(logits, self.form, self.lam, self.eta)


def consistency_terms(logits: "Tensor", form: str, lam: float, eta: float) -> dict[str, "Tensor"]:
    """L_con of logits (m, B, K), averaged over the batch, as named scalars. F̂ is the mean of the m predictions.

    default: λ (1/m) Σ KL(F̂ ‖ F_i) + η H(F̂);  xent: λ (1/m) Σ [KL(F̂ ‖ F_i) + H(F̂)];  kl: λ (1/m) Σ KL(F̂ ‖ F_i);
    mse: λ ‖F_1 − F_2‖² at m = 2; at larger m the mean over i of λ ‖F_i − F_{i+1}‖², cyclic (the same at m = 2).
    Gradients flow through F̂ as well.
    """
    log_f = logits.log_softmax(-1)
    if form == "mse":
        f = log_f.exp()
        return {"consistency": lam * (f - f.roll(-1, 0)).square().sum(-1).mean()}
    log_mean = log_f.logsumexp(0) - log(len(logits))  # log F̂, (B, K): no log of an underflown probability
    mean = log_mean.exp()
    entropy = -(mean * log_mean).sum(-1).mean()
    cross = -(mean * log_f).sum(-1).mean()  # (1/m) Σ H(F̂, F_i) = (1/m) Σ KL(F̂ ‖ F_i) + H(F̂)
    if form == "xent":
        return {"consistency": lam * cross}
    terms = {"consistency": lam * (cross - entropy)}
    return terms | {"entropy": eta * entropy} if form == "default" else terms


METHOD = Consistency
