"""The convolution that sees the image: an attack asks it for its gradient, which libraries compute slowly for one channel."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, fold


class ImageConv2d(nn.Conv2d):
    """An nn.Conv2d whose gradient for the image is a matrix product, where its weights take no gradients (an attack's case)."""

    def forward(self, x: Tensor) -> Tensor:
        learns = any(parameter.requires_grad for parameter in self.parameters())
        plain = (self.groups, self.dilation, self.padding_mode) == (1, (1, 1), "zeros") and not isinstance(
            self.padding, str
        )
        if x.requires_grad and not learns and plain and x.dim() == 4:
            return _ForImage.apply(x, self.weight, self.bias, self.stride, self.padding)
        return super().forward(x)


class _ForImage(torch.autograd.Function):
    """conv2d, differentiable once and for the image alone: every output's gradient times the kernel, added up where patches overlap."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.fold = {"output_size": x.shape[2:], "kernel_size": weight.shape[2:], "stride": stride, "padding": padding}
        return conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        kernels = weight.flatten(1).T.to(gradient.dtype)  # (C·k·k, O); bfloat16 under autocast
        patches = kernels @ gradient.flatten(2)  # (B, C·k·k, H'·W')
        return fold(patches, **ctx.fold), None, None, None, None
