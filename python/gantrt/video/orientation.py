"""The eight ways a stored picture can lie: how EXIF and a video's display matrix say it, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """Swap rows and columns first, then mirror."""

    transpose: bool = False
    flip_x: bool = False  # left and right
    flip_y: bool = False  # top and bottom

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`image` (H, W, C) upright, C-contiguous; itself where nothing is to be done."""
        if self.transpose:
            image = image.transpose(1, 0, 2)
        if self.flip_x:
            image = image[:, ::-1]
        if self.flip_y:
            image = image[::-1]
        return np.ascontiguousarray(image)


UPRIGHT = Orientation()

# EXIF 2.32, tag 0x0112: where row 0 and column 0 of the stored picture are to be shown.
EXIF = {
    1: UPRIGHT,
    2: Orientation(flip_x=True),
    3: Orientation(flip_x=True, flip_y=True),
    4: Orientation(flip_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_x=True),
    7: Orientation(transpose=True, flip_x=True, flip_y=True),
    8: Orientation(transpose=True, flip_y=True),
}


def from_display_matrix(matrix: bytes) -> Orientation:
    """The nearest orientation of a display matrix: nine 32-bit numbers (ISO 14496-12, 8.3.2).

    Shown x is a·x + c·y, shown y is b·x + d·y, of [a, b, u, c, d, v, x, y, w].
    """
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) >= abs(b):
        return Orientation(False, flip_x=a < 0, flip_y=d < 0)
    return Orientation(True, flip_x=c < 0, flip_y=b < 0)
