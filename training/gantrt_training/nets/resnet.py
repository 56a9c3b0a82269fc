"""CycleGAN's generator: a residual network between two strided convolutions and their inverse.

Johnson et al. 2016, arXiv:1603.08155; Zhu et al. 2017, arXiv:1703.10593, sec. 7.2.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import BilinearConv2d, BlurDown, ConvNorm, ResizeConv2d, reflect
from .norm import NormAct

PlainNorm = Literal["instance", "batch"]
Upsample = Literal["transpose", "resize", "bilinear"]


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))) for an x that is already reflect-padded by one.

    pad  how wide the result is padded: 1 for the next block, 0 behind the last
    Keys: conv1, norm1, conv2, norm2.
    """

    def __init__(self, channels: int, norm: PlainNorm, *, bias: bool, dropout: float = 0.0, pad: int = 1) -> None:
        super().__init__()
        self.dropout = dropout
        self.conv1 = nn.Conv2d(channels, channels, 3, bias=bias)
        self.norm1 = NormAct(channels, norm, act="relu", pad=0 if dropout else 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=bias)
        self.norm2 = NormAct(channels, norm, act="none", pad=pad, rpad=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x))
        if self.dropout:  # what is dropped must be dropped in the padding's mirror image too
            y = reflect(F.dropout(y, self.dropout, self.training), 1)
        return self.norm2(self.conv2(y), residual=x)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """(N, in_channels, H, W) → (N, out_channels, H, W) in [-1, 1]; H and W multiples of 2^n_downs.

    upsample   transpose, as the paper; resize: nearest neighbour and a convolution; bilinear: CUT's
    antialias  blur where pictures are halved, as CUT does
    Convolutions in front of InstanceNorm keep their (void) biases, as in the reference implementation.
    Keys: stem.{conv,norm}, down.{i}.{conv,norm}, blocks.{i}.{conv1,norm1,conv2,norm2}, up.{i}.{conv,norm}, head.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        ngf: int = 64,
        n_blocks: int = 9,
        n_downs: int = 2,
        norm: PlainNorm = "instance",
        dropout: float = 0.0,
        upsample: Upsample = "transpose",
        antialias: bool = False,
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        widths = [ngf * 2**level for level in range(n_downs + 1)]

        def down(level: int) -> ConvNorm:
            narrow, wide, pad = widths[level], widths[level + 1], int(level == n_downs - 1)
            conv = nn.Conv2d(narrow, wide, 3, stride=1 if antialias else 2, padding=1, bias=bias)
            if antialias:
                return BlurDown(conv, NormAct(wide, norm, pad=1), pad=pad)
            return ConvNorm(conv, NormAct(wide, norm, pad=pad))

        def up(level: int) -> ConvNorm:
            wide, narrow = widths[level + 1], widths[level]
            conv: nn.Module
            if upsample == "transpose":
                conv = nn.ConvTranspose2d(wide, narrow, 3, stride=2, padding=1, output_padding=1, bias=bias)
            else:
                conv = (ResizeConv2d if upsample == "resize" else BilinearConv2d)(wide, narrow, bias)
            return ConvNorm(conv, NormAct(narrow, norm, pad=0 if level else 3))

        def block(index: int) -> ResidualBlock:
            return ResidualBlock(widths[-1], norm, bias=bias, dropout=dropout, pad=int(index < n_blocks - 1))

        self.stem = ConvNorm(nn.Conv2d(in_channels, ngf, 7, bias=bias), NormAct(ngf, norm))
        self.down = nn.Sequential(*(down(level) for level in range(n_downs)))
        self.blocks = nn.Sequential(*(block(index) for index in range(n_blocks)))
        self.up = nn.Sequential(*(up(level) for level in reversed(range(n_downs))))
        self.head = nn.Conv2d(ngf, out_channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.down(self.stem(reflect(x, 3))))
        return torch.tanh(self.head(self.up(x)))
