"""Whether a frame is the one before: a picture that does not move need not be translated again."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_BLOCK = 16  # pixels a side: large enough to average noise away, small enough that nothing that moves is lost


class StillSkip:
    """Compares frames with the last one that was translated, by the means of blocks of 16x16 pixels.

    The largest difference decides, not the average: a small thing that moves in a large picture is a change.
    """

    def __init__(self, levels: float) -> None:
        """`levels`: by how much of 0..255 a block's mean may differ."""
        self._levels = levels
        self._last: NDArray[Any] | None = None

    def matches(self, image: NDArray[np.uint8]) -> bool:
        """Whether `image` (H, W, 3) looks like the last one that did not; that one is kept for comparison."""
        height, width = image.shape[:2]
        blocks = max(1, width // _BLOCK), max(1, height // _BLOCK)
        means = cv2.resize(image, blocks, interpolation=cv2.INTER_AREA).astype(np.int16)
        same = self._last is not None and self._last.shape == means.shape
        if same and np.abs(means - self._last).max() <= self._levels:
            return True
        self._last = means
        return False
