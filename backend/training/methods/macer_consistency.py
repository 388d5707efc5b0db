"""MACER with Consistency regularization: not in a paper; the same composition as over Gaussian."""

from dataclasses import dataclass
from typing import ClassVar

from backend.spec import hyper
from backend.training.methods.consistency import Consistency, Regularised
from backend.training.methods.macer import Macer, macer_terms


@dataclass(frozen=True)
class MacerConsistency(Regularised, Macer):
    """MACER's loss + L_con over its m noise vectors; λ is that of the consistency term, as wherever it is added."""

    title = "MACER + Consistency"
    paper = "composition; Zhai et al., ICLR 2020, and Jeong & Shin, NeurIPS 2020"
    formula = (
        r"-\log \hat{F}(x)_y + \lambda_M\, \frac{\sigma}{2}\, (\gamma - \xi) \\ \times \mathbf{1}\big[\operatorname{arg\,max} G = y,\; \xi \le \gamma\big] \\ + "
        + Regularised.formula
    )
    paper_values: ClassVar = {  # those of both papers; MACER's λ is λ_M here
        cell: {("lam_macer" if name == "lam" else name): value for name, value in values.items()}
        | {"lam": Consistency.paper_values[cell]["lam"]}
        for cell, values in Macer.paper_values.items()
    }
    quick_values: ClassVar = {"lam_macer": 1.0, "m": 4}

    deferred: int = hyper(0, "epochs at the start in which λ_M is 0", low=0, high=100_000, of_epochs=90)

    m: int = hyper(16, "m: noise vectors per image, at least 2", low=2, high=256)
    lam_macer: float = hyper(16.0, "λ_M: weight of MACER's robustness loss", low=0, high=1000)

    def loss_terms(self, classifier, batch):
        from backend.training.noise import noisy_logits

        logits = noisy_logits(classifier, batch.x, batch.noise)  # (m, B, K)
        lam = self.lam_macer if batch.epoch >= self.deferred else 0.0
        terms = macer_terms(logits, batch.y, batch.sigma, lam, self.beta, self.gamma)
        return logits, terms | self.consistency(logits)


METHOD = MacerConsistency
