"""Both ends of a U-Net's bottleneck: between 2x2 pixels and one, 4x4 convolutions are products with a matrix.

Of the kernel's 16 taps 12 meet only padding. The others' weights are all such a layer reads, and a product with a
matrix reads them faster than a convolution, which divides its work by pixels. Pictures of other sizes take the
convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import ResizeConv2d
from .thin import frozen

_WINDOW = ((4, 4), (2, 2), (1, 1))


def _matches(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    return (conv.kernel_size, conv.stride, conv.padding) == _WINDOW and conv.groups == 1 and conv.dilation == (1, 1)


class ToPixel(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.weight = frozen(conv.weight[:, :, 1:3, 1:3].permute(0, 2, 3, 1).flatten(1))  # (O, 4 C)

    @staticmethod
    def takes(conv: object) -> bool:
        return type(conv) is nn.Conv2d and _matches(conv)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (2, 2):
            return self.conv(x)  # type: ignore[no-any-return]
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), self.weight, self.conv.bias)[:, :, None, None]


class FromPixel(nn.Module):
    """A ResizeConv2d makes four equal pixels: to the last bit, for a norm behind it blows up what they differ by."""

    def __init__(self, conv: nn.ConvTranspose2d | ResizeConv2d) -> None:
        super().__init__()
        self.conv, self.equal = conv, isinstance(conv, ResizeConv2d)
        if self.equal:
            self.weight = frozen(conv.weight.sum((2, 3)))  # (O, C)
        else:
            self.weight = frozen(conv.weight[:, :, 1:3, 1:3].permute(2, 3, 1, 0).flatten(0, 2))  # (4 O, C)

    @staticmethod
    def takes(conv: object) -> bool:
        return type(conv) is ResizeConv2d or (type(conv) is nn.ConvTranspose2d and _matches(conv))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (1, 1):
            return self.conv(x)  # type: ignore[no-any-return]
        bias = self.conv.bias
        if self.equal:
            y = F.linear(x.flatten(1), self.weight, bias)[:, None, None].expand(-1, 2, 2, -1).contiguous()
        else:
            bias = None if bias is None else bias.repeat(4)
            y = F.linear(x.flatten(1), self.weight, bias).view(len(x), 2, 2, -1)
        return y.permute(0, 3, 1, 2)
