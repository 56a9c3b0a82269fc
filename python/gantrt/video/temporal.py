"""Temporal smoothing: less flicker where the picture stands still, nothing where it moves.

A network that sees each frame alone turns a camera's noise into flicker. Where the input stands still the output is
blended with what was shown before:  s_t = s_{t-1} + (1 - a·g) (y_t - s_{t-1}),  with the strength a and a gate g per
pixel that is 1 where the input equals the last one and falls to 0 with its change: g = exp(-(d / 8)²), d the change
of luma in levels, averaged over 8x8 pixels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_BLOCK = 8  # pixels a side over which the change is averaged
_MOTION = 8.0  # levels of change at which the gate has fallen to 1/e

Image = NDArray[np.uint8]


class Smoother:
    """Takes the frames of one stream in order."""

    def __init__(self, strength: float) -> None:
        """`strength` a: 0 changes nothing; 0.9 keeps nine tenths of what was shown."""
        self._strength = strength
        self._luma: NDArray[Any] | None = None  # of the last input, by blocks
        self._shown: NDArray[np.float32] | None = None

    def apply(self, source: Image, image: Image) -> Image:
        """The smoothed `image` (H, W, 3), a translation of `source` (H, W, 3); a fresh array."""
        height, width = source.shape[:2]
        blocks = max(1, width // _BLOCK), max(1, height // _BLOCK)
        luma = cv2.resize(source, blocks, interpolation=cv2.INTER_AREA).astype(np.float32).mean(axis=2)
        last, self._luma = self._luma, luma
        current = image.astype(np.float32)
        if self._shown is None or last is None or self._shown.shape != image.shape or last.shape != luma.shape:
            self._shown = current
            return image.copy()
        gate = np.exp(-(((luma - last) / _MOTION) ** 2))
        # The neighbours' motion closes the gate as well: the edge of what moves lies between blocks.
        gate = cv2.erode(gate, np.ones((3, 3), np.uint8))
        keep = cv2.resize(gate * self._strength, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
        self._shown = cv2.blendLinear(current, self._shown, 1 - keep, keep)
        smooth: Any = cv2.convertScaleAbs(self._shown)  # rounds
        return smooth  # type: ignore[no-any-return]
