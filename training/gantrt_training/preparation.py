"""How a picture becomes a training picture: scaled, cut at random, mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from gantrt.errors import UnsupportedInput

from .pictures import Bits, Picture
from .sizes import HeightWidth, Size, height_width

Interpolation = Literal["bicubic", "bilinear"]

# resize_and_crop       to load_size, whatever the picture's shape; then cut to size: what the four papers' code does
# scale_width_and_crop  to load_size's width, the shape kept; then cut
# scale_width           to size's width, the shape kept, the height rounded to what networks take; not cut
# crop                  not scaled; cut
# none                  neither scaled nor cut, but for rounding to what networks take
# Where pictures keep a size of their own, `size` is the least it may be.
Preprocess = Literal["resize_and_crop", "scale_width_and_crop", "scale_width", "crop", "none"]
UNCUT: tuple[Preprocess, ...] = ("scale_width", "none")  # pictures keep sizes of their own


@dataclass(frozen=True)
class Preparation:
    """Scaled as `mode` says, by way of `load_size`; cut to `size`; mirrored."""

    size: Size
    load_size: Size
    flip: bool = False  # mirror every other picture
    interpolation: Interpolation = "bicubic"
    mode: Preprocess = "resize_and_crop"
    multiple: int = 1  # of heights and widths that networks take
    bits: Bits = 8  # kept of each value
    white: int = 65535  # the value of a 16-bit picture that counts as white

    def load(self, picture: Picture) -> Picture:
        """(h, w, c) as it waits to be cut. Raises UnsupportedInput if it is too small for that."""
        height, width = picture.shape[:2]
        wanted, least = self._load_size(height, width), height_width(self.size)
        if wanted.height < least.height or wanted.width < least.width:
            fault = f"is {height}x{width}, smaller than size {least}"
            if self.mode == "scale_width":
                fault = f"is {height}x{width}, and {wanted} at that width, lower than size {least}"
            raise UnsupportedInput(f"{fault}; lower size, remove it, or set preprocess=resize_and_crop")
        return resize(picture, wanted, self)

    def _load_size(self, height: int, width: int) -> HeightWidth:
        size, load = height_width(self.size), height_width(self.load_size)
        if self.mode == "scale_width_and_crop":
            return HeightWidth(max(size.height, round(height * load.width / width)), load.width)
        if self.mode == "scale_width":
            return HeightWidth(self._rounded(height * size.width / width), size.width)
        if self.mode == "none":
            return HeightWidth(self._rounded(height), self._rounded(width))
        return HeightWidth(height, width) if self.mode == "crop" else load

    def cut(self, picture: Picture, down: float, right: float, mirrored: bool) -> Picture:
        """A view of what `load` returned: the window that lies `down` and `right` of all there are, both in [0, 1)."""
        if self.mode not in UNCUT:
            height, width = height_width(self.size)
            top = int(down * (picture.shape[0] - height + 1))
            left = int(right * (picture.shape[1] - width + 1))
            picture = picture[top : top + height, left : left + width]
        return picture[:, ::-1] if mirrored else picture

    def whole(self, picture: Picture) -> Picture:
        """(h, w, c) → `size`, as it is tested: resized, or where its shape is to be kept, the middle of it."""
        size = height_width(self.size)
        if self.mode == "resize_and_crop":
            return resize(picture, size, self)
        height, width = picture.shape[:2]
        scale = size.width / width if self.mode.startswith("scale_width") else 1.0
        scale = max(scale, size.height / height, size.width / width)
        if scale != 1.0:
            scaled = HeightWidth(max(size.height, round(height * scale)), max(size.width, round(width * scale)))
            picture = resize(picture, scaled, self)
        top, left = (picture.shape[0] - size.height) // 2, (picture.shape[1] - size.width) // 2
        return np.ascontiguousarray(picture[top : top + size.height, left : left + size.width])

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


def resize(picture: Picture, size: Size, preparation: Preparation) -> Picture:
    """(h, w, c) → `size`, antialiased when it shrinks: Pillow's filters, which the papers' code uses."""
    height, width = height_width(size)
    if picture.shape[:2] == (height, width):
        return picture
    planes = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    deep = planes.dtype != torch.uint8  # which torch resizes as it is, rounding and clipping
    resized = F.interpolate(
        planes.float() if deep else planes,
        (height, width),
        mode=preparation.interpolation,
        antialias=True,
        align_corners=False,
    )
    made = resized[0].permute(1, 2, 0).numpy()
    return made.round().clip(0, 65535).astype(picture.dtype) if deep else made
