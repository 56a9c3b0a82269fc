"""From a video's YUV to RGB and back, by the matrix and range the video is tagged with.

swscale rounds to the nearest value only when it is told to; without those flags yuv420p is up to three levels off.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from av import VideoFormat, VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

log = logging.getLogger("gantrt")

# ITU-T H.273 code points, as FFmpeg uses them.
RGB, BT709, UNSPECIFIED, SMPTE170M = 0, 1, 2, 6
LIMITED, FULL = 1, 2
_HDR_TRANSFERS = (16, 18)  # PQ and HLG

_MATRICES = (1, 4, 5, 6, 7, 9)  # that swscale knows; not YCgCo, constant luminance and the like
# SWS_BILINEAR, SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT and SWS_FULL_CHR_H_INP of swscale.h; PyAV before 18 has no names.
_EXACT = 0x2 | 0x40000 | 0x2000 | 0x4000


@dataclass(frozen=True)
class Colors:
    """How a clip's numbers mean colours: code points of ITU-T H.273."""

    matrix: int
    range: int  # LIMITED (16..235) or FULL (0..255)
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @classmethod
    def usual(cls, width: int, height: int) -> Colors:
        """What players assume of a clip that does not say: BT.709 for HD, BT.601 below."""
        return cls(BT709 if width >= 1280 or height > 576 else SMPTE170M, LIMITED)

    @classmethod
    def of(cls, frame: VideoFrame) -> Colors:
        """What a decoded frame is tagged with, completed by what players assume."""
        usual = cls.usual(frame.width, frame.height)
        matrix = int(frame.colorspace) if int(frame.colorspace) in _MATRICES else usual.matrix
        full = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
        return cls(matrix, FULL if full else LIMITED, int(frame.color_primaries), int(frame.color_trc))

    @property
    def is_hdr(self) -> bool:
        return self.transfer in _HDR_TRANSFERS


class Converter:
    """Converts the frames of one clip; not to be used by two threads at once.

    swscale's tables are made once: that costs as much as a fifth of the conversion of a 720p frame.
    """

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def to_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A decoded frame as (H, W, 3) RGB, C-contiguous; alpha is dropped."""
        if not frame.format.is_rgb:
            colors = Colors.of(frame)
            frame.colorspace, frame.color_range = colors.matrix, colors.range
        rgb: Any = self._scaler.reformat(frame, format="rgb24", interpolation=_EXACT).to_ndarray()
        contiguous: NDArray[np.uint8] = np.ascontiguousarray(rgb)
        return contiguous

    def from_rgb(self, image: NDArray[np.uint8], colors: Colors, pix_fmt: str) -> VideoFrame:
        """The inverse: a frame for an encoder, tagged with `colors`."""
        frame = VideoFrame.from_ndarray(image, format="rgb24")
        if VideoFormat(pix_fmt).is_rgb:
            return self._scaler.reformat(frame, format=pix_fmt, interpolation=_EXACT)
        frame.colorspace = colors.matrix  # reformat hands it on, and converts by it
        made = self._scaler.reformat(frame, format=pix_fmt, dst_color_range=colors.range, interpolation=_EXACT)
        made.colorspace, made.color_range = colors.matrix, colors.range
        return made


def to_rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    """`Converter.to_rgb` of a single frame."""
    return Converter().to_rgb(frame)


def from_rgb(image: NDArray[np.uint8], colors: Colors, pix_fmt: str) -> VideoFrame:
    """`Converter.from_rgb` of a single frame."""
    return Converter().from_rgb(image, colors, pix_fmt)
