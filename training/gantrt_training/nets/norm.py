"""NormAct, the one op of our networks: its definition in torch, and the node it becomes in an exported graph.

    y = reflect_pad(act(scale * n(x) + shift) + residual)

n(x) is InstanceNorm (Ulyanov et al. 2016, arXiv:1607.08022), or, with rho, the mixture
rho * InstanceNorm(x) + (1 - rho) * LayerNorm(x) of LIN and AdaLIN (Kim et al. 2020, arXiv:1907.10830, eq. 1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Act = Literal["none", "relu", "leaky_relu"]
Kind = Literal["instance", "batch", "lin", "adalin"]
NormMode = Literal["instance", "running"]

_batch_norm_as: NormMode = "running"
fused: Callable[..., Tensor] | None = None  # what runs the op without gradients, if not torch; nets/fused.py sets it


@contextlib.contextmanager
def batch_norm_as(mode: NormMode) -> Iterator[None]:
    """Within this, a BatchNorm in eval mode uses its running statistics, or those of each picture ("instance").

    BatchNorm in train mode at batch 1 *is* InstanceNorm with the same affine: pix2pix was tested that way.
    """
    global _batch_norm_as  # noqa: PLW0603
    before, _batch_norm_as = _batch_norm_as, mode
    try:
        yield
    finally:
        _batch_norm_as = before


def activate(x: Tensor, act: Act, slope: float = 0.2) -> Tensor:
    if act == "relu":
        return F.relu(x)
    return F.leaky_relu(x, slope) if act == "leaky_relu" else x


def norm_act(
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    rho: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    eps: float = 1e-5,
    unbiased: bool = False,
    act: Act = "none",
    slope: float = 0.2,
    pad: int = 0,
    rpad: int = 0,
) -> Tensor:
    """The op itself.

    x             (N, C, H, W)
    scale, shift  (C,) or (N, C); None: 1 and 0
    rho           (C,); None: all instance
    residual      (N, C, H + 2 rpad, W + 2 rpad): its border is cut off before it is added
    returns       (N, C, H + 2 pad, W + 2 pad)
    Statistics are taken in float32, of float64 in float64; `unbiased` divides the second moment by n - 1 (n = 1: by 1).
    """
    if torch.onnx.is_in_onnx_export():
        return _onnx_node(x, scale, shift, rho, residual, eps, unbiased, act, slope, pad, rpad)
    if fused is not None and not torch.is_grad_enabled():
        return fused(x, scale, shift, rho, residual, eps, unbiased, _slope(act, slope), pad, rpad)
    if rho is None and not unbiased:
        one_d = scale is None or scale.dim() == 1
        y = instance_norm(x, scale if one_d else None, shift if one_d else None, eps)
        if not one_d:
            y = y * _per_channel(scale, y) + _per_channel(shift, y)
    else:
        y = _mixed_norm(x, scale, shift, rho, eps, unbiased)
    y = activate(y, act, slope)
    if residual is not None:
        y = y + (residual[..., rpad:-rpad, rpad:-rpad] if rpad else residual)
    return F.pad(y, (pad,) * 4, mode="reflect") if pad else y


def _slope(act: Act, slope: float) -> float:
    """The one number that tells the activations apart: act(v) = max(v, slope * v)."""
    return {"none": 1.0, "relu": 0.0, "leaky_relu": float(slope)}[act]


def instance_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """torch's, but for two slips of its CPU kernel.

    It keeps the statistics of half-precision features in half precision; and for a single picture it takes a gradient
    that lies channels last for one that does not, without a word (torch 2.13).
    """
    if x.device.type != "cpu":
        return F.instance_norm(x, weight=scale, bias=shift, eps=eps)
    y = F.instance_norm(_wide(x), weight=scale, bias=shift, eps=eps).to(x.dtype)
    return _ContiguousGradient.apply(y) if y.requires_grad else y  # type: ignore[no-untyped-call]


class _ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


def _mixed_norm(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, rho: Tensor | None, eps: float, unbiased: bool
) -> Tensor:
    xf = _wide(x)
    y = _standardise(xf, (2, 3), eps, unbiased)
    if rho is not None:
        rho = rho.to(xf.dtype).view(1, -1, 1, 1)
        y = rho * y + (1 - rho) * _standardise(xf, (1, 2, 3), eps, unbiased)
    if scale is not None:
        y = y * _per_channel(scale, y)
    if shift is not None:
        y = y + _per_channel(shift, y)
    return y.to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """What statistics are taken of: half precision would lose them."""
    return x if x.dtype == torch.float64 else x.float()


def _standardise(x: Tensor, dims: tuple[int, ...], eps: float, unbiased: bool) -> Tensor:
    count = 1
    for dim in dims:
        count *= x.shape[dim]
    centred = x - x.mean(dims, keepdim=True)
    variance = centred.square().sum(dims, keepdim=True) / (max(count - 1, 1) if unbiased else count)
    return centred * torch.rsqrt(variance + eps)


def _per_channel(value: Tensor | None, like: Tensor) -> Tensor:
    if value is None:
        raise ValueError("norm_act: scale and shift must be given together")
    return value.to(like.dtype).reshape(-1, like.shape[1], 1, 1)


def _onnx_node(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    rho: Tensor | None,
    residual: Tensor | None,
    eps: float,
    unbiased: bool,
    act: Act,
    slope: float,
    pad: int,
    rpad: int,
) -> Tensor:
    """A bare gantrt::NormAct; engine_file attaches its body. Absent inputs are ''."""
    channels = x.shape[1]
    scale = x.new_ones(channels, dtype=torch.float32) if scale is None else scale
    shift = x.new_zeros(channels, dtype=torch.float32) if shift is None else shift
    inputs: list[Tensor | None] = [x, scale, shift, rho, residual]
    while inputs[-1] is None:
        inputs.pop()
    n, c, h, w = x.shape
    attributes: dict[str, Any] = {
        "eps": float(eps),
        "unbiased": int(unbiased),
        "slope": _slope(act, slope),
        "pad": pad,
        "rpad": rpad,
        "plugin_namespace": "gantrt",
        "plugin_version": "1",
    }
    return torch.onnx.ops.symbolic(
        "gantrt::NormAct", inputs, attributes, dtype=x.dtype, shape=(n, c, h + 2 * pad, w + 2 * pad), version=1
    )


class NormAct(nn.Module):
    """Norm, activation, residual and the next convolution's reflection pad, as one layer.

    kind  "instance": no parameters unless `affine`; biased variance (nn.InstanceNorm2d)
          "batch":    nn.BatchNorm2d; in eval mode see `batch_norm_as`
          "lin":      own rho (init 0), scale (1), shift (0); unbiased variance (U-GAT-IT's ILN)
          "adalin":   own rho (init 0.9); scale and shift (N, C) are given to forward; unbiased variance
    """

    def __init__(
        self,
        channels: int,
        kind: Kind,
        *,
        act: Act = "relu",
        slope: float = 0.2,
        pad: int = 0,
        rpad: int = 0,
        affine: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.kind, self.act, self.slope, self.pad, self.rpad, self.eps = kind, act, slope, pad, rpad, eps
        self.bn = nn.BatchNorm2d(channels, eps=eps) if kind == "batch" else None
        has_affine = kind == "lin" or (kind == "instance" and affine)
        self.scale = nn.Parameter(torch.ones(channels)) if has_affine else None
        self.shift = nn.Parameter(torch.zeros(channels)) if has_affine else None
        rho = {"lin": 0.0, "adalin": 0.9}.get(kind)
        self.rho = nn.Parameter(torch.full((channels,), rho)) if rho is not None else None

    def forward(
        self, x: Tensor, residual: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        if self.bn is not None and (self.training or _batch_norm_as == "running"):
            y = activate(self.bn(x), self.act, self.slope)
            if residual is not None:
                y = y + (residual[..., self.rpad : -self.rpad, self.rpad : -self.rpad] if self.rpad else residual)
            return F.pad(y, (self.pad,) * 4, mode="reflect") if self.pad else y
        if self.bn is not None:
            scale, shift = self.bn.weight, self.bn.bias
        elif self.scale is not None:
            scale, shift = self.scale, self.shift
        return norm_act(
            x,
            scale,
            shift,
            self.rho,
            residual,
            eps=self.eps,
            unbiased=self.rho is not None,
            act=self.act,
            slope=self.slope,
            pad=self.pad,
            rpad=self.rpad,
        )

    def extra_repr(self) -> str:
        return f"{self.kind}, act={self.act}, pad={self.pad}, rpad={self.rpad}"
