"""Networks against slow twins: plain torch layers, written down from the layer tables of the papers' code."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from gantrt_training.nets.disco import DiscoDiscriminator, DiscoGenerator
from gantrt_training.nets.init import init_normal
from gantrt_training.nets.norm import NormAct
from gantrt_training.nets.patchgan import PatchGAN
from gantrt_training.nets.resnet import ResNet
from gantrt_training.nets.spectral import SpectralConv2d, SpectralLinear
from gantrt_training.nets.ugatit import UGATITDiscriminator, UGATITGenerator
from gantrt_training.nets.unet import UNet
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

# Twins -------------------------------------------------------------------------------------------


def plain_norm(channels: int, norm: str) -> nn.Module:
    return nn.InstanceNorm2d(channels) if norm == "instance" else nn.BatchNorm2d(channels)


class Plus(nn.Module):
    """x + inner(x)"""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def resnet_twin(ngf: int, n_blocks: int, norm: str, dropout: float) -> nn.Sequential:
    bias = norm == "instance"
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7, bias=bias), plain_norm(ngf, norm), nn.ReLU()]
    for c in (ngf, 2 * ngf):
        layers += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), plain_norm(2 * c, norm), nn.ReLU()]
    wide = 4 * ngf
    for _ in range(n_blocks):
        block = [nn.ReflectionPad2d(1), nn.Conv2d(wide, wide, 3, bias=bias), plain_norm(wide, norm), nn.ReLU()]
        block += [nn.Dropout(dropout)] if dropout else []
        block += [nn.ReflectionPad2d(1), nn.Conv2d(wide, wide, 3, bias=bias), plain_norm(wide, norm)]
        layers.append(Plus(nn.Sequential(*block)))
    for c in (wide, wide // 2):
        layers += [nn.ConvTranspose2d(c, c // 2, 3, 2, 1, 1, bias=bias), plain_norm(c // 2, norm), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh())


class Skip(nn.Module):
    """x beside what a deeper level made of it. The level's in-place LeakyReLU alters x before it is put there."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], 1)


def unet_twin(ngf: int, downs: int, norm: str, dropout: float) -> nn.Sequential:
    bias = norm == "instance"

    def down(narrow: int, wide: int) -> nn.Conv2d:
        return nn.Conv2d(narrow, wide, 4, 2, 1, bias=bias)

    def up(wide: int, narrow: int) -> nn.ConvTranspose2d:
        return nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=bias)

    deep = 8 * ngf
    level: nn.Module = Skip(
        nn.Sequential(
            nn.LeakyReLU(0.2, inplace=True),
            down(deep, deep),
            nn.ReLU(inplace=True),
            up(deep, deep),
            plain_norm(deep, norm),
        )
    )
    sizes = [(deep, deep, dropout)] * (downs - 5) + [(c, 2 * c, 0.0) for c in (4 * ngf, 2 * ngf, ngf)]
    for narrow, wide, drop in sizes:
        layers = [
            nn.LeakyReLU(0.2, inplace=True),
            down(narrow, wide),
            plain_norm(wide, norm),
            level,
            nn.ReLU(inplace=True),
            up(2 * wide, narrow),
            plain_norm(narrow, norm),
        ]
        level = Skip(nn.Sequential(*layers, *([nn.Dropout(drop)] if drop else [])))
    head = nn.ConvTranspose2d(2 * ngf, 3, 4, 2, 1)
    return nn.Sequential(down(3, ngf), level, nn.ReLU(inplace=True), head, nn.Tanh())


def patchgan_twin(in_channels: int, ndf: int, norm: str) -> nn.Sequential:
    """The 70-pixel judge, layer by layer."""
    bias = norm == "instance"
    return nn.Sequential(
        nn.Conv2d(in_channels, ndf, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(ndf, 2 * ndf, 4, 2, 1, bias=bias),
        plain_norm(2 * ndf, norm),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * ndf, 4 * ndf, 4, 2, 1, bias=bias),
        plain_norm(4 * ndf, norm),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4 * ndf, 8 * ndf, 4, 1, 1, bias=bias),
        plain_norm(8 * ndf, norm),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8 * ndf, 1, 4, 1, 1),
    )


def disco_twin(ngf: int, bottleneck: int, last: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, ngf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for c in (ngf, 2 * ngf, 4 * ngf):
        layers += [nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c), nn.LeakyReLU(0.2)]
    deep = 8 * ngf
    if bottleneck:
        layers += [nn.Conv2d(deep, bottleneck, 4, 1, 0, bias=False), nn.BatchNorm2d(bottleneck), nn.LeakyReLU(0.2)]
        layers += [nn.ConvTranspose2d(bottleneck, deep, 4, 1, 0, bias=False), nn.BatchNorm2d(deep), nn.ReLU()]
    for c in (deep, deep // 2, deep // 4):
        layers += [nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(c // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(ngf, 3, 4, 2, 1, bias=False), last)


class DiscoJudgeTwin(nn.Module):
    def __init__(self, ndf: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, ndf, 4, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(ndf, 2 * ndf, 4, 2, 1, bias=False)
        self.conv3 = nn.Conv2d(2 * ndf, 4 * ndf, 4, 2, 1, bias=False)
        self.conv4 = nn.Conv2d(4 * ndf, 8 * ndf, 4, 2, 1, bias=False)
        self.bn2, self.bn3, self.bn4 = (nn.BatchNorm2d(ndf * k) for k in (2, 4, 8))
        self.conv5 = nn.Conv2d(8 * ndf, 1, 4, 1, 0, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = F.leaky_relu(self.conv1(x), 0.2)
        two = F.leaky_relu(self.bn2(self.conv2(x)), 0.2)
        three = F.leaky_relu(self.bn3(self.conv3(two)), 0.2)
        four = F.leaky_relu(self.bn4(self.conv4(three)), 0.2)
        return torch.sigmoid(self.conv5(four)), [two, three, four]


class LinTwin(nn.Module):
    """LIN with its own gamma and beta, or AdaLIN with given ones; torch.var divides by n - 1."""

    def __init__(self, channels: int, adaptive: bool) -> None:
        super().__init__()
        if not adaptive:
            self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
            self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), 0.9 if adaptive else 0.0))

    def forward(self, x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
        instance = (x - x.mean([2, 3], keepdim=True)) / torch.sqrt(x.var([2, 3], keepdim=True) + 1e-5)
        layer = (x - x.mean([1, 2, 3], keepdim=True)) / torch.sqrt(x.var([1, 2, 3], keepdim=True) + 1e-5)
        mixed = self.rho * instance + (1 - self.rho) * layer
        if gamma is None or beta is None:
            return mixed * self.gamma + self.beta
        return mixed * gamma[:, :, None, None] + beta[:, :, None, None]


def cam(
    x: Tensor, gap_fc: nn.Linear, gmp_fc: nn.Linear, gap_weight: Tensor, gmp_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """(maps scaled by both weights, logits of both classifiers)"""
    logits = torch.cat([gap_fc(x.mean((2, 3))), gmp_fc(x.amax((2, 3)))], 1)
    return torch.cat([x * gap_weight.view(1, -1, 1, 1), x * gmp_weight.view(1, -1, 1, 1)], 1), logits


class UGATITTwin(nn.Module):
    def __init__(self, ngf: int, n_blocks: int, full_size: int | None) -> None:
        super().__init__()
        wide = 4 * ngf
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7, bias=False)]
        layers += [nn.InstanceNorm2d(ngf), nn.ReLU()]
        for c in (ngf, 2 * ngf):
            layers += [
                nn.ReflectionPad2d(1),
                nn.Conv2d(c, 2 * c, 3, 2, bias=False),
                nn.InstanceNorm2d(2 * c),
                nn.ReLU(),
            ]
        for _ in range(n_blocks):
            half = [nn.ReflectionPad2d(1), nn.Conv2d(wide, wide, 3, bias=False), nn.InstanceNorm2d(wide)]
            rest = [nn.ReflectionPad2d(1), nn.Conv2d(wide, wide, 3, bias=False), nn.InstanceNorm2d(wide)]
            layers.append(Plus(nn.Sequential(*half, nn.ReLU(), *rest)))
        self.down = nn.Sequential(*layers)
        self.gap_fc, self.gmp_fc = nn.Linear(wide, 1, bias=False), nn.Linear(wide, 1, bias=False)
        self.conv1x1 = nn.Conv2d(2 * wide, wide, 1)
        self.light = full_size is None
        seen = wide if full_size is None else wide * (full_size // 4) ** 2
        self.fc = nn.Sequential(
            nn.Linear(seen, wide, bias=False), nn.ReLU(), nn.Linear(wide, wide, bias=False), nn.ReLU()
        )
        self.gamma, self.beta = nn.Linear(wide, wide, bias=False), nn.Linear(wide, wide, bias=False)
        self.blocks = nn.ModuleList()
        for _ in range(n_blocks):
            for _ in range(2):
                self.blocks += [nn.Conv2d(wide, wide, 3, bias=False), LinTwin(wide, adaptive=True)]
        layers = []
        for c in (wide, wide // 2):
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1)]
            layers += [nn.Conv2d(c, c // 2, 3, bias=False), LinTwin(c // 2, adaptive=False), nn.ReLU()]
        self.up = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7, bias=False), nn.Tanh())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.down(x)
        x, logits = cam(x, self.gap_fc, self.gmp_fc, self.gap_fc.weight, self.gmp_fc.weight)
        x = F.relu(self.conv1x1(x))
        heatmap = x.sum(1, keepdim=True)
        code = self.fc(x.mean((2, 3)) if self.light else x.reshape(len(x), -1))
        gamma, beta = self.gamma(code), self.beta(code)
        for index in range(0, len(self.blocks), 4):
            conv1, norm1, conv2, norm2 = self.blocks[index : index + 4]
            y = F.relu(norm1(conv1(F.pad(x, (1, 1, 1, 1), mode="reflect")), gamma, beta))
            x = x + norm2(conv2(F.pad(y, (1, 1, 1, 1), mode="reflect")), gamma, beta)
        return self.up(x), logits, heatmap


class UGATITJudgeTwin(nn.Module):
    """With torch's own spectral_norm, whose weight_orig is what scales the maps."""

    def __init__(self, ndf: int, n_layers: int) -> None:
        super().__init__()
        widths = [3] + [ndf * 2**i for i in range(n_layers - 1)]
        layers: list[nn.Module] = []
        for index, (narrow, wide) in enumerate(pairwise(widths)):
            stride = 1 if index == n_layers - 2 else 2
            layers += [nn.ReflectionPad2d(1), spectral_norm(nn.Conv2d(narrow, wide, 4, stride)), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers)
        self.gap_fc = spectral_norm(nn.Linear(widths[-1], 1, bias=False))
        self.gmp_fc = spectral_norm(nn.Linear(widths[-1], 1, bias=False))
        self.conv1x1 = nn.Conv2d(2 * widths[-1], widths[-1], 1)
        self.conv = spectral_norm(nn.Conv2d(widths[-1], 1, 4, bias=False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.model(x)
        x, logits = cam(x, self.gap_fc, self.gmp_fc, self.gap_fc.weight_orig, self.gmp_fc.weight_orig)
        x = F.leaky_relu(self.conv1x1(x), 0.2)
        return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect")), logits, x.sum(1, keepdim=True)


# Tools -------------------------------------------------------------------------------------------


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Both list their tensors in the same order, whatever they call them."""
    ours, theirs = source.state_dict(), target.state_dict()
    assert len(ours) == len(theirs)
    for mine, other in zip(ours.values(), theirs.values(), strict=True):
        assert mine.numel() == other.numel()
        other.copy_(mine.view(other.shape))


def stir(net: nn.Module, seed: int = 0) -> None:
    """Weights no initialiser gives, so that each counts: rho anywhere in [0, 1], norms neither 1 nor 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        size = parameter[0].numel() if parameter.dim() > 1 else 16
        parameter.data = torch.randn(parameter.shape, generator=generator) * (2 / size) ** 0.5
        if name.endswith("rho"):
            parameter.data.uniform_(0, 1, generator=generator)


def pictures(n: int, height: int, width: int, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(9)) * 2 - 1


def run_seeded(net: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(5)  # of the dropout
    return net(x)


def assert_same(ours: nn.Module, twin: nn.Module, x: Tensor, atol: float = 0.0) -> None:
    """Same outputs in train mode twice (statistics and power iterations move) and then in eval mode."""
    stir(ours)
    copy_weights(ours, twin)
    with torch.no_grad():
        for train in (True, True, False):
            for net in (ours, twin):
                net.train(train)
            got, wanted = run_seeded(ours, x.clone()), run_seeded(twin, x.clone())
            torch.testing.assert_close(got, wanted, rtol=0, atol=atol)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


# Promises ----------------------------------------------------------------------------------------

SIZES: list[tuple[Callable[[], nn.Module], int]] = [
    (lambda: ResNet(n_blocks=9), 11_378_179),
    (lambda: ResNet(n_blocks=9, norm="batch"), 11_383_427),
    (lambda: ResNet(n_blocks=6), 7_837_699),
    (lambda: UNet(downs=8, norm="batch"), 54_413_955),
    (lambda: UNet(downs=8, norm="instance"), 54_409_603),
    (lambda: UNet(downs=7, norm="batch"), 41_828_995),
    (lambda: UNet(downs=7, norm="instance"), 41_825_667),
    (lambda: PatchGAN(3, norm="instance"), 2_764_737),
    (lambda: PatchGAN(6, norm="batch"), 2_768_705),
    (lambda: PatchGAN(6, norm="batch", n_layers=0), 9_024),
    (lambda: PatchGAN(3, n_layers=1), 136_385),
    (lambda: PatchGAN(3, n_layers=2), 662_977),
    (lambda: PatchGAN(3, n_layers=4), 6_959_553),
    (lambda: PatchGAN(3, n_layers=5), 11_154_369),
    (UGATITGenerator, 10_589_888),
    (lambda: UGATITGenerator(full_size=256), 278_959_808),
    (lambda: UGATITDiscriminator(n_layers=5), 3_290_560),
    (lambda: UGATITDiscriminator(n_layers=7), 53_130_176),
    (lambda: DiscoGenerator(bottleneck=0), 5_513_856),
    (lambda: DiscoGenerator(bottleneck=100), 7_153_480),
    (DiscoDiscriminator, 2_765_568),
]


@pytest.mark.parametrize(("build", "parameters"), SIZES, ids=[str(parameters) for _, parameters in SIZES])
def test_networks_have_the_published_number_of_parameters(build: Callable[[], nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        assert count(build()) == parameters


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_resnet_equals_its_twin(norm: str, dropout: float) -> None:
    ours = ResNet(ngf=4, n_blocks=3, norm=norm, dropout=dropout)
    assert_same(ours, resnet_twin(4, 3, norm, dropout), pictures(2, 16, 20))


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("downs", [5, 7, 8])
def test_unet_equals_its_twin(norm: str, downs: int) -> None:
    """In-place activations, skips, and which levels drop out: with the same seed even in train mode."""
    size = 2**downs
    assert_same(UNet(ngf=2, downs=downs, norm=norm), unet_twin(2, downs, norm, 0.5), pictures(2, size, size), atol=1e-6)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_patchgan_equals_its_twin(norm: str) -> None:
    assert_same(PatchGAN(6, ndf=4, norm=norm), patchgan_twin(6, 4, norm), pictures(2, 32, 40, channels=6))


@pytest.mark.parametrize("bottleneck", [0, 10])
def test_disco_generator_equals_its_twin(bottleneck: int) -> None:
    ours = DiscoGenerator(ngf=4, bottleneck=bottleneck)
    assert_same(ours, disco_twin(4, bottleneck, nn.Tanh()), pictures(3, 64, 64))


def test_disco_networks_in_unit_range_are_the_authors_up_to_the_range() -> None:
    ours, twin = DiscoGenerator(ngf=4, bottleneck=0, unit_range=True), disco_twin(4, 0, nn.Sigmoid())
    judge, judge_twin = DiscoDiscriminator(ndf=4, unit_range=True), DiscoJudgeTwin(4)
    stir(ours)
    stir(judge)
    copy_weights(ours, twin)
    judge_twin.load_state_dict({_disco_name(name): value for name, value in judge.state_dict().items()})
    x = pictures(3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close((ours(x) + 1) / 2, twin((x + 1) / 2), rtol=0, atol=1e-6)
        logits, features = judge(x)
        wanted, wanted_features = judge_twin((x + 1) / 2)
    assert logits.shape == (3, 1, 1, 1)
    torch.testing.assert_close(torch.sigmoid(logits), wanted, rtol=0, atol=1e-6)
    for got, feature in zip(features, wanted_features, strict=True):
        torch.testing.assert_close(got, feature, rtol=0, atol=1e-6)


def _disco_name(name: str) -> str:
    where, index, *rest = name.split(".")
    if where in ("convs", "norms"):
        return ".".join([{"convs": "conv", "norms": "bn"}[where] + str(int(index) + 2), *rest])
    return {"first": "conv1", "head": "conv5"}[where] + "." + index


@pytest.mark.parametrize(("size", "batch"), [(32, 3), (16, 2), (128, 2)])
def test_disco_networks_follow_the_size(size: int, batch: int) -> None:
    downs = size.bit_length() - 3
    x = pictures(batch, size, size)
    assert DiscoGenerator(ngf=2, downs=downs, bottleneck=4)(x).shape == x.shape
    assert DiscoDiscriminator(ndf=2, downs=downs)(x)[0].shape == (batch, 1, 1, 1)


@pytest.mark.parametrize("full_size", [None, 32])
def test_ugatit_generator_equals_its_twin(full_size: int | None) -> None:
    x = pictures(2, 32, 32 if full_size else 40)
    ours = UGATITGenerator(ngf=4, n_blocks=2, full_size=full_size)
    assert_same(ours, UGATITTwin(4, 2, full_size), x, atol=2e-6)
    image, logits, heatmap = ours(x)
    assert (image.shape, logits.shape, heatmap.shape) == (x.shape, (2, 2), (2, 1, 8, x.shape[3] // 4))


@pytest.mark.parametrize("n_layers", [3, 5])
def test_ugatit_discriminator_equals_its_twin(n_layers: int) -> None:
    """Three forwards in train mode move the power iteration on; eval mode leaves it where it is."""
    assert_same(UGATITDiscriminator(ndf=4, n_layers=n_layers), UGATITJudgeTwin(4, n_layers), pictures(2, 32, 40), 1e-5)


def test_judges_see_maps_of_the_published_sizes() -> None:
    x = pictures(1, 256, 256)
    with torch.no_grad():
        assert PatchGAN(3, ndf=1)(x).shape == (1, 1, 30, 30)
        assert PatchGAN(3, ndf=1, n_layers=0)(x).shape == (1, 1, 256, 256)
        assert UGATITDiscriminator(ndf=1, n_layers=5)(x)[0].shape == (1, 1, 30, 30)
        assert UGATITDiscriminator(ndf=1, n_layers=7)(x)[0].shape == (1, 1, 6, 6)


def test_spectral_layers_are_torch_s_bit_for_bit_with_gradients() -> None:
    for ours, theirs in (
        (SpectralConv2d(3, 5, 4, 2), spectral_norm(nn.Conv2d(3, 5, 4, 2))),
        (SpectralLinear(6, 4, bias=False), spectral_norm(nn.Linear(6, 4, bias=False))),
    ):
        assert list(ours.state_dict()) == list(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        x = pictures(2, 9, 6)[:, :, :, :6]
        for _ in range(3):
            losses = [net(x).square().sum() + net(x * 2).sum() for net in (ours, theirs)]
            gradients = [
                torch.autograd.grad(loss, net.weight_orig)[0] for loss, net in zip(losses, (ours, theirs), strict=True)
            ]
            assert torch.equal(*gradients)
            assert torch.equal(ours.weight_u, theirs.weight_u)
        ours.eval(), theirs.eval()
        assert torch.equal(ours(x), theirs(x))


def test_spectral_norm_iterates_in_float32_under_autocast() -> None:
    ours = SpectralConv2d(3, 5, 4, 2)
    twin = SpectralConv2d(3, 5, 4, 2)
    twin.load_state_dict(ours.state_dict())
    x = pictures(1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
    twin(x)
    assert torch.equal(ours.weight_u, twin.weight_u)


GENERATORS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ResNet(ngf=4, n_blocks=2),
    "resnet-resize": lambda: ResNet(ngf=4, n_blocks=1, n_downs=1, upsample="resize"),
    "unet": lambda: UNet(ngf=4, downs=5),
    "disco": lambda: DiscoGenerator(ngf=4, downs=3),
    "ugatit": lambda: UGATITGenerator(ngf=4, n_blocks=2),
}


def image(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("name", GENERATORS)
def test_every_norm_of_a_generator_is_a_norm_act(name: str) -> None:
    net = GENERATORS[name]()
    inside = {layer.bn for layer in net.modules() if isinstance(layer, NormAct)}
    plain = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.LayerNorm, nn.GroupNorm)
    assert inside
    assert not [layer for layer in net.modules() if isinstance(layer, plain) and layer not in inside]


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_take_other_sizes_than_square(name: str) -> None:
    x = pictures(1, 64, 96)
    with torch.no_grad():
        assert image(GENERATORS[name]().eval()(x)).shape == x.shape


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_agree_in_channels_last(name: str) -> None:
    net, x = GENERATORS[name]().eval(), pictures(2, 64, 32)
    stir(net)
    with torch.no_grad():
        wanted = image(net(x))
        got = image(net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)))
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_learn_under_autocast(name: str) -> None:
    net, x = GENERATORS[name](), pictures(2, 64, 64)
    init_normal(net)
    wanted = image(run_seeded(net, x))
    with torch.autocast("cpu", torch.bfloat16):
        got = image(run_seeded(net, x))
        F.l1_loss(got.float(), x).backward()
    assert (got.float() - wanted).abs().mean() < 0.02
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in net.parameters())


def test_init_normal_draws_what_the_papers_draw() -> None:
    torch.manual_seed(0)
    net = ResNet(ngf=16, n_blocks=2, norm="batch")
    init_normal(net)
    assert net.blocks[0].conv1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.blocks[0].norm1.bn.weight.mean().item() == pytest.approx(1.0, abs=0.02)
    assert 0.01 < net.blocks[0].norm1.bn.weight.std().item() < 0.03
    assert not net.head.bias.any()


@pytest.mark.filterwarnings("ignore")
def test_an_exported_generator_has_one_node_per_norm_and_free_height_and_width() -> None:
    net = ResNet(ngf=4, n_blocks=2).eval()
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(net, (pictures(1, 32, 48),), dynamo=True, dynamic_shapes=(free,), verbose=False)
    graph = program.model_proto.graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("NormAct") == sum(isinstance(layer, NormAct) for layer in net.modules())
    assert kinds.count("Pad") == 1  # of the picture itself
    assert not {"Relu", "Add", "InstanceNormalization"} & set(kinds)
    assert all(dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim[2:])
