"""`screen:[N][,FPS]`: what a screen shows, by mss. N counts from 1; 0 is all screens together.

FFmpeg's own x11grab is not used: PyAV and OpenCV each bring a libxcb, and grabbing with both loaded ends the process.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ...errors import DeviceUnavailable, GantrtError, UsageError
from ..live import Image, Newest
from ..pace import Pacer

SCHEMES = ("screen",)
USAGE = "screen:"

_SPEC = re.compile(r"screen:(\d*)(?:,(\d+))?")


def source(spec: str) -> Newest:
    asked = _SPEC.fullmatch(spec)
    if asked is None or asked[2] == "0":
        raise UsageError(f"{spec}: write screen:[N][,FPS], e.g. screen: or screen:1,15")
    return Newest(spec, lambda: Screen(spec, int(asked[1] or 1), int(asked[2] or 30)))


class Screen:
    """A Device: a screen, so many times a second."""

    def __init__(self, spec: str, number: int, rate: int) -> None:
        try:
            import mss
        except ImportError as error:
            raise DeviceUnavailable(f"{spec}: mss is not installed; pip install 'gantrt[camera]'") from error
        self._mss, self._number, self._pacer = mss, number, Pacer()
        self.rate: Fraction | None = Fraction(rate)
        self._period, self._count = 1 / rate, 0
        self._grabber: Any = None  # belongs to the thread that made it
        try:
            with mss.MSS() as grabber:
                screens = len(grabber.monitors) - 1
                if number > screens:
                    raise DeviceUnavailable(f"{spec}: there is no screen {number}, there are {screens}")
                self.width, self.height = (grabber.monitors[number][side] for side in ("width", "height"))
        except mss.ScreenShotError as error:
            raise DeviceUnavailable(f"{spec}: the screen cannot be grabbed ({error}); is DISPLAY set?") from error

    def read(self, closing: threading.Event) -> Callable[[], Image]:
        if self._grabber is None:
            self._grabber = self._mss.MSS()
        closing.wait(self._pacer.until(self._count * self._period))
        self._count += 1
        try:
            shot = self._grabber.grab(self._grabber.monitors[self._number])
        except self._mss.ScreenShotError as error:
            raise GantrtError(f"the screen cannot be grabbed: {error}") from error
        bgra = np.asarray(shot)
        return lambda: np.ascontiguousarray(bgra[..., 2::-1])

    def close(self) -> None:
        if self._grabber is not None:
            self._grabber.close()
