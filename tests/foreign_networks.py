"""The networks of other code-bases, layer by layer and under their names: the slow twins of what is imported.

Written from the published layer lists; each computes what its code-base's own test script would.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scramble(net: nn.Module, seed: int = 0, gain: float = 1.0) -> nn.Module:
    """Weights and statistics that are not those of any initialisation; in eval mode.

    gain  of the convolutions and linear layers, so that pictures come out neither grey nor saturated
    """
    random = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)

    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            leaf = name.rpartition(".")[2]
            if leaf in ("filt", "num_batches_tracked"):
                continue
            if leaf in ("rho", "running_var") or (leaf in ("weight", "gamma") and tensor.squeeze().dim() <= 1):
                uniform(tensor, 0.2, 0.8 if leaf == "rho" else 1.6)
            elif tensor.dim() > 1 and leaf.startswith("weight"):
                spread = gain * (3 / tensor[0].numel()) ** 0.5
                uniform(tensor, -spread, spread)
            else:
                uniform(tensor, -0.3, 0.3)
    return net.eval()


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)


# pytorch-CycleGAN-and-pix2pix, and contrastive-unpaired-translation


class ResnetBlock(nn.Module):
    def __init__(self, channels: int, norm: str, dropout: bool) -> None:
        super().__init__()
        bias = norm == "instance"
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), _norm(norm, channels), nn.ReLU()]
        layers += [nn.Dropout(0.5)] if dropout else []
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), _norm(norm, channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Blur(nn.Module):
    """CUT's: by 1-2-1 and every second pixel, or twice the pixels and 1-3-3-1."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0] if up else [1.0, 2.0, 1.0])
        kernel = torch.outer(taps, taps)
        self.up = up
        self.register_buffer("filt", (kernel / kernel.sum() * (4 if up else 1)).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        if self.up:
            padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
            return F.conv_transpose2d(padded, self.filt, stride=2, padding=2, groups=channels)[:, :, 1:-1, 1:-1]
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=channels)


class ResnetGenerator(nn.Module):
    def __init__(
        self,
        inputs: int = 3,
        outputs: int = 3,
        ngf: int = 4,
        norm: str = "instance",
        dropout: bool = False,
        blocks: int = 2,
        blur_down: bool = False,
        blur_up: bool = False,
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, ngf, 7, bias=bias), _norm(norm, ngf)]
        layers += [nn.ReLU()]
        for wide in (2 * ngf, 4 * ngf):
            stride = 1 if blur_down else 2
            layers += [nn.Conv2d(wide // 2, wide, 3, stride=stride, padding=1, bias=bias), _norm(norm, wide), nn.ReLU()]
            layers += [Blur(wide, up=False)] if blur_down else []
        layers += [ResnetBlock(4 * ngf, norm, dropout) for _ in range(blocks)]
        for wide in (4 * ngf, 2 * ngf):
            if blur_up:
                layers += [Blur(wide, up=True), nn.Conv2d(wide, wide // 2, 3, padding=1, bias=bias)]
            else:
                layers += [nn.ConvTranspose2d(wide, wide // 2, 3, 2, padding=1, output_padding=1, bias=bias)]
            layers += [_norm(norm, wide // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, outputs, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class UnetLevel(nn.Module):
    def __init__(
        self, outer: int, inner: int, inside: UnetLevel | None, norm: str, *, given: int = 0, dropout: bool = False
    ) -> None:
        super().__init__()
        bias, self.outermost = norm == "instance", bool(given)
        down = nn.Conv2d(given or outer, inner, 4, 2, 1, bias=bias)
        wide = inner if inside is None else 2 * inner
        up = nn.ConvTranspose2d(wide, outer, 4, 2, 1, bias=bias or self.outermost)
        if inside is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, _norm(norm, outer)]
        elif self.outermost:
            layers = [down, inside, nn.ReLU(), up, nn.Tanh()]
        else:
            layers = [nn.LeakyReLU(0.2), down, _norm(norm, inner), inside, nn.ReLU(), up, _norm(norm, outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class UnetGenerator(nn.Module):
    def __init__(self, downs: int, ngf: int = 4, norm: str = "batch", inputs: int = 3, outputs: int = 3) -> None:
        super().__init__()
        level = UnetLevel(8 * ngf, 8 * ngf, None, norm)
        for _ in range(downs - 5):
            level = UnetLevel(8 * ngf, 8 * ngf, level, norm, dropout=True)
        for factor in (4, 2, 1):
            level = UnetLevel(factor * ngf, 2 * factor * ngf, level, norm)
        self.model = UnetLevel(outputs, ngf, level, norm, given=inputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class NLayerDiscriminator(nn.Module):
    def __init__(self, inputs: int = 3, ndf: int = 4, norm: str = "instance", layers: int = 3) -> None:
        super().__init__()
        sequence: list[nn.Module] = [nn.Conv2d(inputs, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        narrow = ndf
        for level in range(1, layers + 1):
            wide, stride = ndf * min(2**level, 8), 2 if level < layers else 1
            sequence += [nn.Conv2d(narrow, wide, 4, stride, 1, bias=norm == "instance"), _norm(norm, wide)]
            sequence += [nn.LeakyReLU(0.2)]
            narrow = wide
        self.model = nn.Sequential(*sequence, nn.Conv2d(narrow, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PixelDiscriminator(nn.Module):
    def __init__(self, inputs: int = 3, ndf: int = 4, norm: str = "instance") -> None:
        super().__init__()
        bias = norm == "instance"
        self.net = nn.Sequential(
            nn.Conv2d(inputs, ndf, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            _norm(norm, 2 * ndf),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


# UGATIT-pytorch


def _mixture(x: Tensor, rho: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Instance and layer norm, variances with n - 1, mixed by rho."""
    instance = (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(x.var((2, 3), keepdim=True) + 1e-5)
    layer = (x - x.mean((1, 2, 3), keepdim=True)) / torch.sqrt(x.var((1, 2, 3), keepdim=True) + 1e-5)
    return (rho * instance + (1 - rho) * layer) * gamma + beta


class AdaILN(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), 0.9))

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return _mixture(x, self.rho, gamma[:, :, None, None], beta[:, :, None, None])


class ILN(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return _mixture(x, self.rho, self.gamma, self.beta)


class BiasFreeBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            conv = nn.Conv2d(channels, channels, 3, bias=False)
            return [nn.ReflectionPad2d(1), conv, nn.InstanceNorm2d(channels)]

        self.conv_block = nn.Sequential(*half(), nn.ReLU(), *half())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class AdaILNBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm1 = AdaILN(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm2 = AdaILN(channels)

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(F.pad(x, (1, 1, 1, 1), mode="reflect")), gamma, beta))
        return self.norm2(self.conv2(F.pad(y, (1, 1, 1, 1), mode="reflect")), gamma, beta) + x


def _cam(x: Tensor, layers: nn.Module, gap_weight: Tensor, gmp_weight: Tensor) -> tuple[Tensor, Tensor]:
    gap = layers.gap_fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
    gmp = layers.gmp_fc(F.adaptive_max_pool2d(x, 1).flatten(1))
    maps = torch.cat([x * gap_weight[:, :, None, None], x * gmp_weight[:, :, None, None]], 1)
    return torch.cat([gap, gmp], 1), layers.conv1x1(maps)


class UGATITGenerator(nn.Module):
    def __init__(self, ngf: int = 4, blocks: int = 2, size: int = 16, light: bool = False) -> None:
        super().__init__()
        self.light, self.blocks = light, blocks
        wide = 4 * ngf
        down: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7, bias=False), nn.InstanceNorm2d(ngf)]
        down += [nn.ReLU()]
        for channels in (ngf, 2 * ngf):
            conv = nn.Conv2d(channels, 2 * channels, 3, 2, bias=False)
            down += [nn.ReflectionPad2d(1), conv, nn.InstanceNorm2d(2 * channels), nn.ReLU()]
        self.DownBlock = nn.Sequential(*down, *(BiasFreeBlock(wide) for _ in range(blocks)))
        self.gap_fc = nn.Linear(wide, 1, bias=False)
        self.gmp_fc = nn.Linear(wide, 1, bias=False)
        self.conv1x1 = nn.Conv2d(2 * wide, wide, 1)
        seen = wide if light else wide * (size // 4) ** 2
        self.FC = nn.Sequential(
            nn.Linear(seen, wide, bias=False), nn.ReLU(), nn.Linear(wide, wide, bias=False), nn.ReLU()
        )
        self.gamma = nn.Linear(wide, wide, bias=False)
        self.beta = nn.Linear(wide, wide, bias=False)
        for index in range(blocks):
            self.add_module(f"UpBlock1_{index + 1}", AdaILNBlock(wide))
        up: list[nn.Module] = []
        for channels in (wide, wide // 2):
            up += [nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1)]
            up += [nn.Conv2d(channels, channels // 2, 3, bias=False), ILN(channels // 2), nn.ReLU()]
        self.UpBlock2 = nn.Sequential(*up, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7, bias=False), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        x = self.DownBlock(x)
        x = torch.relu(_cam(x, self, self.gap_fc.weight, self.gmp_fc.weight)[1])
        code = self.FC(x.mean((2, 3)) if self.light else x.flatten(1))
        gamma, beta = self.gamma(code), self.beta(code)
        for index in range(self.blocks):
            x = self.get_submodule(f"UpBlock1_{index + 1}")(x, gamma, beta)
        return self.UpBlock2(x)


class UGATITDiscriminator(nn.Module):
    def __init__(self, layers: int, ndf: int = 4) -> None:
        super().__init__()
        sn = nn.utils.spectral_norm
        sequence: list[nn.Module] = []
        narrow = 3
        for level in range(layers - 1):
            wide, stride = ndf * 2**level, 2 if level < layers - 2 else 1
            sequence += [nn.ReflectionPad2d(1), sn(nn.Conv2d(narrow, wide, 4, stride)), nn.LeakyReLU(0.2)]
            narrow = wide
        self.gap_fc = sn(nn.Linear(narrow, 1, bias=False))
        self.gmp_fc = sn(nn.Linear(narrow, 1, bias=False))
        self.conv1x1 = nn.Conv2d(2 * narrow, narrow, 1)
        self.conv = sn(nn.Conv2d(narrow, 1, 4, bias=False))
        self.model = nn.Sequential(*sequence)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, x = _cam(self.model(x), self, self.gap_fc.weight_orig, self.gmp_fc.weight_orig)
        return self.conv(F.pad(F.leaky_relu(x, 0.2), (1, 1, 1, 1), mode="reflect")), logits


# DiscoGAN


class Generator(nn.Module):
    """Pictures in BGR and [0, 1]."""

    def __init__(self, ngf: int = 4, narrow: int = 0) -> None:
        super().__init__()
        widths = [ngf, 2 * ngf, 4 * ngf, 8 * ngf]
        layers: list[nn.Module] = [nn.Conv2d(3, ngf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        if narrow:
            layers += [nn.Conv2d(8 * ngf, narrow, 4, 1, 0, bias=False), nn.BatchNorm2d(narrow), nn.LeakyReLU(0.2)]
            layers += [nn.ConvTranspose2d(narrow, 8 * ngf, 4, 1, 0, bias=False), nn.BatchNorm2d(8 * ngf), nn.ReLU()]
        for a, b in itertools.pairwise(widths[::-1]):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(ngf, 3, 4, 2, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Discriminator(nn.Module):
    """Pictures in BGR and [0, 1] → a logit."""

    def __init__(self, ndf: int = 4) -> None:
        super().__init__()
        widths = [3, ndf, 2 * ndf, 4 * ndf, 8 * ndf]
        for level in range(1, 5):
            self.add_module(f"conv{level}", nn.Conv2d(widths[level - 1], widths[level], 4, 2, 1, bias=False))
            if level > 1:
                self.add_module(f"bn{level}", nn.BatchNorm2d(widths[level]))
        self.conv5 = nn.Conv2d(8 * ndf, 1, 4, 1, 0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(x), 0.2)
        for level in (2, 3, 4):
            x = F.leaky_relu(self.get_submodule(f"bn{level}")(self.get_submodule(f"conv{level}")(x)), 0.2)
        return self.conv5(x)
