"""Convolutions as generators use them: with the norm behind them, or after an enlargement."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .norm import NormAct


def reflect(x: Tensor, pad: int) -> Tensor:
    return F.pad(x, (pad,) * 4, mode="reflect")


class ConvNorm(nn.Module):
    """A convolution and the NormAct behind it. Keys: conv, norm."""

    def __init__(self, conv: nn.Module, norm: NormAct) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class ResizeConv2d(nn.Conv2d):
    """Nearest neighbour to twice the size, then a 3x3 convolution (Odena et al. 2016): free of checkerboards."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(reflect(F.interpolate(x, scale_factor=2.0, mode="nearest"), 1))


Doubling = Literal["transpose", "resize"]


def doubling(kind: Doubling, in_channels: int, out_channels: int, bias: bool) -> nn.Module:
    """A layer to twice the size: a transposed 4x4 convolution, as the papers have it, or ResizeConv2d."""
    if kind == "resize":
        return ResizeConv2d(in_channels, out_channels, bias)
    return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)


class BilinearConv2d(nn.Conv2d):
    """Bilinear to twice the size, then a 3x3 convolution: the doubling of CUT (Park et al. 2020, arXiv:2007.15651)."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="bilinear"))


class BlurDown(ConvNorm):
    """A convolution whose result, padded by its norm, is blurred by 1-2-1 and halved (Zhang 2019, arXiv:1904.11486).

    pad  how wide the halved result is reflect-padded
    """

    def __init__(self, conv: nn.Module, norm: NormAct, *, pad: int) -> None:
        super().__init__(conv, norm)
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(F.avg_pool2d(super().forward(x), 2, stride=1), 2)  # 1-1 twice is 1-2-1
        return reflect(y, self.pad) if self.pad else y
