"""How a frame of any size meets a network that takes only some: resize it, pad and crop it, or cut it into tiles."""

from __future__ import annotations

from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ._core import frame_to_tensor, tensor_to_frame
from .arrays import Frame
from .engines import Engine
from .errors import UsageError
from .manifest import Manifest

Color = Literal["rgb", "bgr"]
Tensor = NDArray[np.float32]


class Fit(Protocol):
    """Stateless, so that every thread may use the same one."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The network's size for a frame of this size."""
        ...

    def enter(self, frame: Frame, x: Tensor) -> None:
        """Fill x (1, C, H, W) from frame (h, w[, 1 or 3])."""
        ...

    def leave(self, y: Tensor, out: Frame) -> None:
        """Fill out (h, w[, 1 or 3]) from y (1, C, H, W)."""
        ...


def make_fit(kind: str, engine: Engine, color: Color, threads: int, overlap: int | None = None) -> Fit:
    """The fit called `kind`; UsageError if there is none. `overlap` (pixels) is for "tile"."""
    from .tiling import Tile

    if overlap is not None and kind != "tile":
        raise UsageError(f"overlap {overlap}: is for fit 'tile', not for {kind!r}")
    if kind == "resize":
        return Resize(engine, color, threads)
    if kind == "pad":
        return Pad(engine, color, threads)
    if kind == "tile":
        return Tile(engine, color, threads, overlap)
    raise UsageError(f"fit {kind!r}: there are 'resize', 'pad' and 'tile'")


class Resize:
    """Resize the frame to the network's size, and the picture back to the frame's."""

    def __init__(self, engine: Engine, color: Color, threads: int) -> None:
        self._engine = engine
        self._color = order_for(engine.manifest, color)
        self._range = engine.manifest.range
        self._threads = threads  # 0: as many as pay

    def size(self, height: int, width: int) -> tuple[int, int]:
        return self._engine.fit(height, width)

    def enter(self, frame: Frame, x: Tensor) -> None:
        if frame.ndim == 3 and abs(frame.strides[2]) != 1:  # a view of planes: frame_to_tensor wants pixels
            frame = np.ascontiguousarray(frame)
        frame_to_tensor(frame, out=x, color=self._color, range=self._range, threads=self._threads)

    def leave(self, y: Tensor, out: Frame) -> None:
        tensor_to_frame(y, out=out, color=self._color, range=self._range, threads=self._threads)


class Pad(Resize):
    """Reflect the frame's right and bottom edge up to the next size the network takes; crop that off again.

    Every pixel keeps its place and scale, which resizing by a few pixels would blur.
    """

    def size(self, height: int, width: int) -> tuple[int, int]:
        needed = self._engine.fit(height, width)
        if needed[0] < height or needed[1] < width:
            raise UsageError(
                f"fit 'pad': a frame of {height}x{width} does not fit into {needed[0]}x{needed[1]}; "
                "use 'tile' or 'resize'"
            )
        return needed

    def enter(self, frame: Frame, x: Tensor) -> None:
        bottom, right = x.shape[2] - frame.shape[0], x.shape[3] - frame.shape[1]
        if bottom or right:
            frame = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
        super().enter(frame, x)

    def leave(self, y: Tensor, out: Frame) -> None:
        super().leave(y[:, :, : out.shape[0], : out.shape[1]], out)


def order_for(manifest: Manifest, color: Color) -> Color:
    """The order frame_to_tensor is told. It makes RGB planes; a network of BGR planes wants the other one."""
    if manifest.color == "bgr":
        return "rgb" if color == "bgr" else "bgr"
    return color
