"""Frames through a network on a GPU: a pipeline, one CUDA graph per slot, for each size of frame that comes."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ._core import FramePipeline
from .arrays import library_of
from .errors import DeviceUnavailable, GantrtError, OutOfMemory, UnsupportedInput
from .memory import is_out_of_memory

log = logging.getLogger("gantrt")

Size = tuple[int, int]  # (height, width)
Enqueue = Callable[[int, int, int, int], object]  # (slot, address of x, address of y, stream)


@dataclass(frozen=True)
class Network:
    """A network of batch 1 that can be queued on a stream, whose pictures keep their size."""

    prepare: Callable[[int, Size], Enqueue]  # (slots, size it runs at): contexts and memory for one pipeline
    size: Callable[[int, int], Size]  # (height, width) it runs a frame of such a height and width at
    channels: tuple[int, int]  # of what it takes and of what it makes, 1 or 3
    dtype: str  # of what it takes: "float32", "float16" or "bfloat16"
    output_dtype: str
    layout: Literal["nchw", "nhwc"] = "nchw"
    range: tuple[float, float] = (-1.0, 1.0)
    device: int = 0


@dataclass(frozen=True)
class Ticket:
    """A frame on its way. Collect it once: its slot is free for another frame only then."""

    pipeline: FramePipeline
    number: int
    frame: Any

    def result(self, out: Any = None) -> Any:
        """The translated frame, in `out` or a new array of the frame's kind; on the GPU ready when its stream is."""
        if out is None:
            out = np.empty_like(self.frame) if isinstance(self.frame, np.ndarray) else _empty_like(self.frame)
        with _as_ours():
            return self.pipeline.result(self.number, out)


class FramePipelines:
    """Frames in, frames of the same size out: numpy, or arrays on the network's GPU (torch, cupy, pycuda). Thread-safe.

    slots  frames in flight: 1 for latency, 3 for throughput
    kept   sizes of frame whose pipelines are kept; the least recently used goes
    """

    def __init__(
        self,
        network: Network,
        *,
        slots: int = 1,
        color: Literal["rgb", "bgr"] = "rgb",
        resize: Literal["auto", "area", "bilinear"] = "auto",
        kept: int = 4,
    ) -> None:
        self._network, self._slots, self._color, self._resize, self._kept = network, slots, color, resize, kept
        self._pipelines: OrderedDict[tuple[int, int, int], FramePipeline] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, frame: Any, out: Any = None) -> Any:
        return self.submit(frame).result(out)

    def submit(self, frame: Any) -> Ticket:
        """Queue a uint8 (H, W, 3) or (H, W, 1) frame; waits while as many frames of its size as slots are uncollected.

        Raises UnsupportedInput for another shape, and what making a pipeline raises where the size is new.
        """
        with _as_ours():
            pipeline = self.pipeline(frame)
            return Ticket(pipeline, pipeline.submit(frame), frame)

    def pipeline(self, frame: Any) -> FramePipeline:
        """The pipeline for frames of this size, made if there is none yet."""
        shape = tuple(frame.shape)
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise UnsupportedInput(f"frame: must be (H, W, 3) or (H, W, 1) uint8, got {shape}")
        with self._lock:
            pipeline = self._pipelines.pop(shape, None) or self._make(shape)
            self._pipelines[shape] = pipeline
            while len(self._pipelines) > self._kept:
                self._pipelines.popitem(last=False)  # goes when its last ticket does
        return pipeline

    def close(self) -> None:
        with self._lock:
            self._pipelines.clear()

    def _make(self, shape: tuple[int, int, int]) -> FramePipeline:
        network = self._network
        size = network.size(*shape[:2])
        pipeline = FramePipeline(
            network.prepare(self._slots, size),
            frame=shape,
            result=shape,
            input=(network.channels[0], *size),
            output=(network.channels[1], *size),
            dtype=network.dtype,
            output_dtype=network.output_dtype,
            layout=network.layout,
            slots=self._slots,
            device=network.device,
            color=self._color,
            resize=self._resize,
            range=network.range,
        )
        if not pipeline.graph_active:
            log.warning("frames of %dx%d run without a CUDA graph: %s", *shape[:2], pipeline.why_no_graph)
        return pipeline


def failure(text: str) -> GantrtError:
    """What CUDA said, as an error: memory can be freed, any other failure of a GPU is for good in this process."""
    if is_out_of_memory(RuntimeError(text)):
        return OutOfMemory(f"{text}; try a smaller --size, fewer --streams, or end other programs on this GPU")
    return DeviceUnavailable(f"{text}; the GPU failed or is gone, see nvidia-smi; what runs on it must start anew")


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "CUDA says" not in str(error):
            raise
        raise failure(str(error)) from error


def _empty_like(frame: Any) -> Any:
    make = getattr(library_of(frame), "empty_like", None)
    if make is None:
        raise UnsupportedInput(f"frame: a {type(frame).__name__} cannot be made like it; give one as out=")
    return make(frame)
