"""Sizes of pictures: one number is a square, HxW a rectangle."""

from __future__ import annotations

from typing import NamedTuple


class HeightWidth(NamedTuple):
    """A rectangle, in pixels; written HxW."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


Size = int | HeightWidth  # a square is always written as one number


def height_width(size: Size) -> HeightWidth:
    return HeightWidth(size, size) if isinstance(size, int) else size


def make_size(height: int, width: int) -> Size:
    return height if height == width else HeightWidth(height, width)
