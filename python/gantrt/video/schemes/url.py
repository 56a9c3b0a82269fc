"""`rtsp://…` and the other protocols of network cameras and live streams, by FFmpeg."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av

from ...errors import GantrtError, UnsupportedInput
from ..color import Converter
from ..live import Image, Newest

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "http", "https")
USAGE = "rtsp://..."

# Without these FFmpeg gathers seconds of a stream before it shows the first frame, and keeps some in hand.
_FRESH = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000", "probesize": "1000000"}
_OPEN, _STALL = 10.0, 5.0  # seconds to answer, and of silence after which a stream is lost


def source(spec: str) -> Newest:
    options = _FRESH | ({"rtsp_transport": "tcp"} if spec.startswith("rtsp") else {})  # UDP loses packets, and frames
    return Newest(without_password(spec), lambda: Stream(spec, options))


class Stream:
    """A Device: the video of anything FFmpeg opens."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        """Raises UnsupportedInput if nobody answers, or there is no video."""
        name = without_password(url)
        try:
            self._container: Any = av.open(url, options=options, timeout=(_OPEN, _STALL))
        except (av.FFmpegError, OSError) as error:
            reason = (error.strerror or str(error)).lower()
            raise UnsupportedInput(f"{name}: cannot be opened ({reason})") from error
        try:
            if not self._container.streams.video:
                raise UnsupportedInput(f"{name}: there is no video in it")
            if self._container.duration and url.startswith("http"):
                raise UnsupportedInput(f"{name}: is a file, no live stream; download it and give its path")
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "SLICE"  # frame threads hold back as many frames as there are threads
            self._decoded = self._container.decode(self._stream)
            self._first = next(self._decoded, None)
            if self._first is None:
                raise UnsupportedInput(f"{name}: not one frame of it can be decoded")
        except av.FFmpegError as error:
            self._container.close()
            raise UnsupportedInput(f"{name}: cannot be read ({(error.strerror or str(error)).lower()})") from error
        except GantrtError:
            self._container.close()
            raise
        self._converter = Converter()
        self.width, self.height = self._first.width, self._first.height
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate: Fraction | None = rate if rate and rate <= 1000 else None

    def read(self, closing: threading.Event) -> Callable[[], Image]:
        frame, self._first = self._first, None
        frame = frame if frame is not None else next(self._decoded, None)
        if frame is None:
            raise GantrtError("the stream has ended")
        return lambda: self._converter.to_rgb(frame)

    def close(self) -> None:
        self._container.close()


def without_password(url: str) -> str:
    """For messages and logs."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)
