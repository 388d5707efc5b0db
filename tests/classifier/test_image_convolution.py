"""The gradient of the first convolution for the image."""

import pytest
import torch
from torch import nn

from backend.classifier.architectures import ARCHITECTURES
from backend.classifier.image_convolution import ImageConv2d
from tests.devices import on_each_device


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), ((1, 2), (2, 0))])
def test_the_gradient_is_that_of_finite_differences(stride, padding):
    """In float64, of two colours, kernels and images that are not square."""
    layer = ImageConv2d(2, 3, (3, 2), stride, padding).double().requires_grad_(False)
    x = torch.rand(2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


def test_the_gradient_by_hand():
    """One pixel of 3×3 lies under a kernel of ones at as many places as it has neighbours in both directions."""
    layer = ImageConv2d(1, 1, 2, bias=False).requires_grad_(False)
    layer.weight.fill_(1)
    x = torch.zeros(1, 1, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert gradient[0, 0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"groups": 2},
        {"padding": "same"},
        {"bias": False},
        {},
    ],
    ids=str,
)
def test_what_is_no_plain_convolution_goes_torchs_way(options):
    """The output and the gradient are those of nn.Conv2d with the same weights, by the matrix product where that is defined."""
    torch.manual_seed(0)
    layer, usual = (kind(2, 4, 3, **options).double().requires_grad_(False) for kind in (ImageConv2d, nn.Conv2d))
    usual.load_state_dict(layer.state_dict())
    x = torch.rand(2, 2, 7, 7, dtype=torch.float64, requires_grad=True)
    outputs = layer(x), usual(x)
    by_product = outputs[0].grad_fn.name() == "_ForImageBackward"
    assert by_product == (not set(options) - {"bias"})
    assert torch.equal(*outputs)
    mine, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in outputs)
    assert torch.allclose(mine, theirs)
    assert layer(x.detach()[0]).shape == usual(x.detach()[0]).shape  # one image alone


@on_each_device
@pytest.mark.parametrize("name", ["lenet", "smallcnn"])
def test_frozen_networks_have_the_gradients_of_others(name, device):
    """Weights that take gradients go torch's own way: the same output to the bit, the same gradient but for rounding."""
    torch.manual_seed(0)
    network = ARCHITECTURES[name]((1, 28, 28), 10).to(device)
    assert isinstance(network[0], ImageConv2d)
    x = torch.rand(5, 1, 28, 28, device=device, requires_grad=True)
    found = []
    for learns in (True, False):
        network.requires_grad_(learns)
        logits = network(x)
        found.append((logits, torch.autograd.grad(logits.logsumexp(1).sum(), x)[0]))
    (logits, gradient), (still, of_still) = found
    assert torch.equal(logits, still)
    assert torch.allclose(gradient, of_still, rtol=1e-4, atol=1e-6)
    assert gradient.abs().max() > 1e-3


def test_the_gradient_under_autocast_is_of_the_image_s_type():
    torch.manual_seed(0)
    layer, x = ImageConv2d(1, 4, 3).requires_grad_(False), torch.rand(2, 1, 8, 8, requires_grad=True)
    (exact,) = torch.autograd.grad(layer(x).square().sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(x)
    (gradient,) = torch.autograd.grad(outputs.float().square().sum(), x)
    assert outputs.dtype == torch.bfloat16
    assert gradient.dtype == torch.float32
    assert torch.allclose(gradient, exact, rtol=0, atol=0.03 * exact.abs().max())


def test_weights_that_learn_still_do():
    layer, x = ImageConv2d(1, 2, 3), torch.rand(1, 1, 5, 5, requires_grad=True)
    outputs = layer(x)
    assert outputs.grad_fn.name() != "_ForImageBackward"
    outputs.sum().backward()
    assert layer.weight.grad is not None
    layer.weight.requires_grad_(False)
    assert layer(x).grad_fn.name() != "_ForImageBackward"  # the bias learns
    assert isinstance(layer, nn.Conv2d)  # batch norms are folded into it as into others
