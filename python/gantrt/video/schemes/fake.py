"""`fake:CLIP` is a camera made of a clip: for ever, and at its own speed. For tests and demonstrations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator

from .. import Frame
from ..files import VideoFile
from ..live import Image, Newest
from ..pace import Pacer

SCHEMES = ("fake",)
USAGE = "fake:CLIP"


def source(spec: str) -> Newest:
    path = spec.partition(":")[2]
    return Newest(spec, lambda: LoopedClip(path))


class LoopedClip:
    """A Device: the frames of a clip at their times, again and again."""

    def __init__(self, path: str) -> None:
        self._path = path
        with VideoFile(path) as clip:  # raises UnsupportedInput
            self.width, self.height, self.rate = clip.width, clip.height, clip.rate
        self._frames = self._loop()

    def read(self, closing: threading.Event) -> Callable[[], Image]:
        frame, wait = next(self._frames)
        closing.wait(wait)
        return lambda: frame.image

    def close(self) -> None:
        self._frames.close()

    def _loop(self) -> Generator[tuple[Frame, float], None, None]:
        pacer, begin = Pacer(), 0.0  # of this round, in seconds
        while True:
            first = end = None
            with VideoFile(self._path) as clip:
                for frame in clip:
                    seconds = frame.seconds or 0.0
                    first = seconds if first is None else first
                    end = begin + seconds - first + float((frame.duration or 0) * (frame.time_base or 0))
                    yield frame, pacer.until(begin + seconds - first)
            begin = end or 0.0
