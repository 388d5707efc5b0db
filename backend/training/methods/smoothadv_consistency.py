"""SmoothAdv with Consistency regularization: Jeong & Shin, NeurIPS 2020."""

from dataclasses import dataclass
from typing import ClassVar

from backend.spec import hyper
from backend.training.methods.consistency import Regularised
from backend.training.methods.smoothadv import SmoothAdv


@dataclass(frozen=True)
class SmoothAdvConsistency(Regularised, SmoothAdv):
    """SmoothAdv's loss + L_con of the predictions at x' under the m noise vectors of the attack."""

    title = "SmoothAdv + Consistency"
    paper = "Jeong & Shin, NeurIPS 2020"
    formula = (
        r"\frac{1}{m} \sum_{i=1}^{m} \mathrm{CE}\big(F(x'+\delta_i),\, y\big) \\ + "
        + Regularised.formula.replace("(x", "(x'")
    )
    paper_values: ClassVar = {
        **{key: value | {"lam": 1.0} for key, value in SmoothAdv.paper_values.items()},
        ("cifar10", 0.25): {"epsilon": 255 / 256, "m": 4, "lam": 2.0},
        ("cifar10", 0.5): {"epsilon": 2.0, "m": 2, "lam": 1.0},
        ("cifar10", 1.0): {"epsilon": 2.0, "m": 2, "lam": 1.0},
    }

    m: int = hyper(4, "m: noise vectors per image, at least 2", low=2, high=64)
    lam: float = hyper(
        1.0, "λ: weight of the consistency term; larger trades accuracy for robustness", low=0, high=1000
    )

    def loss_terms(self, classifier, batch):
        logits, terms = SmoothAdv.loss_terms(self, classifier, batch)
        return logits, terms | self.consistency(logits)


METHOD = SmoothAdvConsistency
