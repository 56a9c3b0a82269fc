"""A source's frames, translated in order: one thread reads ahead while the engine works and the caller looks."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arrays import Frame as Array
from .video import Frame, open_source

if TYPE_CHECKING:
    from .translator import Translator

_PATIENCE = 5.0  # seconds for a source to return from its last read


@dataclass(frozen=True)
class Item(Frame):
    """A translated frame of a stream: the source's, with another image. Its channels are in the Translator's order."""

    latency_ms: float = 0.0  # from the frame's arrival to its translation


def translated(translator: Translator, source: Any) -> Iterator[Item]:
    """Yield an Item per frame of `source`: what `gantrt.video.open_source` takes, or what it returned.

    In order, N in = N out. A frame is read only when a stream is about to be free, so those of a live source are
    fresh. What goes wrong in reading is raised here, after the frames before it. Leaving early closes the source.
    """
    opened = open_source(source) if isinstance(source, str | Path) else source
    reader = _Reader(translator, opened, ahead=translator.info.streams + 1)
    reader.start()
    try:
        while not isinstance(entry := reader.ready.get(), _End):
            frame, image = entry.frame, entry.future.result()
            latency = (entry.finished or time.perf_counter()) - entry.arrived
            reader.room.release()
            yield Item(image, frame.index, frame.pts, frame.time_base, frame.duration, latency * 1e3)
        if entry.error is not None:
            raise entry.error
    finally:
        reader.stop()


@dataclass
class _Pending:
    frame: Frame
    arrived: float
    future: Future[Array]
    finished: float | None = None

    def finish(self, _: Future[Array]) -> None:
        self.finished = time.perf_counter()


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class _Reader(threading.Thread):
    """Reads and submits, at most `ahead` frames before the one the caller looks at."""

    def __init__(self, translator: Translator, source: Any, ahead: int) -> None:
        super().__init__(name="gantrt-reader", daemon=True)  # a camera that hangs must not keep the program alive
        self.ready: queue.SimpleQueue[_Pending | _End] = queue.SimpleQueue()
        self.room = threading.Semaphore(ahead)
        self._translator, self._source = translator, source
        self._swap = translator.info.color == "bgr"  # sources give RGB
        self._stopped = False

    def run(self) -> None:
        error: BaseException | None = None
        try:
            with contextlib.closing(self._source) as source:
                frames = iter(source)
                while self._may_go_on() and (frame := next(frames, None)) is not None:
                    arrived = time.perf_counter()
                    image = frame.image[..., ::-1] if self._swap else frame.image
                    pending = _Pending(frame, arrived, self._translator.submit(image))
                    pending.future.add_done_callback(pending.finish)
                    self.ready.put(pending)
        except BaseException as caught:  # whatever it is, it is the caller's: `translated` raises it
            error = caught
        self.ready.put(_End(error))

    def stop(self) -> None:
        """Let the reader end after the frame it is at, and wait for it."""
        self._stopped = True
        self.room.release()
        self.join(_PATIENCE)

    def _may_go_on(self) -> bool:
        self.room.acquire()
        return not self._stopped
