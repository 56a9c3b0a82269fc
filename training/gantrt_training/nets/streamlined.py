"""The same function with less work: generators that only run.

`streamlined` makes a copy of a trained generator that returns its picture, exact up to rounding, from other pieces.
Nothing else is changed, in particular what a piece does not recognise: antialiasing, bilinear enlargement, BatchNorm
with running statistics, pictures of many channels, networks of other types.

    piece           where                                         in its place
    instance norm   BatchNorm with each picture's own statistics  NormAct with a scale and a shift, kept in float32
    void bias       convolution in front of an instance norm      none: n(x + b) = n(x); with LIN and AdaLIN it counts
    dropout         U-Net, residual blocks                        none: it is for training
    resize          ResizeConv2d                                  transposed 4x4 convolution (thin.ResizedConv2d)
    first           7x7 from at most 4 channels                   7x1 from 8 pixels' channels (thin.FirstConv2d)
    last            7x7, or to twice the size, to at most 4       2x2 pixels as channels (thin.LastConv2d), with tanh
    single pixel    U-Net whose bottleneck is one                 products with matrices (single_pixel.py)
    skips           U-Net                                         one ReLU for all of them
    attention       U-GAT-IT                                      factors in the 1x1 kernel; no logits and no heat map
    affine          U-GAT-IT                                      gamma and beta from one product, float32 once

The same mathematics on an exported graph: rewrites/.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import ConvNorm, ResizeConv2d
from .disco import DiscoGenerator
from .norm import NormAct, NormMode
from .resnet import ResidualBlock, ResNet
from .single_pixel import FromPixel, ToPixel
from .thin import FirstConv2d, LastConv2d, PaddedConv2d, ResizedConv2d, frozen
from .ugatit import UGATITGenerator
from .unet import UNet

Found = Counter[str]  # piece -> in how many places
Image = Callable[[nn.Module, Tensor], Tensor]  # Family.image


class Streamlined(nn.Module):
    """(N, C, H, W) → the picture. Runs without gradients; BatchNorms that are left go by `batch_norm_as`.

    found  piece -> in how many places it was put
    """

    def __init__(self, network: nn.Module, image: Image | None, found: Found) -> None:
        super().__init__()
        self.network, self.image, self.found = network, image, found
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) if self.image is None else self.image(self.network, x)

    def placed(self, device: torch.device | str, dtype: torch.dtype) -> Streamlined:
        """Itself, on the device, channels last, in dtype, but for what the norms' kernels take in float32."""
        exact = torch.promote_types(dtype, torch.float32)
        own = [(value, value.detach().to(device, exact)) for value in self._statistics()]
        self.to(device, dtype)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for parameter, value in own:
            parameter.data = value
        return self

    def _statistics(self) -> Iterator[nn.Parameter]:
        for module in self.modules():
            if isinstance(module, NormAct) and module.bn is None:
                yield from (value for value in (module.scale, module.shift, module.rho) if value is not None)


def streamlined(generator: nn.Module, norm_mode: NormMode, image: Image) -> Streamlined:
    """A copy of `generator` that makes the same pictures as image(generator, x) under batch_norm_as(norm_mode)."""
    net, found = copy.deepcopy(generator).eval(), Found()
    if norm_mode == "instance":
        _instance_norms(net, found)
    _void_biases(net, found)
    _dropout(net, found)
    if isinstance(net, DiscoGenerator) and LastConv2d.takes(net.head):
        net.head, found["last"] = LastConv2d(net.head, tanh=False), 1
    form = _FORMS.get(type(net))
    made = form(net, found) if form else net
    _resized(made, found)
    return Streamlined(made, None if form else image, +found)


def _instance_norms(net: nn.Module, found: Found) -> None:
    for parent in list(net.modules()):
        for name, old in list(parent.named_children()):
            if isinstance(old, NormAct) and old.bn is not None:
                channels = old.bn.num_features
                new = NormAct(
                    channels,
                    "instance",
                    act=old.act,
                    slope=old.slope,
                    pad=old.pad,
                    rpad=old.rpad,
                    affine=True,
                    eps=old.eps,
                )
                new.scale, new.shift = frozen(old.bn.weight), frozen(old.bn.bias)
                setattr(parent, name, new)
                found["instance norm"] += 1


def _void_biases(net: nn.Module, found: Found) -> None:
    for module in net.modules():
        pairs: list[tuple[Any, NormAct]] = []
        if isinstance(module, ConvNorm):
            pairs = [(module.conv, module.norm)]
        elif isinstance(module, ResidualBlock):
            pairs = [(module.conv1, module.norm1), (module.conv2, module.norm2)]
        for conv, norm in pairs:
            if norm.bn is None and norm.rho is None and getattr(conv, "bias", None) is not None:
                conv.bias = None
                found["void bias"] += 1


def _dropout(net: nn.Module, found: Found) -> None:
    for module in net.modules():
        if isinstance(module, ResidualBlock) and module.dropout:
            module.dropout, module.norm1.pad = 0.0, 1
            found["dropout"] += 1
        elif isinstance(module, UNet) and module.dropout:
            module.dropout = 0.0
            found["dropout"] += 1


def _resized(net: nn.Module, found: Found) -> None:
    for parent in list(net.modules()):
        for name, old in list(parent.named_children()):
            if type(old) is ResizeConv2d:
                setattr(parent, name, ResizedConv2d(old))
                found["resize"] += 1


def _first(conv: Any, wide_enough: bool, found: Found) -> nn.Module:
    """The padding and the convolution."""
    if not (wide_enough and FirstConv2d.takes(conv)):
        return PaddedConv2d(conv, 3)
    found["first"] += 1
    return FirstConv2d(conv)


def _last(conv: nn.Module, even: bool, found: Found) -> nn.Module:
    """The convolution and tanh."""
    if not (even and LastConv2d.takes(conv)):
        return nn.Sequential(conv, nn.Tanh())
    found["last"] += 1
    return LastConv2d(conv)


class _ResNet(nn.Module):
    def __init__(self, net: ResNet, found: Found) -> None:
        super().__init__()
        halvings = len(net.down)
        self.stem, self.down, self.blocks, self.up = net.stem, net.down, net.blocks, net.up
        self.stem.conv = _first(net.stem.conv, halvings > 1, found)  # two halvings need eight pixels
        self.head = _last(net.head, halvings > 0, found)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.blocks(self.down(self.stem(x)))))  # type: ignore[no-any-return]


class _UNet(nn.Module):
    def __init__(self, net: UNet, found: Found) -> None:
        super().__init__()
        self.first, self.down, self.up = net.first, net.down, net.up
        self.bottom: nn.Module = net.bottom
        if ToPixel.takes(net.bottom):
            self.bottom = ToPixel(net.bottom)
            found["single pixel"] += 1
        innermost: Any = net.up[0]
        if FromPixel.takes(innermost.conv):
            innermost.conv = FromPixel(innermost.conv)
            found["single pixel"] += 1
        self.head = _last(net.head, True, found)
        found["skips"] += 1

    def forward(self, x: Tensor) -> Tensor:
        skips = [F.leaky_relu(self.first(x), 0.2)]
        for down in self.down:
            skips.append(down(skips[-1]))
        y = F.relu(self.bottom(skips[-1]))
        positive = list(torch._foreach_clamp_min(skips, 0))
        for up in self.up:
            y = torch.cat([positive.pop(), up(y)], 1)
        return self.head(y)  # type: ignore[no-any-return]


class _UGATIT(nn.Module):
    """The encoder's last norm pads for the decoder: a 1x1 convolution of a reflection is a convolution's reflection."""

    def __init__(self, net: UGATITGenerator, found: Found) -> None:
        super().__init__()
        self.stem, self.down, self.encoder, self.mlp = net.stem, net.down, net.encoder, net.mlp
        self.decoder, self.up, self.light = net.decoder, net.up, net.full_size is None
        self.stem.conv = _first(net.stem.conv, True, found)  # the encoder needs eight pixels
        innermost: Any = self.encoder[-1]
        innermost.norm2.pad = 1
        kernel, channels = net.mix.weight[:, :, 0, 0], net.mix.out_channels
        self.mix = frozen(kernel[:, :channels] * net.gap_fc.weight + kernel[:, channels:] * net.gmp_fc.weight)
        self.mix_bias = net.mix.bias
        self.affine = frozen(torch.cat([net.gamma.weight, net.beta.weight]))
        self.head = _last(net.head, True, found)
        found.update(["attention", "affine"])

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.down(self.stem(x)))
        n, c, h, w = x.shape
        flat = x.permute(0, 2, 3, 1).reshape(-1, c)  # a product with a matrix adds the bias itself
        x = F.relu(F.linear(flat, self.mix, self.mix_bias)).view(n, h, w, c).permute(0, 3, 1, 2)
        inside = x[..., 1:-1, 1:-1]
        affine = F.linear(self.mlp(inside.mean((2, 3)) if self.light else inside.flatten(1)), self.affine)
        gamma, beta = affine.to(torch.promote_types(affine.dtype, torch.float32)).chunk(2, 1)
        for block in self.decoder:
            x = block(x, gamma, beta)
        return self.head(self.up(x))  # type: ignore[no-any-return]


_FORMS: dict[type, Callable[..., nn.Module]] = {ResNet: _ResNet, UNet: _UNet, UGATITGenerator: _UGATIT}
