"""Both ends of a U-Net's bottleneck: between 2x2 pixels and one, 4x4 convolutions are products with a matrix.

Of the kernel's 16 taps 12 meet only padding. The others' weights are all such a layer reads, and a product with a
matrix reads them faster than a convolution, which divides its work by pixels. Pictures of other sizes take the
convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

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
    """The bias, if there is one, is the convolution's."""

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = conv
        self.weight = frozen(conv.weight[:, :, 1:3, 1:3].permute(2, 3, 1, 0).flatten(0, 2))  # (4 O, C)

    @staticmethod
    def takes(conv: object) -> bool:
        return type(conv) is nn.ConvTranspose2d and _matches(conv)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (1, 1):
            return self.conv(x)  # type: ignore[no-any-return]
        bias = None if self.conv.bias is None else self.conv.bias.repeat(4)
        return F.linear(x.flatten(1), self.weight, bias).view(len(x), 2, 2, -1).permute(0, 3, 1, 2)
