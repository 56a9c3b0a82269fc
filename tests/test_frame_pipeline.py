"""FramePipeline's own sources, on the CPU (tests/cuda_on_cpu), whose streams are late as a GPU's are."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from gantrt import _core
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shape:
    """A pipeline whose network is 1 - x / 2."""

    frame: tuple[int, int, int] = (37, 53, 3)
    tensor: tuple[int, int, int] = (16, 32, 3)  # height, width, channels
    result: tuple[int, int, int] = (37, 53, 3)
    slots: int = 1
    channels_last: bool = False
    bgr: bool = False
    waits: bool = False  # what no capture survives
    band: int = 1 << 19  # bytes of a frame that are copied at once
    copy_threads: int = 0


class Pipeline:
    def __init__(self, cuda: ctypes.CDLL, shape: Shape) -> None:
        self.cuda, self.shape = cuda, shape
        sizes = [self._size(size) for size in (shape.frame, shape.result, shape.tensor)]
        flags = [ctypes.c_bool(flag) for flag in (shape.channels_last, shape.bgr, shape.waits)]
        band = ctypes.c_int64(shape.band)
        self.handle = ctypes.c_void_p(cuda.make_pipeline(*sizes, shape.slots, *flags, band, shape.copy_threads))
        if not self.handle:
            raise ValueError(cuda.last_error().decode())

    @staticmethod
    def _size(size: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
        return (ctypes.c_int64 * 3)(*size)

    def submit(self, frame: Pixels, on_gpu: bool = False) -> int:
        ticket: int = self.cuda.submit(
            self.handle, *self._memory(frame), ctypes.c_int64(frame.strides[0]), ctypes.c_bool(on_gpu)
        )
        if ticket < 0:
            raise ValueError(self.cuda.last_error().decode())
        return ticket

    def collect(self, ticket: int, out: Pixels | None = None, on_gpu: bool = False) -> Pixels:
        out = np.zeros(self.shape.result, np.uint8) if out is None else out
        row = ctypes.c_int64(out.strides[0])
        refusal = self.cuda.collect(self.handle, ctypes.c_int64(ticket), *self._memory(out), row, ctypes.c_bool(on_gpu))
        if refusal:
            raise ValueError(refusal.decode())
        return out

    def graph_active(self) -> bool:
        return bool(self.cuda.graph_active(self.handle) & 0xFF)

    def _memory(self, array: Pixels) -> tuple[ctypes.c_void_p, ctypes.Array[ctypes.c_int64]]:
        return ctypes.c_void_p(array.ctypes.data), self._size(array.shape)


@contextmanager
def pipeline(cuda: ctypes.CDLL, shape: Shape) -> Iterator[Pipeline]:
    made = Pipeline(cuda, shape)
    try:
        yield made
    finally:
        cuda.close_pipeline(made.handle)


def frames_of(shape: Shape, count: int) -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape.frame, np.uint8) for _ in range(count)]


def expected(shape: Shape, frame: Pixels) -> Pixels:
    color = "bgr" if shape.bgr else "rgb"
    height, width, channels = shape.tensor
    x = _core.frame_to_tensor(frame, size=(height, width), channels=channels, color=color)
    out = np.empty(shape.result, np.uint8)
    return _core.tensor_to_frame(1 - 0.5 * x, out, color=color)


BANDED = [
    Shape(band=1000, copy_threads=1),  # 6 bands of 7 rows, the last shorter
    Shape(band=1000, copy_threads=4, slots=3, channels_last=True),
    Shape(band=1, copy_threads=3, slots=2),  # 13 bands of 3 rows, the last of one
    Shape(band=1000, copy_threads=3, slots=2, waits=True),
    Shape(frame=(3, 400, 3), result=(2, 500, 3), band=10, copy_threads=2, slots=2),  # a row is a band
    Shape(result=(9, 11, 3), band=1000, copy_threads=2, slots=2),  # the result is one band, in the graph
    Shape(frame=(9, 11, 3), band=1000, copy_threads=2, slots=2, bgr=True),  # the frame is
]
SHAPES = [
    Shape(),
    Shape(slots=3, bgr=True),
    Shape(channels_last=True, slots=2),
    Shape(frame=(20, 31, 1), tensor=(8, 8, 1), result=(20, 31, 1)),
    Shape(result=(64, 80, 3), tensor=(64, 64, 3)),
    Shape(slots=3, waits=True),
    *BANDED,
]


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_frames_come_out_as_from_the_cpu_kernels(emulated_cuda: ctypes.CDLL, shape: Shape, on_gpu: bool) -> None:
    frames = frames_of(shape, 8)
    with pipeline(emulated_cuda, shape) as p:
        assert p.graph_active() == (not shape.waits)
        for first in range(0, len(frames) - shape.slots, shape.slots):
            some = frames[first : first + shape.slots]
            tickets = [p.submit(frame, on_gpu) for frame in some]
            for ticket, frame in reversed(list(zip(tickets, some, strict=True))):
                made = p.collect(ticket, on_gpu=on_gpu).astype(int)
                assert np.abs(made - expected(shape, frame)).max() <= 1


@pytest.mark.parametrize("shape", [Shape(), *BANDED[:3]], ids=str)
def test_rows_may_lie_apart(emulated_cuda: ctypes.CDLL, shape: Shape) -> None:
    wide = np.random.default_rng(1).integers(0, 256, (37, 60, 3), np.uint8)
    frame = wide[:, 3:56]
    canvas = np.full((37, 70, 3), 7, np.uint8)
    with pipeline(emulated_cuda, shape) as p:
        p.collect(p.submit(frame), canvas[:, 10:63])
    assert np.abs(canvas[:, 10:63].astype(int) - expected(shape, frame)).max() <= 1
    assert (canvas[:, :10] == 7).all()
    assert (canvas[:, 63:] == 7).all()


@pytest.mark.parametrize("shape", [Shape(), *BANDED[:2]], ids=str)
def test_one_launch_a_frame(emulated_cuda: ctypes.CDLL, shape: Shape) -> None:
    with pipeline(emulated_cuda, shape) as p:
        before = emulated_cuda.launches()
        for frame in frames_of(shape, 5):
            p.collect(p.submit(frame))
        assert emulated_cuda.launches() - before == 5


@pytest.mark.parametrize("shape", [Shape(slots=2), BANDED[1], BANDED[3]], ids=str)
def test_threads_get_their_own_frames_back(emulated_cuda: ctypes.CDLL, shape: Shape) -> None:
    wrong: list[str] = []

    def work(p: Pipeline, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            frame = rng.integers(0, 256, shape.frame, np.uint8)
            if np.abs(p.collect(p.submit(frame)).astype(int) - expected(shape, frame)).max() > 1:
                wrong.append(f"thread {seed}")

    with pipeline(emulated_cuda, shape) as p:
        threads = [threading.Thread(target=work, args=(p, seed)) for seed in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.parametrize("shape", BANDED, ids=str)
def test_bands_make_the_bits_of_one_piece(emulated_cuda: ctypes.CDLL, shape: Shape) -> None:
    """And a frame on the GPU between two from the host disturbs neither."""
    frames = frames_of(shape, 3 * shape.slots)
    with pipeline(emulated_cuda, replace(shape, band=1 << 19, waits=False)) as p:
        whole = [p.collect(p.submit(frame)) for frame in frames]
    with pipeline(emulated_cuda, shape) as p:
        for first in range(0, len(frames), shape.slots):
            on_gpu = first == shape.slots
            some = range(first, first + shape.slots)
            for i, ticket in [(i, p.submit(frames[i], on_gpu)) for i in some]:
                assert np.array_equal(p.collect(ticket, on_gpu=on_gpu), whole[i])


@pytest.mark.parametrize("copies", [0, 2, 5, 6, 8, 11])
def test_a_copy_that_cuda_refuses_frees_the_slot_when_nothing_of_it_is_on_its_way(
    emulated_cuda: ctypes.CDLL, copies: int
) -> None:
    shape = BANDED[0]  # six bands in, six out
    first, second = frames_of(shape, 2)
    with pipeline(emulated_cuda, shape) as p:
        emulated_cuda.refuse_a_copy_after(copies)
        with pytest.raises(ValueError, match="frame_pipeline: CUDA says an error of the emulator"):
            p.submit(first)
        for frame in (second, first):
            assert np.abs(p.collect(p.submit(frame)).astype(int) - expected(shape, frame)).max() <= 1


def test_what_makes_no_sense_is_refused(emulated_cuda: ctypes.CDLL) -> None:
    shape = Shape()
    with pytest.raises(ValueError, match="slots must be 1 to 64, got 0"):
        Pipeline(emulated_cuda, Shape(slots=0))
    with pytest.raises(ValueError, match="frame must be 1 to 32767 pixels a side"):
        Pipeline(emulated_cuda, Shape(frame=(0, 5, 3)))
    with pipeline(emulated_cuda, shape) as p:
        with pytest.raises(ValueError, match=r"frame must be uint8 of shape \(37, 53, 3\)"):
            p.submit(np.zeros((36, 53, 3), np.uint8))
        with pytest.raises(ValueError, match="no frame of ticket 99"):
            p.collect(99)
        ticket = p.submit(frames_of(shape, 1)[0])
        with pytest.raises(ValueError, match="out must lie where the frame did, on the CPU"):
            p.collect(ticket, on_gpu=True)
        with pytest.raises(ValueError, match="out must be uint8 of shape"):
            p.collect(ticket, np.zeros((1, 1, 3), np.uint8))
        p.collect(ticket)
        with pytest.raises(ValueError, match="no frame of ticket"):
            p.collect(ticket)


def test_each_stage_is_timed(emulated_cuda: ctypes.CDLL) -> None:
    shape = Shape()
    times = (ctypes.c_float * 5)()
    frame = frames_of(shape, 1)[0]
    with pipeline(emulated_cuda, shape) as p:
        refusal = emulated_cuda.time_stages(p.handle, *p._memory(frame), times)
        assert refusal is None
        assert all(ms > 0 for ms in times)
        assert np.abs(p.collect(p.submit(frame)).astype(int) - expected(shape, frame)).max() <= 1


@pytest.mark.parametrize("slots", [1, 3])
def test_a_gpu_that_is_lost_is_an_error_of_every_call_and_keeps_nobody_waiting(
    emulated_cuda: ctypes.CDLL, slots: int
) -> None:
    """Frames under way, one that is waited for, one that waits for a slot, and the end of the pipeline."""
    shape = Shape(slots=slots)
    (frame,) = frames_of(shape, 1)
    said: list[str] = []

    def fails(do: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match="CUDA says") as error:
            do()
        said.append(str(error.value))

    with pipeline(emulated_cuda, shape) as made:
        tickets = [made.submit(frame) for _ in range(slots)]
        waiting = threading.Thread(target=fails, args=(lambda: made.submit(frame),))  # there is no free slot
        waiting.start()
        emulated_cuda.lose_gpu(ctypes.c_bool(True))
        try:
            for ticket in tickets:
                fails(lambda ticket=ticket: made.collect(ticket))
            waiting.join(10)
            assert not waiting.is_alive()
            fails(lambda: made.submit(frame))
        finally:
            emulated_cuda.lose_gpu(ctypes.c_bool(False))
    assert len(said) == slots + 2
    with pipeline(emulated_cuda, shape) as made:
        np.testing.assert_array_equal(made.collect(made.submit(frame)), expected(shape, frame))
