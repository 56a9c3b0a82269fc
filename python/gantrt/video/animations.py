"""Animated pictures, written as clips are: .gif with a palette for each frame, .apng without loss."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from . import ANIMATION_FORMATS, Frame, FrameSource, SinkOptions
from .encode import VideoSink

log = logging.getLogger("gantrt")

_TICK = Fraction(1, 100)  # GIF counts hundredths of a second
_MOST_GIF_RATE = 50  # frames a second: browsers show what claims more at ten


class AnimationSink(VideoSink):
    """A FrameSink: one GIF or APNG, played for ever. Times are kept, in a GIF to a hundredth of a second."""

    def __init__(self, path: Path, like: FrameSource, options: SinkOptions) -> None:
        if options.codec or options.pix_fmt or options.crf is not None:
            raise UsageError(f"{path}: codec, pix-fmt and crf are for clips; {path.suffix} has none to choose")
        self._last: int | None = None  # the time of the last frame, in ticks
        super().__init__(path, like, options)

    def write(self, frame: Frame) -> None:
        if self._gif:
            seconds = Fraction(frame.index) / self._rate if frame.seconds is None else Fraction(frame.seconds)
            tick = round(seconds / _TICK)
            tick = tick if self._last is None else max(tick, self._last + 1)
            self._last = tick
            length = (frame.duration or 0) * (frame.time_base or 0)
            frame = Frame(frame.image, frame.index, tick, _TICK, max(1, round(length / _TICK)) if length else None)
        super().write(frame)

    @staticmethod
    def _form(path: Path) -> str:
        return ANIMATION_FORMATS[path.suffix.lower()]

    def _convert(self, image: NDArray[np.uint8]) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        return self._palette.apply(frame) if self._gif else frame

    def _add_video(self, like: FrameSource, options: SinkOptions) -> av.VideoStream:
        self._gif = self._path.suffix.lower() == ".gif"
        if self._gif and self._rate > _MOST_GIF_RATE:
            log.warning("%s: players show a GIF at %d frames/s at most; this has more", self._path, _MOST_GIF_RATE)
        stream = self._container.add_stream("gif" if self._gif else "apng", rate=self._rate)
        stream.width, stream.height = like.width, like.height
        stream.pix_fmt = "pal8" if self._gif else "rgb24"
        stream.codec_context.time_base = _TICK if self._gif else like.time_base or 1 / self._rate
        self._palette = _Palette(like.width, like.height)
        return stream

    def _take_along(self, like: FrameSource, options: SinkOptions) -> None:
        """Neither format has sound, subtitles or titles."""


class _Palette:
    """FFmpeg's palettegen and paletteuse: 256 colours of its own for each frame, their errors diffused."""

    def __init__(self, width: int, height: int) -> None:
        graph = av.filter.Graph()
        self._source = graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 1000)
        )
        split = graph.add("split")
        generate = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1")
        self._sink = graph.add("buffersink")
        self._source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(generate, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(self._sink)
        graph.configure()
        self._graph = graph  # its filters live as long as it does
        self._index = 0

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        frame.pts, frame.time_base = self._index, Fraction(1, 1000)
        self._index += 1
        self._source.push(frame)
        made: av.VideoFrame = self._sink.pull()
        return made
