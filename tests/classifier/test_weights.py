import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import max_pool2d, relu

from backend.certification.sampler import Sampler, SamplingError
from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.classifier.architectures import ARCHITECTURES
from backend.classifier.folding import folded
from backend.classifier.weights import WeightsError, build, pack, unpack
from backend.datasets import DATASETS
from backend.spec import Certification, SpecError
from tests.devices import on_each_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", DATASETS)
def test_weights_come_back_as_rounded(name, dtype):
    dataset = DATASETS[name]
    network = build(dataset.architectures[0], dataset, CPU)
    packed = pack(network, dtype)
    back = unpack(packed, dataset.architectures[0], dataset, CPU)
    assert pack(back, dtype) == packed
    assert not any(p.requires_grad for p in back.parameters())
    assert back(torch.rand(3, *dataset.shape)).shape == (3, len(dataset.classes))


@on_each_device
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_convolutions_lie_as_their_device_wants_them(device, precision):
    """Channels last, but in float32 on a GPU; the sampler takes a network as it was built, and its own of another precision."""
    network = build("lenet", DATASETS["mnist"], device, precision)
    for classifier in (network, Sampler(network.eval(), 10, 0.5, device, precision).classifier):
        (weight,) = (p for name, p in classifier.named_parameters() if p.ndim == 4 and p.shape[1] > 1)
        last = weight.is_contiguous(memory_format=torch.channels_last)
        assert last == (device.type == "cpu" or precision == "bfloat16")


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


def test_a_network_of_other_classes_is_refused(monkeypatch):
    """Its surplus votes would be counted for the next image."""
    monkeypatch.setitem(ARCHITECTURES, "ten", lambda shape, classes: ARCHITECTURES["smallcnn"](shape, 7))
    with pytest.raises(
        SpecError, match=r"no network ten for digits: it answers with \(1, 7\) for one image, and 10 classes"
    ):
        build("ten", DATASETS["digits"], CPU)


@pytest.mark.parametrize(
    ("network", "images", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 12)), torch.zeros(2, 1, 8, 8), r"must give 10 logits a sample, not \(12,\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "in floating point, in .*, not torch.uint8"),
        (nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)), torch.zeros(2, 1, 8, 8), "batch norm is in training mode"),
    ],
)  # fmt: skip
def test_a_network_of_elsewhere_that_would_vote_wrongly_is_refused(network, images, said):
    with pytest.raises(SamplingError, match=said):
        list(SmoothedClassifier(network, 10, 0.5, CPU, 0).certify(images, [0, 1], Certification(n=100)))


def test_unknown_or_unfit_architectures():
    known = ", ".join(ARCHITECTURES) + " or a classification network of torchvision"
    with pytest.raises(SpecError, match=f"architecture must be one of {known}, not 'vgg'"):
        build("vgg", DATASETS["mnist"], CPU)
    with pytest.raises(SpecError, match="no network lenet for digits: images must be at least 16×16, not 8×8"):
        build("lenet", DATASETS["digits"], CPU)
    with pytest.raises(SpecError, match="torchvision's networks want colour images of at least 32×32"):
        build("resnet50", DATASETS["mnist"], CPU)
    with pytest.raises(SpecError, match="no network vit_b_32 for cifar10"):
        build("vit_b_32", DATASETS["cifar10"], CPU)


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet110", 1.73)])
def test_residual_networks_have_the_published_size(name, millions):
    """He et al., Table 6: 0.27 M and 1.7 M parameters."""
    network = ARCHITECTURES[name]((3, 32, 32), 10).eval()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules())
    assert convolutions + 1 == int(name.removeprefix("resnet"))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet110", "densenet40"])
def test_deep_networks_begin_as_their_papers_have_it(name):
    """N(0, 2 / (k² · channels out)): .118, .083 and .059 of the residual network's three stages."""
    torch.manual_seed(0)
    of = {}
    for layer in ARCHITECTURES[name]((3, 32, 32), 10).modules():
        if isinstance(layer, torch.nn.Conv2d):
            of.setdefault((layer.kernel_size[0], layer.out_channels), []).append(layer.weight.detach().flatten())
    for (side, channels), weights in of.items():
        values = torch.cat(weights)
        assert float(values.std()) == pytest.approx((2 / (side**2 * channels)) ** 0.5, rel=4 / len(values) ** 0.5)
        assert abs(float(values.mean())) < 4 * float(values.std()) / len(values) ** 0.5


def test_densenet_has_the_published_size():
    """Huang et al., Table 2: DenseNet (k = 12) of depth 40 has 1.0 M parameters; 40 layers with weights, 2 of them 1×1."""
    network = ARCHITECTURES["densenet40"]((3, 32, 32), 10).eval()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(1.0, abs=0.05)
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == 40
    assert sum(layer.kernel_size == (1, 1) for layer in convolutions) == 2
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("architecture", ["resnet20", "densenet40", "mobilenet_v2"])
def test_normalisation_is_the_first_layer_and_travels_with_the_weights(architecture):
    """What is certified is the network of images in [0, 1]; batch norms are folded without changing an answer."""
    cifar = DATASETS["cifar10"]
    torch.manual_seed(0)
    network = build(architecture, cifar, CPU).train()
    with torch.no_grad():
        network(torch.rand(16, *cifar.shape))  # batch norms see something
    network.eval()
    x = torch.rand(4, *cifar.shape)
    mean, sd = (torch.tensor(v).view(3, 1, 1) for v in (cifar.mean, cifar.sd))
    assert torch.allclose(network(x), network[1]((x - mean) / sd), atol=1e-5)
    packed = pack(network, "float32")
    assert safetensors.torch.load(packed)["0.mean"].flatten().tolist() == pytest.approx(cifar.mean)
    flat = folded(unpack(packed, architecture, cifar, CPU), cifar.shape)
    assert torch.allclose(flat(x), network(x), rtol=1e-3, atol=1e-4)
