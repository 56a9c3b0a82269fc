"""pix2pix's generator: an encoder and a decoder with a skip at every size.

Ronneberger et al. 2015, arXiv:1505.04597; Isola et al. 2017, arXiv:1611.07004, sec. 6.1.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import ConvNorm, Doubling, doubling
from .norm import NormAct
from .resnet import PlainNorm


class UNet(nn.Module):
    """(N, in_channels, H, W) → (N, out_channels, H, W) in [-1, 1]; H and W multiples of 2^downs, downs >= 5.

    upsample  transpose, as the paper; resize: nearest neighbour and a convolution, free of checkerboards
    dropout  behind the downs - 5 up-convolutions that follow the innermost one
    Each level begins with an activation in the reference implementation; here each ends with it, so that a norm and
    its activation are one layer. ReLU(LeakyReLU(x)) = ReLU(x), so the skips may pass through both.
    Keys, outside in: first, down.{i}.{conv,norm}, bottom; inside out: up.{i}.{conv,norm}, head.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        ngf: int = 64,
        downs: int = 8,
        norm: PlainNorm = "batch",
        dropout: float = 0.5,
        upsample: Doubling = "transpose",
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        widths = [ngf * min(2**level, 8) for level in range(downs)]
        self.dropout = dropout

        def down(level: int) -> ConvNorm:
            conv = nn.Conv2d(widths[level - 1], widths[level], 4, stride=2, padding=1, bias=bias)
            return ConvNorm(conv, NormAct(widths[level], norm, act="leaky_relu"))

        def up(level: int) -> ConvNorm:
            wide = widths[level] * (1 if level == downs - 1 else 2)
            conv = doubling(upsample, wide, widths[level - 1], bias)
            return ConvNorm(conv, NormAct(widths[level - 1], norm, act="relu"))

        self.first = nn.Conv2d(in_channels, ngf, 4, stride=2, padding=1, bias=bias)
        self.down = nn.ModuleList(down(level) for level in range(1, downs - 1))
        self.bottom = nn.Conv2d(widths[-2], widths[-1], 4, stride=2, padding=1, bias=bias)
        self.up = nn.ModuleList(up(level) for level in range(downs - 1, 0, -1))
        self.head = doubling(upsample, 2 * ngf, out_channels, True)

    def forward(self, x: Tensor) -> Tensor:
        skips = [F.leaky_relu(self.first(x), 0.2)]
        for down in self.down:
            skips.append(down(skips[-1]))
        y = F.relu(self.bottom(skips[-1]))
        dropped = range(1, len(self.up) - 3)
        for index, up in enumerate(self.up):
            y = up(y)
            if self.dropout and index in dropped:
                y = F.dropout(y, self.dropout, self.training)
            y = torch.cat([F.relu(skips.pop()), y], 1)
        return torch.tanh(self.head(y))
