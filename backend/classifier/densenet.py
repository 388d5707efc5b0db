"""DenseNet for small images: Huang et al., Densely Connected Convolutional Networks, CVPR 2017, section 4.

Depth 3n + 4 and growth rate k: a 3×3 convolution with 16 channels, three blocks of n layers (batch norm, ReLU, 3×3
convolution with k channels, joined to what came before) with a 1×1 convolution and average pooling between them, global average
pooling, one linear layer. No bottleneck, no compression.
"""

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """k new channels beside those that came in."""

    def __init__(self, before: int, growth: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.bn(x)))], 1)


def densenet(depth: int, growth: int, channels: int, classes: int) -> nn.Sequential:
    """The network of that depth (3n + 4) for images (channels, H, W)."""
    width, layers = 16, [nn.Conv2d(channels, 16, 3, 1, 1, bias=False)]
    for block in range(3):
        for _ in range((depth - 4) // 3):
            layers.append(Layer(width, growth))
            width += growth
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if block < 2:
            layers += [nn.Conv2d(width, width, 1, bias=False), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
