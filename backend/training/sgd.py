"""SGD with momentum, by torch's fused step.

torch.optim.SGD does the same, but to make one loads torch's compiler: four seconds at the start of every job.
"""

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from backend.spec import Recipe


class SGD:
    """v ← momentum · v + gradient + weight_decay · w and w ← w − lr · v, for every parameter w of a network."""

    def __init__(self, classifier: nn.Module, recipe: Recipe):
        self.parameters = dict(classifier.named_parameters())
        # None before the first step, and without momentum.
        self.velocity: dict[str, Tensor | None] = dict.fromkeys(self.parameters)
        self.fixed = {
            "momentum": recipe.momentum, "weight_decay": recipe.weight_decay,
            "dampening": 0.0, "nesterov": False, "maximize": False, "fused": True,
        }  # fmt: skip

    def step(self, loss: Tensor, lr: float | Tensor) -> None:
        """One step down the gradient of a loss (); lr may be a tensor () on the device."""
        parameters, velocity = list(self.parameters.values()), list(self.velocity.values())
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        with torch.no_grad():
            sgd(parameters, [parameter.grad for parameter in parameters], velocity, lr=lr, **self.fixed)
        self.velocity = dict(zip(self.parameters, velocity, strict=True))
