"""Frame in, frame out: the Translator owns an engine, the buffers it works in, and the queue before it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import Frame, as_frame, as_kind_of, as_output, lies_on_gpu
from .ending import engine_runs, sleep_if_daemon
from .engines import Engine, Options, open_engine, output_like
from .errors import EngineMismatch, GantrtError, UsageError
from .fitting import Color, Fit, Tensor, make_fit, order_for
from .info import Info, Stats
from .manifest import Manifest
from .network_run import NetworkRun
from .streaming import Item, translated
from .threads import thread_limit
from .tiling import Tile
from .timing import Ring, Summary

if TYPE_CHECKING:
    from .frame_pipelines import FramePipelines

log = logging.getLogger("gantrt")

_PATIENCE = 5.0  # seconds that frames under way have when the program ends
_QUEUED_PER_STREAM = 2  # one being translated, one waiting: enough to never idle, little enough to stay fresh


def load(
    path: str | Path,
    *,
    device: str = "auto",
    color: Color = "rgb",
    size: tuple[int, int] | None = None,
    fit: str = "resize",
    overlap: int | None = None,
    streams: int = 1,
    precision: str | None = None,
    threads: int | None = None,
    runtime: str | None = None,
    warmup: int = 1,
    range: tuple[float, float] | None = None,
    network_color: Color | None = None,
    cache_dir: str | None = None,
    trust: bool = False,
) -> Translator:
    """Open an engine file, .onnx or .plan, as a Translator.

    device     "cpu", "cuda", "cuda:N", or "auto": CUDA where it can, else the CPU, and says so
    color      order of the channels in the caller's frames: "rgb", or "bgr" for OpenCV's
    size       (height, width) the network runs at; for an engine made with --dynamic
    fit        how a frame meets the network's size: "resize", "pad" (by reflection, cropped back), or "tile"
    overlap    pixels that tiles share at least; None: a fourth of a tile
    streams    frames translated at once; more raises throughput, not speed
    precision  "fp32", "bf16", ...; None: the engine's choice, see `Translator.info`
    threads    CPU threads; None: $GANTRT_THREADS, else what the container's quota pays for, else the engine's choice
    runtime    "openvino", "onnxruntime", ...; None: the best for file and device
    warmup     runs before the first frame; 0: that frame pays for them
    range      values the network takes and makes, for a file without manifest; None: (-1, 1)
    network_color  order of the planes it takes and makes, likewise; None: "rgb"
    cache_dir  folder for compiled models; None: $GANTRT_CACHE, else the user's cache folder; "": none
    trust      run a .plan that gantrt did not make: a plan is a program, and its maker can do here what you can

    Raises EngineCorrupt, EngineMismatch, DeviceUnavailable, and UsageError for a request that makes no sense.
    """
    begin = time.perf_counter()
    _check(color, streams, threads, warmup)
    options = Options(device, precision, threads, size, streams, cache_dir, trust)
    engine = open_engine(path, options, runtime, value_range=range, color=network_color)
    try:
        pixel_threads = thread_limit(threads) or 0
        translator = Translator(
            engine, path=Path(path), color=color, fit=fit, streams=streams, threads=pixel_threads, overlap=overlap
        )
        translator.warm_up(warmup, size)
    except GantrtError:
        engine.close()
        raise
    translator.load_ms = (time.perf_counter() - begin) * 1e3
    log.info("%s", translator.info)
    return translator


@dataclass
class _Slot:
    """The working memory of one stream: x and y are (batch, C, H, W), made anew only when the size changes.

    y may have other channels than x: a network that colours grey pictures.
    """

    x: Tensor = dataclasses.field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))
    y: Tensor = dataclasses.field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))

    def shape_to(self, shape: tuple[int, int, int, int], manifest: Manifest) -> None:
        if self.x.shape != shape:
            self.x = np.empty(shape, np.float32)
            self.y = output_like(manifest, self.x)


class Translator:
    """Translates frames of any size; each result has its frame's size, type and kind. Thread-safe.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        path: Path,
        color: Color,
        fit: str,
        streams: int,
        threads: int,
        overlap: int | None = None,
    ) -> None:
        self.engine = engine
        self.load_ms = 0.0
        self.info = Info(
            path, engine.manifest, engine.name, engine.device, engine.precision, engine.versions(), color, fit, streams
        )
        self._fit: Fit = make_fit(fit, engine, color, threads, overlap)
        manifest = engine.manifest
        # An engine that makes whole frames on its GPU makes them there; its frames may lie there too.
        pipelines = getattr(engine, "frames", None) if fit == "resize" else None
        self._on_gpu: FramePipelines | None = pipelines(order_for(manifest, color), streams) if pipelines else None
        self._channels = max(_frame_channels(path, manifest))  # grey becomes colours: frames have both ends' colours
        self._batch = manifest.batch
        self._slots: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()  # None: closed
        for _ in range(streams):
            self._slots.put(_Slot())
        self._times = Ring(4)  # wait, pre, engine, post in milliseconds
        self._first_frame_ms: float | None = None
        self._closing = threading.Lock()
        self._closed = self._ended = False
        self._full = False  # nothing new gets a slot: else callers that go on would keep close from having them all
        self._process = os.getpid()
        self._run_network = NetworkRun(engine, path)
        self._room = threading.BoundedSemaphore(_QUEUED_PER_STREAM * streams)
        self._workers = ThreadPoolExecutor(streams, thread_name_prefix="gantrt")  # starts threads as they are needed
        engine_runs(self)

    def __call__(self, frame: Any, out: Any = None) -> Any:
        """Translate one frame, (H, W, 3) uint8: numpy, torch, or anything with DLPack.

        out  where to write the result: the frame's shape, and it may be the frame itself; None: a fresh array
        Returns `out`, or an array of the frame's kind. One-channel networks also take (H, W) and (H, W, 1).
        """
        self._check_process()
        return self._translate(frame, out, time.perf_counter())

    def translate(self, frames: Sequence[Any]) -> list[Any]:
        """Translate frames of any sizes, in order; in batches where the engine was made with --batch."""
        self._check_process()
        if self._batch == 1:
            return [future.result() for future in [self.submit(frame) for frame in frames]]
        called = time.perf_counter()
        views = [as_frame(frame, self._channels) for frame in frames]
        results = [np.empty(view.shape, np.uint8) for view in views]
        for group in self._batches(views):
            self._run([views[i] for i in group], [results[i] for i in group], called)
        return [as_kind_of(frame, result) for frame, result in zip(frames, results, strict=True)]

    def submit(self, frame: Any, out: Any = None) -> Future[Any]:
        """Queue one frame; the future's result is what calling with it returns.

        Blocks while the queue is full (two frames per stream). The frame must not change until the future is done.
        """
        self._check_process()
        called = time.perf_counter()
        self._room.acquire()
        try:
            future = self._workers.submit(self._translate, frame, out, called)
        except RuntimeError as error:
            self._room.release()
            raise self._refusal(error) from error
        future.add_done_callback(lambda _: self._room.release())
        return future

    def stream(self, source: Any, *, temporal: float = 0.0, skip_still: float | None = None) -> Iterator[Item]:
        """Translate a picture, folder, video, camera or anything `gantrt.video.open_source` takes, frame by frame.

        temporal    0 (none) to below 1: smooths over time where the picture stands still, against flicker
        skip_still  show the last translation again for a frame that differs by at most so many levels of 255

        Reading overlaps translating; of a live source every frame is the newest. Raises UnsupportedInput, or
        TruncatedInput after the last good frame.
        """
        self._check_process()
        return translated(self, source, temporal=temporal, skip_still=skip_still)

    def stats(self, *, reset: bool = False) -> Stats:
        """Where the time went so far; `reset` starts anew afterwards."""
        frames, rows = self._times.rows()
        first = self._first_frame_ms
        if reset:
            self._times.clear()
            self._first_frame_ms = None
        wait, pre, engine, post = (Summary.of(column) for column in rows.T)
        return Stats(frames, wait, pre, engine, post, Summary.of(rows.sum(axis=1)), first, self.load_ms)

    def warm_up(self, runs: int, size: tuple[int, int] | None = None) -> None:
        """Run the network on an empty picture, so that the first frame is no slower than the others."""
        spec = self.engine.manifest.input
        height, width = size or (spec.height, spec.width)
        x = np.zeros((self._batch, spec.channels, height, width), np.float32)
        for _ in range(runs):
            self.engine.run(x, output_like(self.engine.manifest, x))

    def close(self) -> None:
        """Finish what was begun or queued, then let go of the engine. May be called again."""
        if os.getpid() != self._process:
            return  # it is the parent's
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._workers.shutdown(wait=True)
            self._full = True
            for _ in range(self.info.streams):
                self._slots.get()
            self._slots.put(None)
            if self._on_gpu is not None:
                self._on_gpu.close()
            self.engine.close()

    def end(self) -> None:
        """The program ends: wait, though not for ever, for the frames under way, and take no more."""
        if not self._closing.acquire(timeout=_PATIENCE):
            return
        try:
            if self._closed:
                return
            self._closed = self._ended = self._full = True
            deadline = time.monotonic() + _PATIENCE
            with contextlib.suppress(queue.Empty):
                for _ in range(self.info.streams):
                    self._slots.get(timeout=max(0.0, deadline - time.monotonic()))
            self._slots.put(None)
        finally:
            self._closing.release()

    def __reduce__(self) -> Any:
        raise GantrtError("translator: cannot be sent to another process; load the engine there")

    def __enter__(self) -> Translator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _translate(self, frame: Any, out: Any, called: float) -> Any:
        if self._on_gpu is not None and lies_on_gpu(frame):
            return self._piped(frame, out, called)
        view = as_frame(frame, self._channels)
        result = np.empty(view.shape, np.uint8) if out is None else as_output(out, view, self._channels)
        self._run([view], [result], called)
        return as_kind_of(frame, result) if out is None else out

    def _run(self, frames: list[Frame], outs: list[Frame], called: float) -> None:
        """Translate at most a batch of frames, all of one network size; `called` is when the caller asked for it."""
        if self._on_gpu is not None:
            for frame, out in zip(frames, outs, strict=True):
                self._piped(_dense(frame), out.reshape(*out.shape[:2], -1), called)
            return
        slot = self._slot()
        try:
            begin = time.perf_counter()
            size = self._fit.size(*frames[0].shape[:2])
            manifest = self.engine.manifest
            slot.shape_to((self._batch, manifest.input.channels, *size), manifest)
            work = self._tiles if isinstance(self._fit, Tile) else self._whole
            spent = work(frames, outs, slot)
        finally:
            self._slots.put(slot)
        if self._first_frame_ms is None:
            self._first_frame_ms = (time.perf_counter() - called) * 1e3
        for _ in frames:
            self._times.add((begin - called) * 1e3, *(seconds * 1e3 for seconds in spent))

    def _slot(self) -> _Slot:
        if not self._full:
            slot = self._slots.get()
            if slot is not None:
                return slot
            self._slots.put(None)
        raise self._refusal()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise GantrtError(
                f"translator: was loaded by process {self._process}, which forked this one, and its threads did not "
                "come along; load the engine here, best in processes started by multiprocessing's spawn"
            )

    def _refusal(self, error: RuntimeError | None = None) -> GantrtError:
        """Why there is no slot, or no thread."""
        # A thread of the queue that ends with the interpreter closes the queue, which then says only "after shutdown".
        if self._ended or "interpreter shutdown" in str(error) or ("shutdown" in str(error) and not self._closed):
            sleep_if_daemon()
            return GantrtError("translator: the program is ending")
        if self._closed:
            return GantrtError("translator: it is closed; load the engine again")
        return GantrtError(f"translator: the system gives it no thread ({error})")

    def _piped(self, frame: Any, out: Any, called: float) -> Any:
        """One frame through the engine's own pipeline; where the time goes inside it is not known here."""
        assert self._on_gpu is not None
        slot = self._slot()
        try:
            begin = time.perf_counter()
            result = self._on_gpu(frame, out)
            left = time.perf_counter()
        finally:
            self._slots.put(slot)
        if self._first_frame_ms is None:
            self._first_frame_ms = (left - called) * 1e3
        self._times.add((begin - called) * 1e3, 0.0, (left - begin) * 1e3, 0.0)
        return result

    def _whole(self, frames: list[Frame], outs: list[Frame], slot: _Slot) -> tuple[float, float, float]:
        """One run of the network for all frames. Returns the seconds before, in and after it."""
        begin = time.perf_counter()
        for i, frame in enumerate(frames):
            self._fit.enter(frame, slot.x[i : i + 1])
        slot.x[len(frames) :] = slot.x[:1]  # an incomplete batch is filled up
        entered = time.perf_counter()
        self._run_network(slot.x, slot.y)
        ran = time.perf_counter()
        for i, out in enumerate(outs):
            self._fit.leave(slot.y[i : i + 1], out)
        return entered - begin, ran - entered, time.perf_counter() - ran

    def _tiles(self, frames: list[Frame], outs: list[Frame], slot: _Slot) -> tuple[float, float, float]:
        """Frame by frame, each in as many runs as its tiles need."""
        fit = self._fit
        assert isinstance(fit, Tile)
        spent = [
            fit.translate(frame, out, slot.x, slot.y, self._run_network)
            for frame, out in zip(frames, outs, strict=True)
        ]
        before, inside, after = (sum(column) for column in zip(*spent, strict=True))
        return before, inside, after

    def _batches(self, frames: list[Frame]) -> Iterator[list[int]]:
        """Indices of frames that can share a batch: neighbours of one network size, at most as many as it holds."""
        group: list[int] = []
        for i, frame in enumerate(frames):
            if group and (len(group) == self._batch or self._size(frame) != self._size(frames[group[0]])):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _size(self, frame: Frame) -> tuple[int, int]:
        return self._fit.size(*frame.shape[:2])


def _check(color: str, streams: int, threads: int | None, warmup: int) -> None:
    if color not in ("rgb", "bgr"):
        raise UsageError(f"color {color!r}: there are 'rgb' and 'bgr'")
    if streams < 1 or warmup < 0 or (threads is not None and threads < 1):
        raise UsageError(f"streams {streams} and threads {threads} must be at least 1, warmup {warmup} at least 0")


def _frame_channels(path: Path, manifest: Manifest) -> tuple[int, int]:
    """Of what the engine takes and makes: 1 or 3, or it is no engine for frames."""
    channels = manifest.input.channels, manifest.made_channels
    if not set(channels) <= {1, 3}:
        raise EngineMismatch(
            f"{path}: takes {channels[0]} channels and makes {channels[1]}; frames have 1 or 3: run it on arrays "
            "with gantrt.engines.open_engine(path, Options()).run(x, y), or in ONNX Runtime (docs/data.md)"
        )
    return channels


def _dense(frame: Frame) -> Frame:
    """(H, W, C) whose pixels lie side by side in the order of their channels; a copy only where they do not."""
    frame = frame.reshape(*frame.shape[:2], -1)
    return frame if frame[0].flags.c_contiguous else np.ascontiguousarray(frame)
