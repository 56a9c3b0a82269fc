"""Showing a clip at its own speed."""

from __future__ import annotations

import time

from . import Frame

_LATE = 0.5  # seconds behind, after which the clip goes on from here instead of hurrying


class Pacer:
    """How long a frame has still to wait for its time. Frames of a live source never wait."""

    def __init__(self) -> None:
        self._zero: float | None = None  # when the frame of time 0 was, or would have been, due

    def wait(self, frame: Frame) -> float:
        """Seconds until `frame` is due; 0 if it is now, or late. The first one is due at once."""
        seconds = frame.seconds
        return 0.0 if frame.captured is not None or seconds is None else self.until(seconds)

    def until(self, seconds: float) -> float:
        """Seconds until that time of the clip."""
        now = time.perf_counter()
        if self._zero is None or self._zero + seconds < now - _LATE:
            self._zero = now - seconds
        return max(0.0, self._zero + seconds - now)
