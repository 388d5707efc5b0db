"""Batch norms as part of the convolutions before them: in eval mode the same function, in fewer passes over memory."""

from collections import Counter
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(classifier: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """A copy of the classifier, in eval mode, without those batch norms whose input is a convolution's output, for images (C, H, W).

    The classifier itself where it has none, or where the copy computes something else. Which convolution comes before which
    norm is seen in a forward pass: to trace a network with torch.fx changes nn.Module for the whole process meanwhile, and
    the forward passes of its other threads fail.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in classifier.modules()):
        return classifier
    copy = deepcopy(classifier).eval()
    number = torch.Size(shape).numel()
    x = torch.linspace(0, 1, number, device=next(copy.parameters()).device).view(1, *shape)
    with torch.no_grad():
        pairs, before = _pairs(copy, x)
        for convolution, norm in pairs:
            fused = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = fused.weight, fused.bias
        _replace(copy, {norm for _, norm in pairs})
        same = torch.allclose(copy(x), before, rtol=1e-3, atol=1e-3 * before.abs().max().item())
    return copy if same else classifier


def _pairs(network: nn.Module, x: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Tensor]:
    """Convolutions and the norms that take their output, unchanged, and nothing else; and the network's output on x."""
    outputs, pairs, calls = [], [], Counter()

    def see(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        calls[layer] += 1
        if isinstance(layer, nn.Conv2d):
            outputs.append((output, output._version, layer))  # an activation in place is another version
            return
        for seen, version, convolution in outputs:
            if seen is inputs[0] and seen._version == version:
                pairs.append((convolution, layer))

    watched = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(see) for layer in watched]
    output = network(x)
    for hook in hooks:
        hook.remove()
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1], output


def _replace(network: nn.Module, norms: set[nn.Module]) -> None:
    for layer in list(network.modules()):
        for name, child in layer.named_children():
            if child in norms:
                setattr(layer, name, nn.Identity())
