"""Convolutions as generators use them: with the norm behind them, or after an enlargement."""

from __future__ import annotations

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
