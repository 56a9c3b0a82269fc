"""The pixels' CUDA kernels against float64: on the CPU by tests/cuda_on_cpu, and where there is a GPU, there.

Frames no smaller than their tensor take another kernel than the rest, and so do tensors that are smaller than their
frame: all are here, in every layout.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import torch
from gantrt import _core
from numpy.typing import NDArray
from test_cuda_on_cpu import DTYPES, stored, wide
from test_pixels import FULL, TOLERANCE, assert_rounds_to


@dataclass(frozen=True)
class Case:
    tensor: tuple[int, int, int] = (3, 16, 20)  # channels, height, width, without the border
    frame: tuple[int, int, int] = (40, 61, 3)  # height, width, channels
    layout: str = "nchw"  # "nhwc"; "nhwc4", "nhwc8": pixels of 4 or 8 channels, of which the first are meant
    dtype: str = "float32"
    color: str = "rgb"
    resize: str = "auto"
    border: int = 0
    tanh: bool = False
    unaligned: int = 0  # bytes between the rows of the frame, and before the first


ENLARGED = [
    Case(),
    Case(layout="nhwc", color="bgr", tanh=True),
    Case(layout="nhwc4", dtype="float16", color="bgr"),
    Case(layout="nhwc8", dtype="bfloat16", border=2),
    Case(dtype="float16", tanh=True, border=3),
    Case(frame=(40, 64, 3), layout="nhwc", dtype="float16"),  # rows of whole words
    Case(frame=(40, 64, 3), unaligned=4),
    Case(frame=(40, 64, 3), unaligned=1),
    Case(frame=(40, 64, 3), unaligned=2, color="bgr"),
    Case(frame=(16, 20, 3)),  # the same size
    Case(frame=(17, 21, 3), layout="nhwc"),
    Case(frame=(16, 61, 3)),
    Case(frame=(40, 20, 3), tanh=True),
    Case(tensor=(3, 1, 1), frame=(1, 1, 3)),
    Case(tensor=(3, 1, 1), frame=(70, 90, 3)),
    Case(tensor=(3, 1, 9), frame=(3, 95, 3)),
    Case(tensor=(3, 9, 1), frame=(95, 1, 3)),
    Case(tensor=(3, 2, 2), frame=(301, 200, 3), layout="nhwc"),  # many rows between two of the tensor
    Case(tensor=(3, 31, 90), frame=(301, 173, 3), layout="nhwc", dtype="float16", color="bgr"),  # three tiles wide
    Case(tensor=(3, 37, 130), frame=(37, 131, 3)),
    Case(tensor=(3, 64, 64), frame=(517, 520, 3), layout="nhwc", dtype="float16"),
    Case(tensor=(3, 150, 120), frame=(301, 240, 3), dtype="float16"),
    Case(tensor=(1, 16, 20), frame=(40, 300, 1)),
    Case(tensor=(1, 16, 270), frame=(16, 270, 1), layout="nhwc", dtype="float16"),
    Case(tensor=(1, 16, 20), frame=(40, 61, 3), color="bgr"),
    Case(tensor=(3, 16, 20), frame=(40, 61, 1), tanh=True),
    Case(tensor=(3, 16, 20), frame=(40, 64, 1), layout="nhwc4", dtype="float16"),
]
SHRUNK = [
    Case(tensor=(3, 16, 20), frame=(40, 64, 3)),
    Case(tensor=(3, 16, 20), frame=(40, 64, 3), color="bgr", border=3, layout="nhwc", dtype="float16"),
    Case(tensor=(3, 16, 20), frame=(40, 64, 3), unaligned=8, layout="nhwc4", dtype="bfloat16"),
    Case(tensor=(3, 16, 20), frame=(40, 64, 3), unaligned=4),
    Case(tensor=(3, 39, 63), frame=(40, 64, 3), border=1),
    Case(tensor=(3, 20, 32), frame=(40, 64, 3), border=19),
    Case(tensor=(3, 5, 7), frame=(108, 192, 3), border=4),
    Case(tensor=(3, 2, 300), frame=(5, 904, 3), border=1),  # two blocks wide, of a thread a pixel
    Case(tensor=(3, 3, 96), frame=(14, 1920, 3), border=2, layout="nhwc", dtype="float16"),  # of their frame's bytes
    Case(tensor=(3, 1, 1), frame=(256, 256, 3)),
    Case(tensor=(3, 1, 1), frame=(2, 264, 3)),  # wider than the fast one takes
    Case(tensor=(3, 1, 1), frame=(300, 8, 3)),
    Case(tensor=(1, 16, 20), frame=(40, 64, 1), border=2),
    Case(tensor=(1, 16, 20), frame=(40, 64, 3), color="bgr"),
    Case(tensor=(3, 16, 20), frame=(40, 64, 1), layout="nhwc"),
    Case(tensor=(3, 16, 20), frame=(40, 64, 3), resize="bilinear"),
    Case(tensor=(3, 50, 20), frame=(40, 64, 3)),
    Case(tensor=(3, 16, 70), frame=(40, 64, 3)),
]
OTHERS = [
    Case(tensor=(3, 40, 61), frame=(16, 20, 3)),
    Case(tensor=(3, 40, 61), frame=(16, 20, 3), resize="bilinear", layout="nhwc4", dtype="float16", color="bgr"),
    Case(tensor=(3, 40, 20), frame=(16, 61, 3), layout="nhwc", tanh=True),
    Case(tensor=(3, 16, 61), frame=(40, 20, 3), border=3, dtype="bfloat16", unaligned=1),
    Case(tensor=(3, 16, 61), frame=(40, 20, 3), resize="bilinear", unaligned=4),
    Case(tensor=(1, 40, 61), frame=(16, 20, 1), layout="nhwc"),
    Case(tensor=(3, 40, 61), frame=(16, 20, 1)),
]


def name_of(case: Case) -> str:
    return "-".join(str(value).replace(" ", "") for value in vars(case).values())


@dataclass
class Memory:
    """A case's tensor and frame, as bytes that hold what lies between rows and pixels too."""

    x: NDArray  # (H, W, pitch) or (C, H, W), of the bits of the case's dtype
    frame: NDArray[np.uint8]  # (height, row in bytes)
    case: Case

    @property
    def strides(self) -> tuple[int, int, int]:
        """Elements from one plane, one row, one pixel of the tensor to the next."""
        if self.case.layout == "nchw":
            return self.x.shape[1] * self.x.shape[2], self.x.shape[2], 1
        return 1, self.x.shape[1] * self.x.shape[2], self.x.shape[2]

    @property
    def picture(self) -> NDArray[np.uint8]:
        height, width, channels = self.case.frame
        return self.frame[:, self.case.unaligned :][:, : width * channels].reshape(height, width, channels)

    def beside(self) -> NDArray[np.uint8]:
        """What no kernel may write of the frame."""
        _, width, channels = self.case.frame
        return np.delete(self.frame, np.s_[self.case.unaligned : self.case.unaligned + width * channels], axis=1)


def memory_of(case: Case, values: NDArray) -> Memory:
    """`values` (C, H, W), border and all, laid out as the case says; NaN and 77 lie beside."""
    laid = values
    if case.layout != "nchw":
        channels = len(values)
        pitch = max(channels, int(case.layout[4:] or channels))
        laid = np.full((*values.shape[1:], pitch), np.nan, np.float32)
        laid[:, :, :channels] = values.transpose(1, 2, 0)
    height, width, channels = case.frame
    frame = np.full((height, width * channels + 2 * case.unaligned), 77, np.uint8)
    return Memory(stored(laid, case.dtype), frame, case)


def values_of(case: Case) -> NDArray[np.float32]:
    channels, height, width = case.tensor
    size = (channels, height + 2 * case.border, width + 2 * case.border)
    return np.random.default_rng(len(name_of(case))).uniform(-1.2, 1.2, size).astype(np.float32)


Run = Callable[[Memory, tuple[float, float], bool], None]  # (memory, range, to a frame)


@pytest.fixture
def on_cpu(emulated_cuda: ctypes.CDLL) -> Run:
    def run(memory: Memory, value_range: tuple[float, float], to_frame: bool) -> None:
        case = memory.case
        channels, height, width = case.tensor
        facts = [DTYPES.index(case.dtype), channels, height + 2 * case.border, width + 2 * case.border]
        facts += [*memory.strides, *case.frame, memory.frame.shape[1]]
        facts += [case.color == "bgr", case.resize == "bilinear", case.border, case.tanh]
        refusal = emulated_cuda.run_pixels(
            ctypes.c_void_p(memory.x.ctypes.data),
            ctypes.c_void_p(memory.frame.ctypes.data + case.unaligned),
            np.array(facts, np.int64).ctypes.data_as(ctypes.c_void_p),
            *map(ctypes.c_float, value_range),
            ctypes.c_bool(to_frame),
        )
        assert refusal is None, refusal

    return run


@pytest.fixture
def on_gpu() -> Run:
    def run(memory: Memory, value_range: tuple[float, float], to_frame: bool) -> None:
        case = memory.case
        channels, height, width = case.tensor
        bits = memory.x.view(np.int16) if case.dtype == "bfloat16" else memory.x
        storage = torch.from_numpy(bits).cuda()
        size = (channels, height + 2 * case.border, width + 2 * case.border)
        x = storage.view(getattr(torch, case.dtype)).as_strided(size, memory.strides)
        canvas = torch.from_numpy(memory.frame).cuda()
        _, wide_, deep = case.frame
        frame = canvas.as_strided(case.frame, (canvas.shape[1], deep, 1), case.unaligned)
        assert frame.shape[1] == wide_
        options: dict[str, Any] = {"color": case.color, "resize": case.resize, "range": value_range}
        if to_frame:
            _core.tensor_to_frame(x, frame, crop=case.border, tanh=case.tanh, **options)
            memory.frame[...] = canvas.cpu().numpy()
        else:
            _core.frame_to_tensor(frame, x, pad=case.border, **options)
            bits[...] = storage.cpu().numpy()

    return run


ON = [pytest.param("on_cpu", id="cpu"), pytest.param("on_gpu", id="gpu", marks=pytest.mark.needs_cuda)]


def expected_of(case: Case, values: NDArray, value_range: tuple[float, float] = (-1.0, 1.0)) -> NDArray:
    seen = wide(stored(values, case.dtype), case.dtype)
    return reference.tensor_to_frame_unrounded(
        np.tanh(seen)[None] if case.tanh else seen[None],
        case.frame[:2],
        case.frame[2],
        case.color,
        case.resize,
        case.border,
        value_range,
    )


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("case", ENLARGED + SHRUNK + OTHERS, ids=name_of)
def test_tensor_to_frame_agrees_with_float64(case: Case, on: str, request: pytest.FixtureRequest) -> None:
    values = values_of(case)
    memory = memory_of(case, values)
    request.getfixturevalue(on)(memory, (-1.0, 1.0), True)
    assert_rounds_to(memory.picture, expected_of(case, values))
    assert (memory.beside() == 77).all()


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("case", [case for case in ENLARGED + SHRUNK + OTHERS if not case.tanh], ids=name_of)
def test_frame_to_tensor_agrees_with_float64(case: Case, on: str, request: pytest.FixtureRequest) -> None:
    memory = memory_of(case, np.full_like(values_of(case), np.nan))
    memory.picture[...] = np.random.default_rng(1).integers(0, 256, case.frame, np.uint8)
    request.getfixturevalue(on)(memory, FULL, False)
    channels, *sides = case.tensor
    size = (sides[0] + 2 * case.border, sides[1] + 2 * case.border)
    expected = reference.frame_to_tensor(memory.picture, size, channels, case.color, case.resize, case.border, FULL)
    made = wide(memory.x, case.dtype)
    if case.layout != "nchw":
        assert np.isnan(made[:, :, channels:]).all()
        made = made[:, :, :channels].transpose(2, 0, 1)
    assert np.abs(made - expected[0]).max() <= TOLERANCE["float64" if case.dtype == "float32" else case.dtype]


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("frame", [(16, 16, 3), (5, 5, 3), (6, 5, 3)], ids=str)
def test_ties_go_to_the_even_byte(frame: tuple[int, int, int], on: str, request: pytest.FixtureRequest) -> None:
    """Where a value is a tie in float32: of an identity, and of a tensor that is the same everywhere."""
    run = request.getfixturevalue(on)
    for half in [*range(0, 256, 50), 254]:
        same = frame[:2] == (16, 16)
        values = np.full((3, 16, 16) if same else (3, 4, 4), half + 0.5, np.float32)
        if same:
            values += np.arange(16, dtype=np.float32) % (256 - half)
        case = Case(tensor=values.shape, frame=frame)  # type: ignore[arg-type]
        memory = memory_of(case, values)
        run(memory, FULL, True)
        shown = values[:, : frame[0], : frame[1]] if same else np.full((3, *frame[:2]), half + 0.5)
        assert np.array_equal(memory.picture, np.clip(np.rint(shown), 0, 255).transpose(1, 2, 0))


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_beyond_saturates_and_nan_is_black(dtype: str, on: str, request: pytest.FixtureRequest) -> None:
    """And neither shows in the pixels beside it, where these do not lie between."""
    large = 3e4 if dtype == "float16" else 1e30
    row = np.array([-large, -3, -1, 0, 1, 3, large, np.inf, -np.inf, np.nan, 1, np.inf, np.inf], np.float32)
    values = np.broadcast_to(row, (3, 4, len(row))).copy()
    shown = [0, 0, 0, 128, 255, 255, 255, 255, 0, 0, 255, 255, 255]
    for case in (
        Case(tensor=(3, 4, 13), frame=(4, 13, 3), dtype=dtype),
        Case(tensor=(3, 4, 13), frame=(9, 39, 3), dtype=dtype, layout="nhwc"),  # every third pixel is one of these
    ):
        memory = memory_of(case, values)
        request.getfixturevalue(on)(memory, (-1.0, 1.0), True)
        step = case.frame[1] // 13
        assert memory.picture[-1, step // 2 :: step, 1].tolist() == shown
    assert memory.picture[0, -3:, 0].tolist() == [255, 255, 255]  # between two infinities
    assert memory.picture[0, 30, 0] == 0  # between a NaN and a 1, nearer to the 1


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_every_byte_survives_the_round_trip(layout: str, on: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(on)
    for value_range in ((-1.0, 1.0), (0.0, 1.0), FULL, (-2.5, 3.0)):
        for border in (0, 3):
            case = Case(tensor=(3, 16, 16), frame=(16, 16, 3), layout=layout, border=border)
            memory = memory_of(case, np.full_like(values_of(case), np.nan))
            shown = np.arange(768).astype(np.uint8).reshape(16, 16, 3)[::-1]
            memory.picture[...] = shown
            run(memory, value_range, False)
            memory.frame[...] = 77
            run(memory, value_range, True)
            assert np.array_equal(memory.picture, shown)
