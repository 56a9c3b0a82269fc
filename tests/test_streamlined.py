"""Generators with less work make the pictures of those they are made from."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gantrt_training.family import load_family, make_config
from gantrt_training.nets import norm
from gantrt_training.nets.conv import ResizeConv2d
from gantrt_training.nets.fused import fused_norms
from gantrt_training.nets.norm import NormAct, NormMode, batch_norm_as
from gantrt_training.nets.padding import pad
from gantrt_training.nets.resnet import ResNet
from gantrt_training.nets.streamlined import streamlined
from gantrt_training.nets.thin import LastConv2d
from torch import Tensor, nn

# family, what overrides its paper's configuration, BatchNorm's mode, (height, width), pieces
U = {"first": 0, "last": 1, "single pixel": 2, "skips": 1}
R = {"first": 1, "last": 1}
A = {"first": 1, "last": 1, "attention": 1, "affine": 1}
CASES: list[tuple[str, dict[str, Any], NormMode, tuple[int, int], dict[str, int]]] = [
    ("pix2pix", {"norm": "instance"}, "instance", (32, 32), U | {"void bias": 7, "dropout": 1}),
    ("pix2pix", {"dropout": 0.0}, "instance", (32, 64), U | {"instance norm": 7}),
    ("pix2pix", {"channels_b": 5}, "running", (64, 32), U | {"last": 0, "dropout": 1}),
    ("pix2pix", {"upsample": "resize", "channels_b": 1}, "running", (32, 32),
     U | {"resize": 4, "dropout": 1}),
    ("pix2pix", {"upsample": "resize", "norm": "instance", "channels_b": 5}, "instance", (32, 32),
     U | {"last": 0, "resize": 5, "void bias": 7, "dropout": 1}),
    ("cyclegan", {}, "instance", (32, 24), R | {"void bias": 9}),
    ("cyclegan", {"norm": "batch"}, "instance", (24, 32), R | {"instance norm": 9}),
    ("cyclegan", {"norm": "batch", "upsample": "resize"}, "running", (32, 32), R | {"resize": 2}),
    ("cyclegan", {"upsample": "resize", "channels_a": 1, "channels_b": 4, "lambda_identity": 0.0}, "instance", (8, 12),
     R | {"resize": 2, "void bias": 9}),
    ("cyclegan", {"upsample": "bilinear", "antialias": True, "dropout": 0.5}, "instance", (32, 32),
     R | {"void bias": 9, "dropout": 2}),
    ("cyclegan", {"n_downs": 1, "channels_b": 5, "lambda_identity": 0.0}, "instance", (4, 6), {"void bias": 7}),
    ("discogan", {}, "running", (64, 64), {"last": 1}),
    ("discogan", {"bottleneck": 10, "unit_range": False}, "instance", (64, 64), {"last": 1, "instance norm": 8}),
    ("discogan", {"upsample": "resize", "channels_b": 1}, "instance", (64, 32),
     {"last": 1, "resize": 3, "instance norm": 6}),
    ("ugatit", {"light": True}, "instance", (32, 24), A | {"resize": 2}),
    ("ugatit", {"light": True, "channels_a": 1, "channels_b": 1}, "running", (8, 12), A | {"resize": 2}),
    ("ugatit", {"light": False, "n_blocks": 1}, "instance", (32, 32), A | {"resize": 2}),
]  # fmt: skip
SMALL = {"size": 32, "ngf": 6, "ndf": 6, "downs": 5, "n_blocks": 2}


def network_of(name: str, changes: dict[str, Any]) -> tuple[Any, nn.Module]:
    """Its family and its generator in float64, all of whose parameters and statistics count."""
    family = load_family(name)
    known = vars(make_config(family, "paper", {}))
    small = {key: value for key, value in SMALL.items() if key in known} | ({"size": 64} if name == "discogan" else {})
    torch.manual_seed(0)
    generator = family.build(make_config(family, "paper", small | changes))[family.generators["a2b"]].double().eval()
    for key, value in generator.state_dict().items():
        if not value.is_floating_point():
            continue
        if key.endswith(("rho", "running_var")):
            value.uniform_(0.2, 0.8)
        elif value.dim() == 1:
            value.normal_(0.3, 0.5)
        else:
            value.normal_(0, (value[0].numel() if "up" not in key else 4 * len(value)) ** -0.5)
    return family, generator


def exact_norm(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    rho: Tensor | None,
    residual: Tensor | None,
    eps: float,
    unbiased: bool,
    slope: float,
    border: int,
    cut: int,
) -> Tensor:
    """NormAct, whose own twin takes its statistics in float32, in x's type."""

    def standardised(dims: tuple[int, ...]) -> Tensor:
        n = torch.Size([x.shape[d] for d in dims]).numel()
        variance = x.var(dims, keepdim=True, correction=1 if unbiased and n > 1 else 0)
        return (x - x.mean(dims, keepdim=True)) / (variance + eps).sqrt()

    def channels(value: Tensor) -> Tensor:
        return value.reshape(-1, x.shape[1], 1, 1)

    y = standardised((2, 3))
    if rho is not None:
        y = channels(rho) * y + (1 - channels(rho)) * standardised((1, 2, 3))
    y = y if scale is None else y * channels(scale)
    y = y if shift is None else y + channels(shift)
    y = torch.maximum(y, slope * y)
    if residual is not None:
        y = y + F.pad(residual, (-cut,) * 4)
    return F.pad(y, (border,) * 4, mode="reflect") if border else y


def name_of(case: Any) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[1].items()), case[2]])


def picture(case: Any, dtype: torch.dtype) -> Tensor:
    channels = case[1].get("channels_a", 3)
    return torch.rand(2, channels, *case[3], dtype=dtype) * 2 - 1


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_it_is_the_same_function(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, changes, mode, _, pieces = case
    family, generator = network_of(name, changes)
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    x = picture(case, torch.float64)
    monkeypatch.setattr(norm, "fused", exact_norm)
    less = streamlined(generator, mode, family.image)
    with torch.inference_mode(), batch_norm_as(mode):
        expected = family.image(generator, x)
        plain = less(x)
        last = less.placed("cpu", torch.float64)(x.contiguous(memory_format=torch.channels_last))
    assert expected.std() > 0.05
    assert less.found == {piece: places for piece, places in pieces.items() if places}
    for made in (plain, last):
        assert made.shape == expected.shape
        assert (made - expected).abs().max() <= 1e-10
    after = generator.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_odd_sizes_keep_their_last_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "fused", exact_norm)
    torch.manual_seed(0)
    net = ResNet(ngf=6, n_blocks=1, n_downs=0).double().eval()
    net.blocks[-1].norm2.pad = 3  # there is nothing behind it that pads
    x = torch.rand(1, 3, 9, 7, dtype=torch.float64)
    less = streamlined(net, "instance", lambda net, given: net(given))
    assert less.found == {"void bias": 3}
    with torch.no_grad():
        assert (less(x) - net(x)).abs().max() <= 1e-10


class Stranger(nn.Module):
    """Of no type that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = ResizeConv2d(3, 4, True), NormAct(4, "batch")
        self.head = nn.Conv2d(4, 3, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.head(self.norm(self.conv(x))), None


def test_a_network_of_another_type_keeps_its_own_forward() -> None:
    torch.manual_seed(0)
    stranger, x = Stranger().eval(), torch.rand(1, 3, 8, 8)
    made = streamlined(stranger, "instance", lambda net, given: net(given)[0])
    assert made.found == {"instance norm": 1, "resize": 1}
    with torch.no_grad(), batch_norm_as("instance"):
        assert (made(x) - stranger(x)[0]).abs().max() < 1e-5


def test_what_the_norms_take_in_float32_is_not_rounded() -> None:
    family, generator = network_of("ugatit", {"light": True})
    less = streamlined(generator.float(), "instance", family.image).placed("cpu", torch.float16)
    wide = [value for value in less.parameters() if value.dtype == torch.float32]
    narrow = [value for value in less.parameters() if value.dtype == torch.float16]
    assert len(wide) + len(narrow) == len(list(less.parameters()))
    rhos = [module.rho for module in generator.modules() if isinstance(module, NormAct) and module.rho is not None]
    assert len(wide) == len(rhos) + 4
    assert all(any(torch.equal(rho, value) for value in wide) for rho in rhos)
    assert all(rho.half().float().ne(rho).any() for rho in rhos)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_leaves_channels_last(mode: Any) -> None:
    x = torch.rand(2, 5, 6, 7)
    given = x.contiguous(memory_format=torch.channels_last)
    for border in ((1, 1, 1, 1), (3, 4, 2, 0)):
        assert torch.equal(pad(given, border, mode), F.pad(x, border, mode=mode))
        assert torch.equal(pad(x, border, mode), F.pad(x, border, mode=mode))
        assert pad(given, border, mode).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_few_channels_are_filled_up_to_eights(channels: int) -> None:
    for conv in (nn.Conv2d(5, channels, 7), nn.ConvTranspose2d(5, channels, 4, 2, 1), ResizeConv2d(5, channels, True)):
        assert LastConv2d.takes(conv)
        assert len(LastConv2d(conv).weight) == 8 * -(-channels // 2)
    assert not LastConv2d.takes(nn.Conv2d(5, 5, 7))
    assert not LastConv2d.takes(nn.Conv2d(5, 3, 7, padding=3))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.needs_cuda)])
@pytest.mark.parametrize("case", [case for case in CASES if case[2] == "instance"], ids=name_of)
def test_in_half_precision_it_is_no_further_from_float32(
    case: Any, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Than what it is made from, by more than chance."""
    family, generator = network_of(*case[:2])
    x = picture(case, torch.float32)[:1].to(device).contiguous(memory_format=torch.channels_last)
    less = streamlined(generator, "instance", family.image).placed(device, torch.float16)
    if device == "cpu":  # whose kernels take float32 alone
        monkeypatch.setattr(norm, "fused", lambda x, *rest: exact_norm(*map(wide, (x, *rest))).to(x.dtype))
    with torch.no_grad(), batch_norm_as("instance"), contextlib.nullcontext() if device == "cpu" else fused_norms():
        exact = family.image(generator.float().to(device), x)
        as_trained = family.image(generator.half().to(memory_format=torch.channels_last), x.half())
        made = less(x.half())
    assert (made.float() - exact).abs().mean() <= 1.5 * (as_trained.float() - exact).abs().mean() + 5e-4


def wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
