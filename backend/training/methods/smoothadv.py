"""SmoothAdv: Salman et al., Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers, NeurIPS 2019."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from backend.spec import hyper
from backend.training.methods import Batch, Method

if TYPE_CHECKING:
    from torch import Tensor, nn

ATTACKS = ("pgd", "ddn")


@dataclass(frozen=True)
class SmoothAdv(Method):
    """(1/m) Σ_i CE(F(x'+δ_i), y), where x' attacks the smoothed soft classifier through the same m noise vectors."""

    title = "SmoothAdv"
    paper = "Salman et al., NeurIPS 2019"
    formula = (
        r"\frac{1}{m} \sum_{i=1}^{m} \mathrm{CE}\big(F(x'+\delta_i),\, y\big), \\ "
        r"x' \approx \operatorname*{arg\,max}_{\|x'-x\|_2 \le \varepsilon,\; x' \in [0,1]^d} -\log \hat{F}(x')_y"
    )
    paper_values: ClassVar = {
        **{("mnist", sigma): {"epsilon": 255 / 256, "m": 4} for sigma in (0.25, 0.5, 1.0)},
        ("cifar10", 0.5): {"epsilon": 255 / 256, "m": 8},
    }

    quick_values: ClassVar = {"steps": 2, "m": 2}
    # At σ = 1 and the full ε from the first epoch on, the loss stayed at log 10 for four epochs (one run); with this it is 1.06 after one.
    quick_values_at: ClassVar = {("mnist", 1.0): {"warmup": 4}}

    epsilon: float = hyper(255 / 256, "ε: ℓ2 norm of the attack at most, images in [0, 1]", low=0.001, high=100)
    steps: int = hyper(10, "T: steps of the attack", low=1, high=1000)
    m: int = hyper(4, "m: noise vectors per image", low=1, high=64)
    warmup: int = hyper(10, "epochs over which ε grows linearly to its value", low=1, high=100_000, of_epochs=90)
    attack: str = hyper("pgd", "pgd: projected gradient; ddn: decoupled direction and norm", choices=ATTACKS)

    def loss_terms(self, classifier, batch):
        from backend.training.noise import mean_cross_entropy, noisy_logits

        logits = noisy_logits(classifier, self.attacked(classifier, batch), batch.noise)  # (m, B, K)
        return logits, {"cross_entropy": mean_cross_entropy(logits, batch.y)}

    def attacked(self, classifier: "nn.Module", batch: Batch) -> "Tensor":
        """x' (B, C, H, W), within this epoch's ε of x and in [0, 1]."""
        from backend.training import attack

        epsilon = self.epsilon * min(1.0, (batch.epoch + 1) / self.warmup)
        return getattr(attack, self.attack)(
            classifier, batch.x, batch.y, batch.noise, epsilon, self.steps, batch.generator
        )


METHOD = SmoothAdv
