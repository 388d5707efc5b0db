import pytest
import safetensors.torch
import torch
from torch.nn.functional import max_pool2d, relu

from backend.certification.sampler import Sampler
from backend.classifier.architectures import ARCHITECTURES
from backend.classifier.weights import WeightsError, build, pack, unpack
from backend.datasets import DATASETS
from backend.spec import SpecError

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", DATASETS)
def test_weights_come_back_as_rounded(name, dtype):
    dataset = DATASETS[name]
    network = build(dataset.architecture, dataset, CPU)
    packed = pack(network, dtype)
    back = unpack(packed, dataset.architecture, dataset, CPU)
    assert pack(back, dtype) == packed
    assert not any(p.requires_grad for p in back.parameters())
    assert back(torch.rand(3, *dataset.shape)).shape == (3, 10)


def test_lenet_is_the_papers():
    network = ARCHITECTURES["lenet"]((1, 28, 28), 10)
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]
    convolution, second, hidden, last = (layer for layer in network if hasattr(layer, "weight"))
    x = torch.rand(4, 1, 28, 28)
    plain = max_pool2d(relu(second(max_pool2d(relu(convolution(x)), 2))), 2)
    assert torch.equal(network(x), last(relu(hidden(plain.flatten(1)))))


def test_weights_that_do_not_fit_are_named():
    digits, mnist = DATASETS["digits"], DATASETS["mnist"]
    weights = pack(build("smallcnn", digits, CPU), "float32")
    with pytest.raises(WeightsError, match="these weights are not those of lenet for mnist"):
        unpack(weights, "lenet", mnist, CPU)
    with pytest.raises(WeightsError, match="these weights are not"):
        unpack(b"\x80\x04 a pickle", "lenet", mnist, CPU)
    with pytest.raises(WeightsError, match="these weights are not"):
        unpack(weights[:-10], "smallcnn", digits, CPU)


def test_networks_of_nan_are_refused():
    state = safetensors.torch.load(pack(build("smallcnn", DATASETS["digits"], CPU), "float32"))
    state["0.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"0\.weight holds values that are not finite"):
        unpack(safetensors.torch.save(state), "smallcnn", DATASETS["digits"], CPU)


def test_unknown_or_unfit_architectures():
    with pytest.raises(SpecError, match="architecture must be one of lenet, smallcnn, resnet20, resnet110, not 'vgg'"):
        build("vgg", DATASETS["mnist"], CPU)
    with pytest.raises(SpecError, match="lenet does not take images of digits: images must be at least 16×16, not 8×8"):
        build("lenet", DATASETS["digits"], CPU)


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet110", 1.73)])
def test_residual_networks_have_the_published_size(name, millions):
    """He et al., Table 6: 0.27 M and 1.7 M parameters."""
    network = ARCHITECTURES[name]((3, 32, 32), 10).eval()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules())
    assert convolutions + 1 == int(name.removeprefix("resnet"))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_the_sampler_folds_batch_norms_into_the_same_function():
    torch.manual_seed(0)
    network = ARCHITECTURES["resnet20"]((3, 32, 32), 10).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(16, 3, 32, 32))
    network.eval()
    sampler = Sampler(network, 10, 0.5, CPU)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in sampler.classifier.modules())
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
    x = torch.rand(8, 3, 32, 32)
    assert torch.allclose(sampler.classifier(x), network(x), atol=1e-4)
