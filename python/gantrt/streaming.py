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
from .ending import source_runs
from .errors import GantrtError, UsageError
from .video import First, Frame, open_source

if TYPE_CHECKING:
    from .translator import Translator
    from .video.live import Newest
    from .video.still import StillSkip
    from .video.temporal import Smoother

_PATIENCE = 5.0  # seconds for a source to return from its last read


@dataclass(frozen=True)
class Item(Frame):
    """A translated frame of a stream: the source's, with another image. Its channels are in the Translator's order."""

    latency_ms: float = 0.0  # from the frame's arrival (of a live source: its capture) to its translation


def translated(
    translator: Translator, source: Any, *, temporal: float = 0.0, skip_still: float | None = None
) -> Iterator[Item]:
    """Yield an Item per frame of `source`: what `gantrt.video.open_source` takes, or what it returned.

    temporal    strength of the smoothing over time, 0 (none) to below 1; see `gantrt.video.temporal`
    skip_still  show the last translation again for a frame that differs by no more than so many levels (of 255)

    In order, N in = N out. Of a live source a frame is taken only when a stream is free, so it is the newest. What
    goes wrong in reading is raised here, after the frames before it. Leaving early closes the source.
    """
    if not 0 <= temporal < 1 or (skip_still is not None and skip_still < 0):
        raise UsageError(f"temporal {temporal} must be in 0..1, 1 excluded, and skip_still {skip_still} at least 0")
    opened = open_source(source) if isinstance(source, str | Path) else source
    # A frame of a live source that waits for a free stream grows old; of a file it keeps the engine busy.
    ahead = translator.info.streams + (0 if live_source(opened) else 1)
    reader = _Reader(translator, opened, ahead, skip_still)
    smoother = _smoother(temporal)
    try:
        reader.start()
    except RuntimeError as error:
        opened.close()
        raise GantrtError(f"stream: the system gives it no thread to read in ({error})") from error
    try:
        while not isinstance(entry := reader.ready.get(), _End):
            frame, image = entry.frame, entry.future.result()
            latency = (entry.finished or time.perf_counter()) - entry.arrived
            reader.room.release()
            if smoother is not None:
                image = smoother.apply(frame.image, image)
            elif skip_still is not None:
                image = image.copy()  # the next frames may be shown it again, whatever is drawn on this one
            yield Item(image, frame.index, frame.pts, frame.time_base, frame.duration, frame.captured, latency * 1e3)
        if entry.error is not None:
            raise entry.error
    finally:
        reader.stop()


def live_source(source: Any) -> Newest | None:
    """The live source behind `source`; None where it is a file or another that waits."""
    from .video.live import Newest

    inner = source.source if isinstance(source, First) else source
    return inner if isinstance(inner, Newest) else None


def _smoother(strength: float) -> Smoother | None:
    if not strength:
        return None
    from .video.temporal import Smoother

    return Smoother(strength)


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

    def __init__(self, translator: Translator, source: Any, ahead: int, skip_still: float | None) -> None:
        super().__init__(name="gantrt-reader", daemon=True)  # a camera that hangs must not keep the program alive
        self.ready: queue.SimpleQueue[_Pending | _End] = queue.SimpleQueue()
        self.room = threading.Semaphore(ahead)
        self._translator, self._source = translator, source
        self._swap = translator.info.color == "bgr"  # sources give RGB
        self._stopped = False
        self._skip_still = skip_still
        source_runs(self)

    def run(self) -> None:
        error: BaseException | None = None
        try:
            with contextlib.closing(self._source) as source:
                frames = iter(source)
                still = self._still()
                last: Future[Array] | None = None
                while self._may_go_on() and (frame := next(frames, None)) is not None:
                    arrived = time.perf_counter() if frame.captured is None else frame.captured
                    if still is None or not still.matches(frame.image) or last is None:
                        last = self._translator.submit(frame.image[..., ::-1] if self._swap else frame.image)
                    pending = _Pending(frame, arrived, last)
                    pending.future.add_done_callback(pending.finish)
                    self.ready.put(pending)
        except BaseException as caught:  # whatever it is, it is the caller's: `translated` raises it
            error = caught
        self.ready.put(_End(error))

    def stop(self) -> None:
        """Let the reader end after the frame it is at, and wait for it."""
        self._stopped = True
        self.room.release()
        interrupt = getattr(getattr(self._source, "source", self._source), "interrupt", None)
        if interrupt is not None:  # of a source that may wait for ever
            interrupt()
        self.join(_PATIENCE)

    def end(self) -> None:
        if self.is_alive():
            self.stop()

    def _still(self) -> StillSkip | None:
        if self._skip_still is None:
            return None
        from .video.still import StillSkip

        return StillSkip(self._skip_still)

    def _may_go_on(self) -> bool:
        self.room.acquire()
        return not self._stopped
