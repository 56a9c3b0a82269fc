"""What the kernels compute, in NumPy float64 and without cleverness. The judge of every faster version."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, of R, G, B


def standardise(x: Array, axes: tuple[int, ...], eps: float, unbiased: bool) -> Array:
    count = np.prod([x.shape[axis] for axis in axes])
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred**2).sum(axes, keepdims=True) / (max(count - 1, 1) if unbiased else count)
    return centred / np.sqrt(variance + eps)


def norm_act(
    x: NDArray,
    scale: NDArray | None = None,
    shift: NDArray | None = None,
    rho: NDArray | None = None,
    residual: NDArray | None = None,
    *,
    eps: float = 1e-5,
    unbiased: bool = False,
    act: str = "none",
    slope: float = 0.2,
    pad: int = 0,
    rpad: int = 0,
) -> Array:
    """y = reflect_pad(act(scale * n(x) + shift) + residual); x (N, C, H, W), as gantrt.norm_act with layout="nchw"."""
    x = np.asarray(x, np.float64)
    y = standardise(x, (2, 3), eps, unbiased)
    if rho is not None:
        share = np.asarray(rho, np.float64)[None, :, None, None]
        y = share * y + (1 - share) * standardise(x, (1, 2, 3), eps, unbiased)
    if scale is not None:
        y = y * np.asarray(scale, np.float64).reshape(-1, x.shape[1], 1, 1)
    if shift is not None:
        y = y + np.asarray(shift, np.float64).reshape(-1, x.shape[1], 1, 1)
    if act != "none":
        y = np.where(y < 0, {"relu": 0.0, "leaky_relu": slope}[act] * y, y)
    if residual is not None:
        height, width = residual.shape[2] - rpad, residual.shape[3] - rpad
        y = y + np.asarray(residual, np.float64)[:, :, rpad:height, rpad:width]
    return np.pad(y, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect") if pad else y


def resize_matrix(source: int, target: int, how: str) -> Array:
    """(target, source): the weight of each source pixel in each target pixel, along one side."""
    weights = np.zeros((target, source))
    step = source / target
    for i in range(target):
        if how != "bilinear" and target < source:  # the area it covers
            for k in range(source):
                weights[i, k] = max(0.0, min((i + 1) * step, k + 1) - max(i * step, k)) / step
        else:  # half-pixel centres, the edge repeated
            position = (i + 0.5) * step - 0.5
            below = int(np.floor(position))
            weights[i, min(max(below, 0), source - 1)] += 1 - (position - below)
            weights[i, min(max(below + 1, 0), source - 1)] += position - below
    return weights


def resize(image: NDArray, size: tuple[int, int], how: str) -> Array:
    """(h, w, c) to (*size, c)."""
    rows = resize_matrix(image.shape[0], size[0], how)
    columns = resize_matrix(image.shape[1], size[1], how)
    return np.einsum("ik,jl,klc->ijc", rows, columns, image.astype(np.float64), optimize=True)


def frame_to_tensor(
    frame: NDArray,
    size: tuple[int, int],
    channels: int = 3,
    color: str = "rgb",
    resize_how: str = "auto",
    pad: int = 0,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> Array:
    """(h, w), (h, w, 1) or (h, w, 3) uint8 to (1, channels, *size)."""
    image = frame.reshape(*frame.shape[:2], -1).astype(np.float64)
    if color == "bgr":
        image = image[:, :, ::-1]
    if image.shape[2] == 3 and channels == 1:
        image = (image @ LUMA)[:, :, None]
    image = np.repeat(image, channels // image.shape[2], axis=2)
    image = resize(image, (size[0] - 2 * pad, size[1] - 2 * pad), resize_how)
    low, high = value_range
    tensor = (image / 255 * (high - low) + low).transpose(2, 0, 1)[None]
    return np.pad(tensor, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect") if pad else tensor


def tensor_to_frame_unrounded(
    x: NDArray,
    size: tuple[int, int],
    channels: int = 3,
    color: str = "rgb",
    resize_how: str = "auto",
    crop: int = 0,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> Array:
    """(1, C, H, W) to (*size, channels), clamped to 0..255 but not yet rounded to the nearest byte."""
    height, width = x.shape[-2] - crop, x.shape[-1] - crop
    image = np.asarray(x, np.float64)[0, :, crop:height, crop:width].transpose(1, 2, 0)
    if image.shape[2] == 3 and channels == 1:
        image = (image @ LUMA)[:, :, None]
    image = np.repeat(image, channels // image.shape[2], axis=2)
    if color == "bgr":
        image = image[:, :, ::-1]
    low, high = value_range
    image = (resize(image, size, resize_how) - low) / (high - low) * 255
    return np.clip(image, 0, 255)
