"""Layers whose weight is divided by its largest singular value (Miyato et al. 2018, arXiv:1802.05957, alg. 1).

Keys and arithmetic are those of torch.nn.utils.spectral_norm: weight_orig, weight_u, weight_v. Two reasons not to use
it: it hides the weight behind a hook, and under autocast it would iterate in half precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12


def iterates(nets: nn.Module) -> list[Tensor]:
    """The vectors of all power iterations in `nets`: buffers that each forward pass in train mode moves on."""
    layers = [layer for layer in nets.modules() if isinstance(layer, (SpectralConv2d, SpectralLinear))]
    return [vector for layer in layers for vector in (layer.weight_u, layer.weight_v)]


def _own(layer: nn.Conv2d | nn.Linear) -> None:
    """Replace the layer's weight by weight_orig and the two vectors of the power iteration."""
    weight = layer.weight
    del layer.weight
    rows = weight.flatten(1)
    layer.register_parameter("weight_orig", nn.Parameter(weight.detach()))
    for name, length in (("weight_u", rows.shape[0]), ("weight_v", rows.shape[1])):
        layer.register_buffer(name, F.normalize(weight.new_empty(length).normal_(), dim=0, eps=EPS))


def _normalised(weight_orig: Tensor, u: Tensor, v: Tensor, training: bool) -> Tensor:
    """weight_orig / sigma; one power iteration first, on u and v in place, if training."""
    with torch.autocast(weight_orig.device.type, enabled=False):
        rows = weight_orig.flatten(1)
        if training:
            with torch.no_grad():
                v.copy_(F.normalize(torch.mv(rows.t(), u), dim=0, eps=EPS))
                u.copy_(F.normalize(torch.mv(rows, v), dim=0, eps=EPS))
            u, v = u.clone(), v.clone()  # a second forward before the backward will change the buffers
        return weight_orig / torch.dot(u, torch.mv(rows, v))


class SpectralConv2d(nn.Conv2d):
    weight_orig: Tensor
    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)
        _own(self)

    def forward(self, x: Tensor) -> Tensor:
        weight = _normalised(self.weight_orig, self.weight_u, self.weight_v, self.training)
        return F.conv2d(x, weight, self.bias, self.stride)


class SpectralLinear(nn.Linear):
    weight_orig: Tensor
    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        _own(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _normalised(self.weight_orig, self.weight_u, self.weight_v, self.training), self.bias)
