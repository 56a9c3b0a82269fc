"""DiscoGAN's networks (Kim et al. 2017, arXiv:1703.05192, sec. 3.1, with the layers of the authors' code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import ConvNorm, Doubling, doubling
from .norm import NormAct


def _widths(base: int, downs: int) -> list[int]:
    return [base * min(2**level, 8) for level in range(downs)]


class DiscoGenerator(nn.Module):
    """(N, in_channels, H, W) → (N, out_channels, H, W) in [-1, 1]; H and W multiples of 2^downs.

    downs       halvings: 4 for 64 pixels, which leaves 4x4
    bottleneck  channels of the 1x1 code between encoder and decoder (needs at least 4 * 2^downs pixels); 0: none
    upsample    transpose, as the authors'; resize: nearest neighbour and a convolution, free of checkerboards
    unit_range  the layers see and make [0, 1] through a sigmoid, as the authors' do; outside it is [-1, 1] all the same
    Keys: first, down.{i}.{conv,norm}, narrow.{conv,norm}, widen.{conv,norm}, up.{i}.{conv,norm}, head; no biases.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        ngf: int = 64,
        downs: int = 4,
        bottleneck: int = 100,
        unit_range: bool = False,
        upsample: Doubling = "transpose",
    ) -> None:
        super().__init__()
        widths = _widths(ngf, downs)
        self.unit_range = unit_range

        def down(level: int) -> ConvNorm:
            conv = nn.Conv2d(widths[level - 1], widths[level], 4, stride=2, padding=1, bias=False)
            return ConvNorm(conv, NormAct(widths[level], "batch", act="leaky_relu"))

        def up(level: int) -> ConvNorm:
            conv = doubling(upsample, widths[level], widths[level - 1], False)
            return ConvNorm(conv, NormAct(widths[level - 1], "batch", act="relu"))

        self.first = nn.Conv2d(in_channels, ngf, 4, stride=2, padding=1, bias=False)
        self.down = nn.Sequential(*(down(level) for level in range(1, downs)))
        self.narrow = self.widen = None
        if bottleneck:
            narrow = nn.Conv2d(widths[-1], bottleneck, 4, bias=False)
            widen = nn.ConvTranspose2d(bottleneck, widths[-1], 4, bias=False)
            self.narrow = ConvNorm(narrow, NormAct(bottleneck, "batch", act="leaky_relu"))
            self.widen = ConvNorm(widen, NormAct(widths[-1], "batch", act="relu"))
        self.up = nn.Sequential(*(up(level) for level in range(downs - 1, 0, -1)))
        self.head = doubling(upsample, ngf, out_channels, False)

    def forward(self, x: Tensor) -> Tensor:
        if self.unit_range:
            x = (x + 1) / 2
        x = self.down(F.leaky_relu(self.first(x), 0.2))
        if self.narrow is not None and self.widen is not None:
            x = self.widen(self.narrow(x))
        z = self.head(self.up(x))
        return torch.tanh(z / 2 if self.unit_range else z)  # 2 sigmoid(z) - 1 = tanh(z / 2)


class DiscoDiscriminator(nn.Module):
    """(N, in_channels, S, S), S = 4 * 2^downs → a logit (N, 1, 1, 1), and what each layer with a norm made of x.

    Of a longer picture it judges every square: (N, 1, h, w).

    Keys: first, convs.{i}, norms.{i}, head; no biases but the norms'.
    """

    def __init__(self, in_channels: int = 3, *, ndf: int = 64, downs: int = 4, unit_range: bool = False) -> None:
        super().__init__()
        widths = _widths(ndf, downs)
        self.unit_range = unit_range
        self.first = nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1, bias=False)
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[level - 1], widths[level], 4, stride=2, padding=1, bias=False) for level in range(1, downs)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(widths[level]) for level in range(1, downs))
        self.head = nn.Conv2d(widths[-1], 1, 4, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.unit_range:
            x = (x + 1) / 2
        x = F.leaky_relu(self.first(x), 0.2)
        features = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
            features.append(x)
        return self.head(x), features
