"""Residual networks for small images: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.

Depth 6n + 2: a 3×3 convolution, three stages of n blocks with 16, 32 and 64 channels, global average pooling, one
linear layer. Shortcuts have no weights (option A): they drop every other pixel and pad the new channels with zeros.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm, and the shortcut around them."""

    def __init__(self, before: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new = stride, channels - before

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride > 1 or self.new:
            shortcut = pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new - self.new // 2)
            )
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + shortcut)


def resnet(depth: int, channels: int, classes: int) -> nn.Sequential:
    """The network of that depth (6n + 2) for images (channels, H, W)."""
    blocks = (depth - 2) // 6
    layers = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    before = 16
    for stage, width in enumerate((16, 32, 64)):
        for number in range(blocks):
            layers.append(Block(before, width, 2 if stage and not number else 1))
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
