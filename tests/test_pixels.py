"""frame_to_tensor and tensor_to_frame: against float64, OpenCV and torch, and what they promise about memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from gantrt import _core, frame_to_tensor, tensor_to_frame
from numpy.typing import NDArray

TOLERANCE = {  # of values in 0..255
    "float64": 2e-4,  # rounding of weights and sums: three or four times 255 * 6e-8
    "torch": 4e-3,  # torch computes positions in float32: an error of 6e-8 * 96 pixels, times the contrast of 255
    "opencv_byte": 1.0,  # OpenCV's bilinear weights have 11 bits and it rounds to a byte in between
    "opencv_area": 0.5 + 1e-3,  # rounded to a byte
    "rounding": 1e-3,  # how near a tie a value may lie and still be rounded to the other side
    "float16": 0.13,  # half a unit in the last place of 255
    "bfloat16": 1.0,
}
FULL = (0.0, 255.0)


@dataclass(frozen=True)
class Case:
    frame: tuple[int, ...] = (40, 60, 3)
    size: tuple[int, int] = (32, 32)
    channels: int = 3
    color: str = "rgb"
    resize: str = "auto"
    border: int = 0


CASES = [
    Case(),
    Case(resize="bilinear"),
    Case(frame=(1, 1, 3), size=(1, 1)),
    Case(frame=(1, 1, 3), size=(7, 5)),
    Case(frame=(9, 1, 3), size=(4, 3), color="bgr"),
    Case(frame=(1, 9, 3), size=(3, 4)),
    Case(frame=(33, 47, 3), size=(1, 1)),
    Case(frame=(33, 47, 3), size=(1, 1), resize="bilinear"),
    Case(frame=(64, 48, 3), size=(32, 16), color="bgr"),
    Case(frame=(32, 32, 3), border=0),
    Case(frame=(33, 31, 3), size=(38, 36), border=3, resize="bilinear"),
    Case(frame=(108, 192, 3), size=(70, 70), border=3),
    Case(frame=(20, 200, 3), size=(50, 50)),
    Case(frame=(200, 20, 3), size=(50, 50), resize="bilinear", border=1),
    Case(frame=(17, 23), size=(40, 41), channels=1),
    Case(frame=(57, 43), size=(20, 21), channels=3),
    Case(frame=(57, 43, 1), size=(24, 21), channels=1, border=2),
    Case(frame=(57, 43, 3), size=(20, 51), channels=1, color="bgr"),
    Case(frame=(700, 5, 3), size=(2, 3)),
    Case(frame=(5, 700, 3), size=(3, 2), resize="bilinear"),
]


def name_of(case: Case) -> str:
    return "-".join(str(value).replace(" ", "") for value in vars(case).values())


def frame_of(case: Case) -> NDArray[np.uint8]:
    return np.random.default_rng(CASES.index(case)).integers(0, 256, case.frame, np.uint8)


def tensor_of(case: Case) -> NDArray[np.float32]:
    """A tensor in [-1, 1] with some values beyond."""
    rng = np.random.default_rng(CASES.index(case))
    return rng.uniform(-1.2, 1.2, (1, case.channels, *case.size)).astype(np.float32)


def assert_rounds_to(frame: NDArray[np.uint8], expected: NDArray) -> None:
    """Every byte is the nearest, or the value lies so near a tie that float32 cannot say."""
    assert frame.shape == expected.shape
    assert np.abs(frame - expected).max() <= 0.5 + TOLERANCE["rounding"]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_frame_to_tensor_agrees_with_float64(case: Case) -> None:
    expected = reference.frame_to_tensor(
        frame_of(case), case.size, case.channels, case.color, case.resize, case.border, FULL
    )
    tensor = frame_to_tensor(
        frame_of(case),
        size=case.size,
        channels=case.channels,
        color=case.color,
        resize=case.resize,
        pad=case.border,
        range=FULL,
    )
    assert tensor.dtype == np.float32
    assert tensor.shape == (1, case.channels, *case.size)
    assert np.abs(tensor - expected).max() <= TOLERANCE["float64"]


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_tensor_to_frame_agrees_with_float64(case: Case, tanh: bool) -> None:
    height, width = case.frame[:2]
    out = np.empty(case.frame, np.uint8)
    x = np.tanh(tensor_of(case).astype(np.float64)) if tanh else tensor_of(case)
    expected = reference.tensor_to_frame_unrounded(
        x, (height, width), out.reshape(height, width, -1).shape[2], case.color, case.resize, case.border
    ).reshape(case.frame)
    done = tensor_to_frame(tensor_of(case), out, color=case.color, resize=case.resize, crop=case.border, tanh=tanh)
    assert done is out
    assert_rounds_to(out, expected)


PICTURES = ["kodim03.png", "Landscape_6.jpg", "chelsea.bmp"]  # in the test data's images/


@pytest.mark.parametrize("name", PICTURES)
def test_agrees_with_opencv_on_real_pictures(data_dir: Path, name: str) -> None:
    picture = cv2.imread(str(data_dir / "images" / name))
    assert picture is not None
    for how, flag, limit in (
        ("bilinear", cv2.INTER_LINEAR, "opencv_byte"),
        ("area", cv2.INTER_AREA, "opencv_area"),
    ):
        ours = frame_to_tensor(picture, size=(120, 100), color="bgr", resize=how, range=FULL)[0]
        theirs = cv2.resize(picture, (100, 120), interpolation=flag)[:, :, ::-1].transpose(2, 0, 1)
        assert np.abs(ours - theirs).max() <= TOLERANCE[limit]


@pytest.mark.parametrize("name", PICTURES)
def test_real_pictures_survive_the_round_trip(data_dir: Path, name: str) -> None:
    picture = cv2.imread(str(data_dir / "images" / name))
    assert picture is not None
    same = frame_to_tensor(picture, size=picture.shape[:2], color="bgr")
    assert np.array_equal(tensor_to_frame(same, color="bgr"), picture)


def test_agrees_with_torch_interpolate() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    for size in ((32, 32), (48, 200), (100, 31), (64, 96)):
        theirs = F.interpolate(planes, size=size, mode="bilinear", align_corners=False)
        ours = frame_to_tensor(frame, size=size, resize="bilinear", range=FULL)
        assert np.abs(ours - theirs.numpy()).max() <= TOLERANCE["torch"]
    theirs = F.adaptive_avg_pool2d(planes, (16, 32))
    ours = frame_to_tensor(frame, size=(16, 32), resize="area", range=FULL)
    assert np.abs(ours - theirs.numpy()).max() <= TOLERANCE["torch"]


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-2.5, 3.0)])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_every_byte_survives_the_round_trip(value_range: tuple[float, float], color: str) -> None:
    frame = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)[::-1]
    for pad in (0, 3):
        size = (16 + 2 * pad, 16 + 2 * pad)
        tensor = frame_to_tensor(frame, size=size, pad=pad, range=value_range, color=color)
        assert np.array_equal(tensor_to_frame(tensor, crop=pad, range=value_range, color=color), frame)
    assert tensor.min() == pytest.approx(value_range[0])
    assert tensor.max() == pytest.approx(value_range[1])


VIEWS: dict[str, Callable[[NDArray], NDArray]] = {
    "upside down": lambda f: f[::-1],
    "mirrored": lambda f: f[:, ::-1],
    "other order": lambda f: f[:, :, ::-1],
    "all three": lambda f: f[::-1, ::-1, ::-1],
    "cropped": lambda f: f[5:-4, 7:-3],
    "every second row": lambda f: f[::2],
    "every third pixel": lambda f: f[:, ::3],
    "one channel": lambda f: f[:, :, 1],
    "one column": lambda f: f[:, 4:5],
    "of four channels": lambda f: np.concatenate([f, f[:, :, :1]], 2)[:, :, :3],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_frames_are_read_in_place(name: str) -> None:
    view = VIEWS[name](np.random.default_rng(1).integers(0, 256, (60, 70, 3), np.uint8))
    for size in ((31, 29), (80, 90)):
        assert np.array_equal(frame_to_tensor(view, size=size), frame_to_tensor(view.copy(), size=size))


@pytest.mark.parametrize("name", ["upside down", "other order", "cropped", "every second row"])
def test_frames_are_written_into_views_and_nowhere_else(name: str) -> None:
    x = np.random.default_rng(2).uniform(-1, 1, (1, 3, 20, 24)).astype(np.float32)
    canvas = np.full((60, 70, 3), 77, np.uint8)
    untouched = np.full((60, 70, 3), True)
    VIEWS[name](untouched)[...] = False
    out = VIEWS[name](canvas)
    assert tensor_to_frame(x, out) is out
    assert np.array_equal(out, tensor_to_frame(x, size=out.shape[:2]))
    assert (canvas[untouched] == 77).all()


def test_only_the_tensor_is_written() -> None:
    store = np.full((1, 3, 20, 30), 5.0, np.float32)
    out = store[:, :, 2:12, 4:24]  # rows of a larger tensor
    frame = np.random.default_rng(3).integers(0, 256, (10, 20, 3), np.uint8)
    frame_to_tensor(frame, out, pad=1)
    assert np.array_equal(out, frame_to_tensor(frame, size=(10, 20), pad=1))
    out[...] = 5.0
    assert (store == 5.0).all()


def test_three_axes_are_enough() -> None:
    frame = np.random.default_rng(4).integers(0, 256, (8, 9, 3), np.uint8)
    out = np.empty((3, 8, 9), np.float32)
    assert frame_to_tensor(frame, out) is out
    assert np.array_equal(out, frame_to_tensor(frame, size=(8, 9))[0])
    assert np.array_equal(tensor_to_frame(out), frame)


def test_what_is_beyond_saturates_and_nan_is_black() -> None:
    values = np.array([-1e30, -3, -1, 0, 1, 3, 1e30, np.inf, -np.inf, np.nan], np.float32)
    x = np.broadcast_to(values, (1, 3, 2, 10)).copy()
    expected = [0, 0, 0, 128, 255, 255, 255, 255, 0, 0]  # 127.5 is a tie and goes to the even 128
    assert tensor_to_frame(x)[0, :, 0].tolist() == expected
    assert tensor_to_frame(x[:, :1])[0, :, 0].tolist() == expected
    wide = tensor_to_frame(x, size=(9, 40))
    assert wide[0, -1, 0] == 0
    assert wide[0, 26, 0] == 255


def test_ties_go_to_the_even_byte() -> None:
    x = (np.arange(0, 255, dtype=np.float32) + 0.5).reshape(1, 1, 15, 17)
    assert np.array_equal(tensor_to_frame(x, range=FULL)[:, :, 0], np.rint(x[0, 0]).astype(np.uint8))


def test_the_bits_do_not_depend_on_threads() -> None:
    frame = np.random.default_rng(5).integers(0, 256, (301, 403, 3), np.uint8)
    for size in ((97, 101), (350, 500)):
        tensor = frame_to_tensor(frame, size=size, threads=1, pad=3)
        picture = tensor_to_frame(tensor, size=(411, 333), threads=1)
        for threads in (2, 5, 0):
            assert np.array_equal(tensor, frame_to_tensor(frame, size=size, threads=threads, pad=3))
            assert np.array_equal(picture, tensor_to_frame(tensor, size=(411, 333), threads=threads))


def test_the_result_is_of_the_kind_that_came() -> None:
    frame = torch.randint(0, 256, (12, 10, 3), dtype=torch.uint8)
    tensor = frame_to_tensor(frame, size=(12, 10))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    back = tensor_to_frame(tensor)
    assert isinstance(back, torch.Tensor)
    assert torch.equal(back, frame)
    mixed = np.empty((1, 3, 12, 10), np.float32)
    assert frame_to_tensor(frame, mixed) is mixed


FRAME = np.zeros((8, 9, 3), np.uint8)
TENSOR = np.zeros((1, 3, 8, 9), np.float32)
read_only = np.zeros((1, 3, 8, 9), np.float32)
read_only.flags.writeable = False

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "neither": (lambda: frame_to_tensor(FRAME), "give either out, or size"),
    "both": (lambda: frame_to_tensor(FRAME, TENSOR, size=(8, 9)), "give either out, or size"),
    "both back": (lambda: tensor_to_frame(TENSOR, FRAME, size=(8, 9)), "give out or size, not both"),
    "float frame": (lambda: frame_to_tensor(FRAME.astype(np.float32), TENSOR), "frame must be uint8, got float32"),
    "four channels": (
        lambda: frame_to_tensor(np.zeros((8, 9, 4), np.uint8), TENSOR),
        r"frame must have shape .* got \(8, 9, 4\)",
    ),
    "empty": (lambda: frame_to_tensor(FRAME[:0], TENSOR), r"must not be empty, got shape \(0, 9, 3\)"),
    "channel stride": (
        lambda: frame_to_tensor(np.zeros((8, 9, 6), np.uint8)[:, :, ::2], TENSOR),
        r"channels of a pixel must lie side by side, got strides \(54, 6, 2\)",
    ),
    "batch": (lambda: tensor_to_frame(np.zeros((2, 3, 8, 9), np.float32)), "tensor must have shape"),
    "two channels": (lambda: tensor_to_frame(TENSOR[:, :2]), "tensor must have 1 or 3 channels"),
    "rank": (lambda: tensor_to_frame(TENSOR[0, 0]), "x must have shape"),
    "uint8 tensor": (lambda: tensor_to_frame(TENSOR.astype(np.uint8)), "tensor must be float32, got uint8"),
    "tensor stride": (lambda: tensor_to_frame(TENSOR[..., ::2]), "pixels of a tensor's row must lie side by side"),
    "frame stride": (lambda: tensor_to_frame(TENSOR, FRAME[:, ::2]), "to be written, got strides"),
    "read-only": (lambda: frame_to_tensor(FRAME, read_only), "out is read-only"),
    "pad": (lambda: frame_to_tensor(FRAME, TENSOR, pad=3), "a reflected border of 3"),
    "negative pad": (lambda: frame_to_tensor(FRAME, TENSOR, pad=-1), "a reflected border of -1"),
    "vast pad": (lambda: frame_to_tensor(FRAME, TENSOR, pad=2**31 - 1), "a reflected border"),
    "crop": (lambda: tensor_to_frame(TENSOR, crop=4), "cutting 4 pixels off each side leaves nothing"),
    "crop into out": (lambda: tensor_to_frame(TENSOR, FRAME, crop=4), "leaves nothing"),
    "negative crop": (lambda: tensor_to_frame(TENSOR, crop=-1), "cutting -1"),
    "range": (lambda: frame_to_tensor(FRAME, TENSOR, range=(1.0, 1.0)), "range must be"),
    "nan range": (lambda: tensor_to_frame(TENSOR, range=(0.0, float("nan"))), "range must be"),
    "size": (lambda: frame_to_tensor(FRAME, size=(0, 5)), r"size must be .* got \(0, 5\)"),
    "vast size": (lambda: tensor_to_frame(TENSOR, size=(40000, 5)), "each 1 to 32767"),
    "vast frame": (lambda: frame_to_tensor(np.zeros((40000, 1), np.uint8), TENSOR), "32767 pixels a side at most"),
    "channels": (lambda: frame_to_tensor(FRAME, size=(8, 9), channels=2), "must be 1 or 3"),
    "color": (lambda: frame_to_tensor(FRAME, TENSOR, color="yuv"), "color must be one of rgb, bgr; got 'yuv'"),
    "resize": (lambda: frame_to_tensor(FRAME, TENSOR, resize="lanczos"), "resize must be one of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_named(name: str) -> None:
    call, text = REFUSED[name]
    with pytest.raises(ValueError, match=text) as caught:
        call()
    assert str(caught.value).startswith(("frame_to_tensor: ", "tensor_to_frame: "))
    assert "\n" not in str(caught.value)


def test_a_frame_of_the_largest_side_is_exact() -> None:
    frame = (np.arange(32767) % 251).astype(np.uint8)[:, None]
    expected = reference.frame_to_tensor(frame, (7, 1), 1, value_range=FULL)
    tensor = frame_to_tensor(frame, size=(7, 1), channels=1, range=FULL)
    assert np.abs(tensor - expected).max() <= TOLERANCE["float64"]
    line = frame_to_tensor(np.array([[0], [255]], np.uint8), size=(32767, 1), channels=1, range=FULL)
    assert (np.diff(line[0, 0, :, 0]) >= 0).all()
    assert line[0, 0, [0, -1], 0].tolist() == [0, 255]


def test_default_threads_is_at_least_one() -> None:
    assert _core.default_threads() >= 1


@pytest.mark.needs_cuda
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_cuda_frame_to_tensor_agrees_with_float64(case: Case, dtype: str) -> None:
    expected = reference.frame_to_tensor(
        frame_of(case), case.size, case.channels, case.color, case.resize, case.border, FULL
    )
    out = torch.empty((1, case.channels, *case.size), dtype=getattr(torch, dtype), device="cuda")
    frame = torch.from_numpy(frame_of(case)).cuda()
    frame_to_tensor(frame, out, color=case.color, resize=case.resize, pad=case.border, range=FULL)
    limit = TOLERANCE["float64" if dtype == "float32" else dtype]
    assert np.abs(out.double().cpu().numpy() - expected).max() <= limit


@pytest.mark.needs_cuda
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_cuda_tensor_to_frame_agrees_with_float64(case: Case, dtype: str, tanh: bool) -> None:
    height, width = case.frame[:2]
    x = torch.from_numpy(tensor_of(case)).to("cuda", getattr(torch, dtype))
    out = torch.empty(case.frame, dtype=torch.uint8, device="cuda")
    shown = x.double().tanh() if tanh else x.double()
    expected = reference.tensor_to_frame_unrounded(
        shown.cpu().numpy(),
        (height, width),
        1 if len(case.frame) == 2 else case.frame[2],
        case.color,
        case.resize,
        case.border,
    ).reshape(case.frame)
    tensor_to_frame(x, out, color=case.color, resize=case.resize, crop=case.border, tanh=tanh)
    assert_rounds_to(out.cpu().numpy(), expected)
