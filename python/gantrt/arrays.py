"""The door for pictures: any CPU array becomes a numpy view, and a result leaves as the kind that came in."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedInput

Frame = NDArray[np.uint8]  # (H, W, 3), or (H, W) and (H, W, 1) where the network has one channel

_DLPACK_CPU = 1
_MOST_PIXELS = 32767  # a side, as csrc/kernels/resize.h says


def as_frame(x: Any, channels: int, name: str = "frame") -> Frame:
    """`x` (numpy, torch, anything with DLPack, in CPU memory) as a numpy view of the same memory.

    Raises UnsupportedInput unless it is uint8, (H, W, 3), or for a one-channel network also (H, W) or (H, W, 1).
    """
    frame = _view(x, name)
    shape = tuple(frame.shape)
    fits = len(shape) in (2, 3) and shape[2:] in ([(3,)] if channels == 3 else [(), (1,), (3,)])
    if frame.dtype != np.uint8 or not fits or 0 in shape:
        wanted = "(H, W, 3)" if channels == 3 else "(H, W), (H, W, 1) or (H, W, 3)"
        hint = "; drop the fourth channel with frame[..., :3]" if shape[2:] == (4,) else ""
        raise UnsupportedInput(f"{name}: must be {wanted} uint8, got {shape} {frame.dtype}{hint}")
    if max(shape[:2]) > _MOST_PIXELS:
        raise UnsupportedInput(f"{name}: at most {_MOST_PIXELS} pixels a side, got {shape}; cut it into pieces")
    return frame


def lies_on_gpu(x: Any) -> bool:
    return hasattr(x, "__cuda_array_interface__")


def as_output(out: Any, like: Frame, channels: int) -> Frame:
    """The caller's own output as a numpy view; it must be writable and have the frame's shape."""
    view = as_frame(out, channels, "out")
    if view.shape != like.shape:
        raise UnsupportedInput(f"out: must have the frame's shape {like.shape}, got {view.shape}")
    if not view.flags.writeable:
        raise UnsupportedInput("out: is read-only; give an array that may be written")
    if not view[0].flags.c_contiguous:
        raise UnsupportedInput("out: the pixels of a row must lie side by side; rows may be any distance apart")
    return view


def as_kind_of(x: Any, result: Frame) -> Any:
    """`result` itself, or without a copy as the array type of `x`."""
    return result if isinstance(x, np.ndarray) else library_of(x).from_dlpack(result)


def _view(x: Any, name: str) -> NDArray[Any]:
    if isinstance(x, np.ndarray):
        return x
    if not hasattr(x, "__dlpack_device__"):
        raise UnsupportedInput(
            f"{name}: must be a numpy array, a torch tensor or another DLPack array, got {type(x).__name__}"
        )
    kind, _ = x.__dlpack_device__()
    if kind != _DLPACK_CPU:
        raise UnsupportedInput(f"{name}: lies in device memory and this engine runs on the CPU; copy it there first")
    # numpy before 2.1 makes every DLPack import read-only; torch's own door has no such limit.
    return np.asarray(x) if _root(x) == "torch" else np.from_dlpack(x)


def _root(x: Any) -> str:
    return type(x).__module__.partition(".")[0]


def library_of(x: Any) -> Any:
    """The array library `x` belongs to. Whoever made `x` has imported it already."""
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else sys.modules[_root(x)]
