"""NormAct by our C++ and CUDA kernels, as a torch custom op: for networks that run and do not learn.

`gantrt::norm_act` has no derivative. It knows its shape (torch.compile may trace over it), allocates through torch and
queues on torch's current stream, so that a CUDA graph may be captured around it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from gantrt import _core
from torch import Tensor

from . import norm

Layout = Literal["nchw", "nhwc"]


@contextlib.contextmanager
def fused_norms() -> Iterator[None]:
    """Within this every NormAct that runs without gradients is one call of our kernels, in all threads."""
    before, norm.fused = norm.fused, _norm_act
    try:
        yield
    finally:
        norm.fused = before


@torch.library.custom_op("gantrt::norm_act", mutates_args=())
def _norm_act(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    rho: Tensor | None,
    residual: Tensor | None,
    eps: float,
    unbiased: bool,
    slope: float,
    pad: int,
    rpad: int,
) -> Tensor:
    """norm.norm_act for x of any dtype the kernels take, as NHWC where x lies channels last. slope: see Activation."""
    x = x if _channels_last(x) else x.contiguous()
    y = _empty_result(x, pad)
    layout: Layout = "nhwc" if _channels_last(x) else "nchw"
    memory = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    residual = None if residual is None else residual.contiguous(memory_format=memory)
    scale, shift, rho = (
        None if value is None else value.detach().float().contiguous() for value in (scale, shift, rho)
    )
    if x.is_cuda:
        _launch(x, scale, shift, rho, residual, y, layout, eps, unbiased, slope, pad, rpad)
        return y

    def rows(value: Tensor | None) -> Tensor | None:
        return value.permute(0, 2, 3, 1) if value is not None and layout == "nhwc" else value

    _core.norm_act(
        rows(x),
        scale,
        shift,
        rho,
        rows(residual),
        eps=eps,
        unbiased=unbiased,
        act="leaky_relu",
        slope=slope,
        pad=pad,
        rpad=rpad,
        layout=layout,
        out=rows(y),
    )
    return y


@_norm_act.register_fake
def _(x, scale, shift, rho, residual, eps, unbiased, slope, pad, rpad):  # type: ignore[no-untyped-def]
    return _empty_result(x, pad)


def _launch(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    rho: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    layout: Layout,
    eps: float,
    unbiased: bool,
    slope: float,
    pad: int,
    rpad: int,
) -> None:
    n, c, h, w = x.shape
    workspace = torch.empty(_core.norm_act_workspace_bound(n, c), dtype=torch.uint8, device=x.device)

    def address(tensor: Tensor | None) -> int:
        return 0 if tensor is None else tensor.data_ptr()

    with torch.cuda.device(x.device):
        _core.norm_act_launch(
            x.data_ptr(),
            scale=address(scale),
            shift=address(shift),
            rho=address(rho),
            residual=address(residual),
            y=y.data_ptr(),
            shape=(n, c, h, w),
            per_sample=scale is not None and scale.dim() == 2,
            dtype=str(x.dtype).removeprefix("torch."),
            layout=layout,
            eps=eps,
            slope=slope,
            unbiased=unbiased,
            pad=pad,
            rpad=rpad,
            workspace=workspace.data_ptr(),
            workspace_bytes=workspace.numel(),
            stream=torch.cuda.current_stream(x.device).cuda_stream,
        )


def _parameter(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().float().contiguous()


def _channels_last(x: Tensor) -> bool:
    """Whether x is better seen as NHWC; a tensor that is both counts as NCHW."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _empty_result(x: Tensor, pad: int) -> Tensor:
    n, c, h, w = x.shape
    memory = torch.channels_last if _channels_last(x) else torch.contiguous_format
    return torch.empty((n, c, h + 2 * pad, w + 2 * pad), dtype=x.dtype, device=x.device, memory_format=memory)
