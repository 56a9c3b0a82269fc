"""`screen:[DISPLAY][,FPS]`: what an X11 screen shows, by FFmpeg's x11grab."""

from __future__ import annotations

import os
import sys

from ...errors import DeviceUnavailable, UnsupportedInput, UsageError
from ..live import Newest
from .url import Stream

SCHEMES = ("screen",)
USAGE = "screen:"


def source(spec: str) -> Newest:
    display, _, rate = spec.partition(":")[2].partition(",")
    display = display or os.environ.get("DISPLAY", "")
    if rate and not rate.isdecimal():
        raise UsageError(f"{spec}: write screen:[DISPLAY][,FPS], e.g. screen: or screen::0,15")
    if not sys.platform.startswith("linux") or not display:
        raise DeviceUnavailable(f"{spec}: there is no X11 screen here (DISPLAY is not set)")

    def open_device() -> Stream:
        try:
            return Stream(display, {"framerate": rate or "30", "draw_mouse": "1"}, form="x11grab")
        except UnsupportedInput as error:
            raise DeviceUnavailable(f"{spec}: the screen {display} cannot be grabbed ({error})") from error

    return Newest(spec, open_device)
