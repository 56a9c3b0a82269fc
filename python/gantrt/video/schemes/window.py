"""`window:[TITLE]` shows the frames in a window; q, Escape or closing it ends the command."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from ...errors import DeviceUnavailable
from .. import Frame, FrameSource, SinkClosed, SinkOptions
from ..pace import Pacer

SCHEMES = ("window",)
USAGE = "window:"
STREAMS = True

_KEYS = (ord("q"), 27)  # and Escape


def sink(spec: str, like: FrameSource, options: SinkOptions) -> Window:
    if not _display_answers():
        raise DeviceUnavailable("window: there is no display here; set DISPLAY, or write to a file or - instead")
    return Window(spec.partition(":")[2] or "gantrt", like)


class Window:
    """A FrameSink. Clips are shown at their own speed, live sources as they come. To be used by the main thread."""

    def __init__(self, title: str, like: FrameSource) -> None:
        import cv2

        self._title, self._still = title, like.frames == 1
        self._pacer = Pacer()
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(title, like.width, like.height)
        except cv2.error as error:  # opencv-python-headless
            raise DeviceUnavailable(
                f"window: this OpenCV cannot show windows ({error.err}); use opencv-python"
            ) from error
        self._cv2: Any = cv2

    def write(self, frame: Frame) -> None:
        cv2 = self._cv2
        self._pump(self._pacer.wait(frame))
        cv2.imshow(self._title, cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        self._pump(0.0)

    def close(self, *, complete: bool = True) -> None:
        try:
            while self._still and complete:
                self._pump(0.1)
        except SinkClosed:
            pass
        self.abort()

    def abort(self) -> None:
        self._cv2.destroyAllWindows()
        self._cv2.waitKey(1)

    def _pump(self, seconds: float) -> None:
        """Let the window work for so long. Raises SinkClosed if it is closed."""
        cv2 = self._cv2
        key = cv2.waitKey(max(1, round(seconds * 1e3))) & 0xFF
        if key in _KEYS or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            raise SinkClosed


def _display_answers() -> bool:
    """Qt ends the process where it finds no display, so it is looked for first."""
    if not sys.platform.startswith("linux") or os.environ.get("QT_QPA_PLATFORM", "xcb") not in ("xcb", "wayland"):
        return True
    display = os.environ.get("DISPLAY", "")
    host, _, number = display.rpartition(":")
    if host or not display:
        return bool(display or os.environ.get("WAYLAND_DISPLAY"))
    path = Path(f"/tmp/.X11-unix/X{number.partition('.')[0]}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            server.connect(str(path))
        except OSError:
            return False
    return True
