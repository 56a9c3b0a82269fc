"""Live sources: the newest frame wins, so that what is shown is never late, and a lost source is found again.

A queue between a camera and a slower network only makes every frame old. Here is room for one picture: a new one
takes the place of one that nobody took, and is counted as dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import TracebackType
from typing import Any, Protocol

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ..ending import source_runs
from ..errors import GantrtError
from . import Frame

log = logging.getLogger("gantrt")

Image = NDArray[np.uint8]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0  # seconds before a lost source is tried again: doubled each time
_PATIENCE = 1.0  # seconds for a device to return from its last read
_TICK = Fraction(1, 1000)


class Device(Protocol):
    """What gives pictures at its own pace: a camera, a network stream, a screen."""

    width: int
    height: int
    rate: Fraction | None  # pictures a second; None where nobody knows

    def read(self, closing: threading.Event) -> Callable[[], Image]:
        """Wait for the next picture; what is returned makes it (H, W, 3) RGB, once it is known to be wanted.

        Raises GantrtError, OSError or av.FFmpegError when the device is lost, and may return late when `closing`
        is set.
        """
        ...

    def close(self) -> None: ...


class Newest:
    """A FrameSource without end: always the newest picture of a device, stamped with the time of its arrival.

    A device that fails or ends is opened again, after a pause that grows, until `interrupt` or `close`. Pictures of
    another size than the first are resized to it.
    """

    frames = None
    frames_estimated = False
    time_base = _TICK

    def __init__(self, name: str, open_device: Callable[[], Device]) -> None:
        """`name` is for messages. Raises what `open_device` raises if the device is not there at first."""
        self.name = name
        self.dropped = 0  # pictures that came and were not taken
        self.reconnected = 0  # times
        self._open = open_device
        self._device: Device | None = open_device()
        self.width, self.height, self.rate = self._device.width, self._device.height, self._device.rate
        self._slot: tuple[float, Callable[[], Image]] | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._capture, name="gantrt-capture", daemon=True)
        source_runs(self)

    def __iter__(self) -> Iterator[Frame]:
        if not self._thread.is_alive() and not self._closing.is_set():
            self._thread.start()
        begin, pts, index = None, -1, 0
        while (taken := self._take()) is not None:
            captured, make = taken
            begin = captured if begin is None else begin
            pts = max(pts + 1, round((captured - begin) / _TICK))
            yield Frame(self._sized(make()), index, pts, _TICK, captured=captured)
            index += 1

    def interrupt(self) -> None:
        """End the iteration, also one that waits. From any thread."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()

    def close(self) -> None:
        self.interrupt()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)  # it closes the device; one that hangs is left to the daemon thread
        elif self._device is not None:
            self._device.close()
            self._device = None

    end = close

    def __enter__(self) -> Newest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> tuple[float, Callable[[], Image]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._slot is not None or self._closing.is_set())
            if self._error is not None:
                raise self._error
            taken, self._slot = self._slot, None
            return None if self._closing.is_set() else taken

    def _capture(self) -> None:
        device, self._device = self._device, None
        try:
            while device is not None:
                try:
                    while not self._closing.is_set():
                        self._put(device.read(self._closing))
                except (GantrtError, OSError, av.FFmpegError) as error:
                    log.warning("%s: lost (%s); trying again", self.name, _reason(error))
                finally:
                    device.close()
                device = None if self._closing.is_set() else self._reopen()
        except BaseException as error:  # a bug: it is the reader's, not a silent end of the thread
            self._error = error
            self.interrupt()

    def _put(self, make: Callable[[], Image]) -> None:
        with self._changed:
            self.dropped += self._slot is not None
            self._slot = time.perf_counter(), make
            self._changed.notify()

    def _reopen(self) -> Device | None:
        pause = _FIRST_PAUSE
        while not self._closing.wait(pause):
            try:
                device = self._open()
            except (GantrtError, OSError, av.FFmpegError) as error:
                pause = min(2 * pause, _LONGEST_PAUSE)
                log.debug("%s: not yet (%s); again in %.1f s", self.name, _reason(error), pause)
                continue
            self.reconnected += 1
            log.warning("%s: is back", self.name)
            return device
        return None

    def _sized(self, image: Image) -> Image:
        if image.shape[:2] == (self.height, self.width):
            return image
        resized: Any = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return resized  # type: ignore[no-any-return]


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
