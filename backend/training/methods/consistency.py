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
class Regularised(Method):
    """A method with L_con added to its loss: the fields, and the terms."""

    formula = (  # of L_con, form `default`
        r"\frac{\lambda}{m} \sum_{i=1}^{m} \mathrm{KL}\big(\hat{F}(x) \,\big\|\, F(x+\delta_i)\big)"
        r" \\ + \eta\, H\big(\hat{F}(x)\big)"
    )

    lam: float = hyper(
        5.0, "λ: weight of the consistency term; larger trades accuracy for robustness", low=0, high=1000
    )
    eta: float = hyper(0.5, "η: weight of the entropy of the mean prediction (form `default` alone)", low=0, high=1000)
    form: str = hyper("default", "form of the consistency term", choices=FORMS)

    def consistency(self, logits: "Tensor") -> dict[str, "Tensor"]:
        """`consistency_terms` of logits (m, B, K) with these hyper-parameters."""
        return consistency_terms(logits, self.form, self.lam, self.eta)


@dataclass(frozen=True)
class Consistency(Regularised):
    """(1/m) Σ_i CE(F(x+δ_i), y) + L_con: predictions under the m noise vectors are pulled towards their mean."""

    title = "Gaussian + Consistency"
    paper = "Jeong & Shin, NeurIPS 2020"
    formula = r"\frac{1}{m} \sum_{i=1}^{m} \mathrm{CE}\big(F(x+\delta_i),\, y\big) \\ + " + Regularised.formula
    paper_values: ClassVar = {
        ("mnist", 0.25): {"lam": 10.0},
        ("mnist", 0.5): {"lam": 5.0},
        ("mnist", 1.0): {"lam": 5.0},
        ("cifar10", 0.25): {"lam": 20.0},
        ("cifar10", 0.5): {"lam": 10.0},
        ("cifar10", 1.0): {"lam": 10.0},
        ("imagenet", 0.5): {"lam": 5.0},
        ("imagenet", 1.0): {"lam": 5.0, "eta": 0.1},
    }

    m: int = hyper(2, "m: noise vectors per image, at least 2", low=2, high=64)

    def loss_terms(self, classifier, batch):
        from backend.training.noise import mean_cross_entropy, noisy_logits

        logits = noisy_logits(classifier, batch.x, batch.noise)  # (m, B, K)
        return logits, {"cross_entropy": mean_cross_entropy(logits, batch.y)} | self.consistency(logits)


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
