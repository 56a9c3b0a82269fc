"""Frames larger than the network: tiles that overlap, translated at their own scale and blended without seams."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

import cv2
import numpy as np
from numpy.typing import NDArray

from .arrays import Frame
from .engines import Engine
from .errors import UsageError
from .fitting import Color, Resize, Tensor

log = logging.getLogger("gantrt")

_OVERLAP = 4  # tiles overlap by at least a fourth of their side, unless told otherwise


@dataclass(frozen=True)
class _Span:
    """One tile along one axis, and how much of each of its pixels goes into the picture."""

    start: int
    weight: NDArray[np.float32]  # (tile,)


def spans(length: int, tile: int, overlap: int) -> list[_Span]:
    """Tiles that cover `length` >= tile, evenly spaced, at least `overlap` shared; their weights add up to 1.

    Of what two tiles share only the middle half is blended: near its edges a tile sees padding where its neighbour
    sees the picture. What lies within a fourth of the overlap of an inner edge is never used.
    """
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    starts = [round(i * (length - tile) / max(count - 1, 1)) for i in range(count)]
    pixels = np.arange(length) + 0.5
    # rises[i] is what tile i has taken over from tile i - 1 at each pixel: 0 before their ramp, 1 behind it.
    rises = [np.ones(length)]
    for before, start in pairwise(starts):
        shared, step = before + tile - start, start - before
        half = min(shared / 4, step / 2)  # ramps of three neighbours must not meet
        middle = start + shared / 2
        rises.append(np.clip((pixels - (middle - half)) / max(2 * half, 1e-6), 0, 1))
    rises.append(np.zeros(length))
    return [
        _Span(start, (rises[i] - rises[i + 1])[start : start + tile].astype(np.float32))
        for i, start in enumerate(starts)
    ]


class Tile(Resize):
    """Cuts a frame into tiles of the network's size, at their own scale, and blends the translations."""

    def __init__(self, engine: Engine, color: Color, threads: int, overlap: int | None = None) -> None:
        super().__init__(engine, color, threads)
        # The size asked for, or the one the engine was made at.
        self._tile = engine.fit(engine.manifest.input.height, engine.manifest.input.width)
        side = min(self._tile)
        self._overlap = side // _OVERLAP if overlap is None else overlap
        if not 0 <= self._overlap <= side // 2:
            raise UsageError(f"overlap {overlap}: must be 0 to {side // 2}, half a tile's side")
        if self._engine.manifest.norm_mode == "instance":
            log.warning(
                "fit tile: this network normalises over each picture it sees, so tiles differ in colour from each "
                "other and from the whole; an engine made with --dynamic and fit pad does not"
            )

    def size(self, height: int, width: int) -> tuple[int, int]:
        return self._tile

    def translate(
        self, frame: Frame, out: Frame, x: Tensor, y: Tensor, run: Callable[[Tensor, Tensor], None]
    ) -> tuple[float, float, float]:
        """Fill `out` from `frame`, as many tiles at a time as x and y (N, C, H, W) hold.

        Returns the seconds spent before, in and after the network.
        """
        batch, _, height, width = x.shape
        begin = time.perf_counter()
        bottom, right = max(0, height - frame.shape[0]), max(0, width - frame.shape[1])
        if bottom or right:
            frame = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
        made = np.zeros((1, y.shape[1], *frame.shape[:2]), np.float32)
        tiles = list(
            product(
                spans(frame.shape[0], height, self._overlap),
                spans(frame.shape[1], width, self._overlap),
            )
        )
        before = time.perf_counter() - begin
        inside = after = 0.0
        for at in range(0, len(tiles), batch):
            group = tiles[at : at + batch]
            begin = time.perf_counter()
            for i, (row, column) in enumerate(group):
                cut = frame[row.start : row.start + height, column.start : column.start + width]
                self.enter(cut, x[i : i + 1])
            entered = time.perf_counter()
            run(x, y)
            ran = time.perf_counter()
            for i, (row, column) in enumerate(group):
                _add(made[0], y[i], row, column)
            before, inside, after = before + entered - begin, inside + ran - entered, after + time.perf_counter() - ran
        begin = time.perf_counter()
        self.leave(made[:, :, : out.shape[0], : out.shape[1]], out)
        return before, inside, after + time.perf_counter() - begin


def _add(made: NDArray[np.float32], tile: NDArray[np.float32], row: _Span, column: _Span) -> None:
    """Add a tile (C, h, w) to the picture (C, H, W) by its weights, where they are not zero."""
    rows, columns = _used(row), _used(column)
    part = tile[:, rows, columns] * (row.weight[rows, None] * column.weight[None, columns])
    made[
        :,
        row.start + rows.start : row.start + rows.stop,
        column.start + columns.start : column.start + columns.stop,
    ] += part


def _used(span: _Span) -> slice:
    used = np.flatnonzero(span.weight)
    return slice(int(used[0]), int(used[-1]) + 1)
