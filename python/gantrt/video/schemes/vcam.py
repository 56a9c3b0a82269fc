"""`vcam:[DEVICE]` is a virtual camera, which meeting and streaming programs see as a real one. By pyvirtualcam."""

from __future__ import annotations

import sys
import time
from typing import Any

from ...errors import DeviceUnavailable
from .. import Frame, FrameSource, SinkOptions
from ..pace import Pacer

SCHEMES = ("vcam",)
USAGE = "vcam:"
STREAMS = True

_RECIPE = {
    "linux": "load its driver with `sudo modprobe v4l2loopback devices=1 exclusive_caps=1`",
    "darwin": "install OBS Studio 30 or later and start its virtual camera once",
    "win32": "install OBS Studio, whose virtual camera it is",
}


def sink(spec: str, like: FrameSource, options: SinkOptions) -> VirtualCamera:
    return VirtualCamera(spec, like)


class VirtualCamera:
    """A FrameSink. Clips are sent at their own speed, live sources as they come."""

    def __init__(self, spec: str, like: FrameSource) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise DeviceUnavailable("vcam: pyvirtualcam is not installed; pip install 'gantrt[camera]'") from error
        device = spec.partition(":")[2] or None
        try:
            self._camera: Any = pyvirtualcam.Camera(like.width, like.height, float(like.rate or 30), device=device)
        except RuntimeError as error:
            recipe = _RECIPE.get(sys.platform, "see pyvirtualcam's documentation")
            raise DeviceUnavailable(f"{spec.rstrip(':')}: there is no virtual camera ({error}); {recipe}") from error
        self._pacer = Pacer()

    def write(self, frame: Frame) -> None:
        time.sleep(self._pacer.wait(frame))
        self._camera.send(frame.image)

    def close(self, *, complete: bool = True) -> None:
        self._camera.close()

    def abort(self) -> None:
        self._camera.close()
