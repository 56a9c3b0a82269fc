"""`camera:N[,HxW][,FPS]`: a camera of this machine, by OpenCV."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...errors import DeviceUnavailable, GantrtError, UsageError
from ..live import Image, Newest

SCHEMES = ("camera", "webcam")
USAGE = "camera:N"

_SPEC = re.compile(r"\w+:(?P<device>\d+|/[^,]+)?(?:,(?P<height>\d+)x(?P<width>\d+))?(?:,(?P<fps>\d+(?:\.\d+)?))?")


def source(spec: str) -> Newest:
    asked = _SPEC.fullmatch(spec)
    if asked is None:
        raise UsageError(f"{spec}: write camera:N[,HEIGHTxWIDTH][,FPS], e.g. camera:0 or camera:0,720x1280,30")
    return Newest(spec, lambda: Camera(spec, **asked.groupdict()))


class Camera:
    """A Device. What the camera does not offer of size and rate it answers with the nearest it has."""

    def __init__(self, spec: str, device: str | None, height: str | None, width: str | None, fps: str | None) -> None:
        """Raises DeviceUnavailable if there is no such camera, or another program has it."""
        import cv2

        number: int | str = int(device or 0) if (device or "0").isdecimal() else str(device)
        settings = [cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")]  # raw YUV fills USB 2 at 720p and 10 fps
        if height and width:
            settings += [cv2.CAP_PROP_FRAME_WIDTH, int(width), cv2.CAP_PROP_FRAME_HEIGHT, int(height)]
        if fps:
            settings += [cv2.CAP_PROP_FPS, round(float(fps))]
        api = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
        with _silent(cv2):
            self._capture: Any = cv2.VideoCapture(number, api)
            for key, value in zip(settings[::2], settings[1::2], strict=True):
                self._capture.set(key, value)
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the driver's queue makes pictures old before we see them
            ok, image = self._capture.read() if self._capture.isOpened() else (False, None)
        if not ok or image is None:
            self._capture.release()
            raise DeviceUnavailable(f"{spec}: no such camera, or it is in use; {_cameras()}")
        self.height, self.width = image.shape[:2]
        claimed = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(claimed).limit_denominator(1001) if 1 <= claimed <= 1000 else None
        self._spec = spec

    def read(self, closing: threading.Event) -> Callable[[], Image]:
        import cv2

        ok, image = self._capture.read()
        if not ok:
            raise GantrtError("the camera gives no more pictures")
        return lambda: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        self._capture.release()


@contextlib.contextmanager
def _silent(cv2: Any) -> Iterator[None]:
    """What OpenCV would say of a camera that is not there is in our one line."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _cameras() -> str:
    devices = sorted(Path("/dev").glob("video*"))
    if not sys.platform.startswith("linux"):
        return "try another number"
    return f"there are {', '.join(map(str, devices))}" if devices else "there is none: no /dev/video*"
