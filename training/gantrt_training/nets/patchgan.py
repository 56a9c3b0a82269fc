"""The judge of patches (Isola et al. 2017, arXiv:1611.07004, sec. 3.2 and 6.1.2)."""

from __future__ import annotations

from torch import Tensor, nn

from .norm import instance_norm
from .resnet import PlainNorm


class PatchGAN(nn.Module):
    """(N, in_channels, H, W) → (N, 1, h, w) logits, one for each patch; 30x30 of them, 70 pixels wide, at 256x256.

    n_layers  3: patches of 70 pixels; 1, 2, 4, 5: of 16, 34, 142, 286; 0: each pixel alone
    Keys: layers.{i}, numbered as in the reference implementation.
    """

    def __init__(self, in_channels: int, *, ndf: int = 64, n_layers: int = 3, norm: PlainNorm = "instance") -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_patches if n_layers else _pixels)(in_channels, ndf, n_layers, norm))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class _InstanceNorm(nn.InstanceNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, eps=self.eps)


def _patches(in_channels: int, ndf: int, n_layers: int, norm: PlainNorm) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    widths = [ndf * min(2**level, 8) for level in range(n_layers + 1)]
    for level in range(1, n_layers + 1):
        stride = 2 if level < n_layers else 1
        layers += [
            nn.Conv2d(widths[level - 1], widths[level], 4, stride=stride, padding=1, bias=norm == "instance"),
            _norm(widths[level], norm),
            nn.LeakyReLU(0.2),
        ]
    return [*layers, nn.Conv2d(widths[-1], 1, 4, padding=1)]


def _pixels(in_channels: int, ndf: int, n_layers: int, norm: PlainNorm) -> list[nn.Module]:
    bias = norm == "instance"
    return [
        nn.Conv2d(in_channels, ndf, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
        _norm(2 * ndf, norm),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * ndf, 1, 1, bias=bias),
    ]


def _norm(channels: int, norm: PlainNorm) -> nn.Module:
    return _InstanceNorm(channels) if norm == "instance" else nn.BatchNorm2d(channels)
