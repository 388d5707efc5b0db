"""Folding against the network as it was: the same function, whatever lies between convolution and norm."""

from threading import Event, Thread

import pytest
import torch
from torch import nn

from backend.classifier.architectures import network
from backend.classifier.folding import folded

SHAPE = (3, 32, 32)


def trained(net: nn.Module) -> nn.Module:
    """Norms with means, variances, weights and biases far from 0 and 1."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
    return net.eval().requires_grad_(False)


def norms(net: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


@pytest.mark.parametrize(
    ("name", "left"), [("resnet20", 0), ("resnet18", 0), ("mobilenet_v3_small", 0), ("densenet40", 39), ("lenet", 0)]
)
def test_the_function_is_the_same(name, left):
    """The norms of DenseNet-40 take what was joined, the first of them a convolution's output that is joined later."""
    net = trained(network(name, SHAPE, 10))
    had, x = norms(net), torch.rand(8, *SHAPE)
    before = net(x)
    flat = folded(net, SHAPE)
    assert (norms(net), norms(flat)) == (had, left)
    assert torch.equal(net(x), before)
    assert torch.allclose(flat(x), before, rtol=1e-3, atol=1e-4 * before.abs().max().item())


class Net(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.conv, self.norm, self.way = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), forward

    def forward(self, x):
        return self.way(self, x).flatten(1)


@pytest.mark.parametrize(
    "way",
    [
        lambda net, x: net.norm(torch.relu(net.conv(x))),
        lambda net, x: net.norm(torch.relu_(net.conv(x))),
        lambda net, x: net.norm(net.conv(net.conv(x))),
        lambda net, x: net.norm(net.norm(net.conv(x))),
        lambda net, x: (y := net.conv(x)) + net.norm(y),
    ],
    ids=["activation", "activation in place", "convolution twice", "norm twice", "a way around the norm"],
)
def test_what_cannot_be_folded_stays(way):
    net = trained(Net(way))
    x = torch.rand(4, *SHAPE)
    flat = folded(net, SHAPE)
    assert norms(flat) == 1
    assert torch.allclose(flat(x), net(x))


def test_other_threads_go_on_meanwhile():
    """Two visitors of one server: while one's network is folded, the other's answers."""
    net, other, x = trained(network("resnet20", SHAPE, 10)), network("lenet", (1, 28, 28), 10), torch.rand(4, 1, 28, 28)
    errors, end = [], Event()

    def ask() -> None:
        while not end.is_set():
            try:
                with torch.inference_mode():
                    other(x)
            except Exception as error:
                errors.append(error)

    thread = Thread(target=ask)
    thread.start()
    for _ in range(10):
        folded(net, SHAPE)
    end.set()
    thread.join()
    assert not errors
