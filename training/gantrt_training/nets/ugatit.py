"""U-GAT-IT's networks (Kim et al. 2020, arXiv:1907.10830, app. A, with the layers of the authors' PyTorch code).

Both kinds of network attend through a class activation map (CAM, Zhou et al. 2016, arXiv:1512.04150): a classifier on
the pooled features tells the domains apart, and its weights scale the feature maps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sizes import Size, height_width
from .conv import ConvNorm, ResizeConv2d, reflect
from .norm import NormAct
from .resnet import ResidualBlock
from .spectral import SpectralConv2d, SpectralLinear


def _pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) → the means and the maxima, each (N, C)."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1), F.adaptive_max_pool2d(x, 1).flatten(1)


def _attended(x: Tensor, gap_weight: Tensor, gmp_weight: Tensor) -> Tensor:
    """(N, C, H, W) → (N, 2C, H, W): the maps scaled by either classifier's weight, (1, C) each."""
    return torch.cat([x * gap_weight[:, :, None, None], x * gmp_weight[:, :, None, None]], 1)


class AdaLINBlock(nn.Module):
    """x + adalin(conv(relu(adalin(conv(x))))) for an x that is already reflect-padded by one.

    gamma, beta  (N, channels)
    pad          how wide the result is padded: 1 for the next block, 0 behind the last
    Keys: conv1, norm1.rho, conv2, norm2.rho.
    """

    def __init__(self, channels: int, *, pad: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm1 = NormAct(channels, "adalin", act="relu", pad=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm2 = NormAct(channels, "adalin", act="none", pad=pad, rpad=1)

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x), scale=gamma, shift=beta)
        return self.norm2(self.conv2(y), residual=x, scale=gamma, shift=beta)  # type: ignore[no-any-return]


class UGATITGenerator(nn.Module):
    """(N, in_channels, H, W) → picture (N, out_channels, H, W), CAM logits (N, 2), heat map (N, 1, H/4, W/4).

    full_size  None: light, any H and W that are multiples of 4; else the one size it can take
    Keys: stem, down.{i}.{conv,norm}, encoder.{i}.{conv1,conv2}, gap_fc, gmp_fc, mix, mlp.{0,2}, gamma, beta,
    decoder.{i}.{conv1,norm1.rho,conv2,norm2.rho}, up.{i}.{conv,norm.{rho,scale,shift}}, head; only `mix` has a bias.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        ngf: int = 64,
        n_blocks: int = 4,
        full_size: Size | None = None,
    ) -> None:
        super().__init__()
        wide = 4 * ngf
        self.full_size = full_size
        pads = [1] * (n_blocks - 1) + [0]

        def down(channels: int) -> ConvNorm:
            conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, bias=False)
            return ConvNorm(conv, NormAct(2 * channels, "instance", pad=1))

        def up(channels: int, pad: int) -> ConvNorm:
            conv = ResizeConv2d(channels, channels // 2, bias=False)
            return ConvNorm(conv, NormAct(channels // 2, "lin", pad=pad))

        stem = nn.Conv2d(in_channels, ngf, 7, bias=False)
        self.stem = ConvNorm(stem, NormAct(ngf, "instance", pad=1))
        self.down = nn.Sequential(down(ngf), down(2 * ngf))
        self.encoder = nn.Sequential(*(ResidualBlock(wide, "instance", bias=False, pad=pad) for pad in pads))
        self.gap_fc = nn.Linear(wide, 1, bias=False)
        self.gmp_fc = nn.Linear(wide, 1, bias=False)
        self.mix = nn.Conv2d(2 * wide, wide, 1)
        seen = wide
        if full_size is not None:
            height, width = height_width(full_size)
            seen = wide * (height // 4) * (width // 4)
        self.mlp = nn.Sequential(
            nn.Linear(seen, wide, bias=False), nn.ReLU(), nn.Linear(wide, wide, bias=False), nn.ReLU()
        )
        self.gamma = nn.Linear(wide, wide, bias=False)
        self.beta = nn.Linear(wide, wide, bias=False)
        self.decoder = nn.ModuleList(AdaLINBlock(wide, pad=pad) for pad in pads)
        self.up = nn.Sequential(up(wide, 0), up(2 * ngf, 3))
        self.head = nn.Conv2d(ngf, out_channels, 7, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.encoder(self.down(self.stem(reflect(x, 3))))
        mean, maximum = _pooled(x)
        cam_logit = torch.cat([self.gap_fc(mean), self.gmp_fc(maximum)], 1)
        x = F.relu(self.mix(_attended(x, self.gap_fc.weight, self.gmp_fc.weight)))
        heatmap = x.sum(1, keepdim=True)

        code = self.mlp(F.adaptive_avg_pool2d(x, 1).flatten(1) if self.full_size is None else x.flatten(1))
        gamma, beta = self.gamma(code), self.beta(code)
        x = reflect(x, 1)
        for block in self.decoder:
            x = block(x, gamma, beta)
        return torch.tanh(self.head(self.up(x))), cam_logit, heatmap


class UGATITDiscriminator(nn.Module):
    """(N, in_channels, H, W) → logits (N, 1, h, w), CAM logits (N, 2), heat map (N, 1, h + 1, w + 1).

    n_layers  7: global, patches of 286 pixels, 6x6 of them at 256x256; 5: local, 70 pixels, 30x30 of them
    The maps are scaled by the classifiers' weights as stored, not as normalised: the authors' code does so too.
    Keys: layers.{i}, gap_fc, gmp_fc, mix, head; {weight_orig,weight_u,weight_v}, in `mix` weight; `head` has no bias.
    """

    def __init__(self, in_channels: int = 3, *, ndf: int = 64, n_layers: int = 5) -> None:
        super().__init__()
        widths = [in_channels] + [ndf * 2**level for level in range(n_layers - 1)]
        strides = [2] * (n_layers - 2) + [1]
        self.layers = nn.ModuleList(
            SpectralConv2d(narrow, wide, 4, stride)
            for narrow, wide, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.gap_fc = SpectralLinear(widths[-1], 1, bias=False)
        self.gmp_fc = SpectralLinear(widths[-1], 1, bias=False)
        self.mix = nn.Conv2d(2 * widths[-1], widths[-1], 1)
        self.head = SpectralConv2d(widths[-1], 1, 4, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for layer in self.layers:
            x = F.leaky_relu(layer(reflect(x, 1)), 0.2)
        mean, maximum = _pooled(x)
        cam_logit = torch.cat([self.gap_fc(mean), self.gmp_fc(maximum)], 1)
        x = F.leaky_relu(self.mix(_attended(x, self.gap_fc.weight_orig, self.gmp_fc.weight_orig)), 0.2)
        return self.head(reflect(x, 1)), cam_logit, x.sum(1, keepdim=True)
