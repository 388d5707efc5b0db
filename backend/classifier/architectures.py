"""The networks. One entry of ARCHITECTURES is one network, built for a data set's shape and number of classes.

Beside those, every classification network of torchvision is there under its name (resnet50, vit_b_16, …).
"""

from torch import Tensor, device, nn, tensor

from backend.classifier.densenet import densenet
from backend.classifier.image_convolution import ImageConv2d
from backend.classifier.resnet import resnet


class Normalize(nn.Module):
    """(x − mean) / sd per channel: the first layer of a network, so that noise and radii stay in pixel units.

    Mean and sd are part of the weights.
    """

    def __init__(self, mean: tuple[float, ...], sd: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", tensor(mean).view(-1, 1, 1))
        self.register_buffer("sd", tensor(sd).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.sd


def lenet(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The paper's LeNet: conv 20@5×5, pool 2, conv 50@5×5, pool 2, fc 500, fc `classes`, with ReLU.

    ReLU after the pooling is the same function as before it, on a quarter of the values.
    """
    channels, height, width = shape
    side = [((size - 4) // 2 - 4) // 2 for size in (height, width)]
    if min(side) < 1:
        raise ValueError(f"images must be at least 16×16, not {height}×{width}")
    return nn.Sequential(
        ImageConv2d(channels, 20, 5), nn.MaxPool2d(2), nn.ReLU(inplace=True),
        nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(50 * side[0] * side[1], 500), nn.ReLU(inplace=True), nn.Linear(500, classes),
    )  # fmt: skip


def smallcnn(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network for 8×8 digits that trains in seconds: conv 16@3×3, conv 32@3×3, pool 2, fc 64."""
    channels, height, width = shape
    return nn.Sequential(
        ImageConv2d(channels, 16, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(32 * (height // 2) * (width // 2), 64), nn.ReLU(inplace=True), nn.Linear(64, classes),
    )  # fmt: skip


def mlp(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """For points and other small inputs: two hidden layers of 64, with ReLU."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * height * width, 64), nn.ReLU(inplace=True),
        nn.Linear(64, 64), nn.ReLU(inplace=True), nn.Linear(64, classes),
    )  # fmt: skip


def resnet20(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-20 for small images."""
    return _as_he(resnet(20, shape[0], classes))


def resnet110(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-110 for small images, the paper's network for CIFAR-10."""
    return _as_he(resnet(110, shape[0], classes))


def densenet40(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """DenseNet-40 with growth rate 12 for small images."""
    return _as_he(densenet(40, 12, shape[0], classes))


def _as_he(built: nn.Module) -> nn.Module:
    """Convolutions of k×k and C channels out begin as N(0, 2 / (k² C)): He et al., ICCV 2015, which the papers of both kinds of network take."""
    for layer in built.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return built


ARCHITECTURES = {function.__name__: function for function in (lenet, smallcnn, mlp, resnet20, resnet110, densenet40)}


def network(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The freshly initialised network of that name. Raises ValueError for an unknown name or a shape it does not take."""
    if name in ARCHITECTURES:
        return ARCHITECTURES[name](shape, classes)
    from torchvision import models

    check_network(name, shape)
    extra = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, num_classes=classes, **extra)


def check_network(name: str, shape: tuple[int, int, int]) -> None:
    """Raise ValueError for a name that is no network's, and for images that the network does not take."""
    if name in ARCHITECTURES:
        with device("meta"):  # without weights
            ARCHITECTURES[name](shape, classes=2)
        return
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)} or a classification network of torchvision, not {name!r}"
        )
    if shape[0] != 3 or min(shape[1:]) < 32:
        raise ValueError(f"torchvision's networks want colour images of at least 32×32, not {shape}")
