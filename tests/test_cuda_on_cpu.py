"""The CUDA kernels' own sources, run by CPU fibres (tests/cuda_on_cpu), against float64: where there is no GPU too."""

from __future__ import annotations

import ctypes
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pytest
import reference
from numpy.typing import NDArray
from test_norm_act import CASES, TOLERANCE, Case, channels_last, inputs_of, name_of, relative_error

pytestmark = pytest.mark.plain_core

DTYPES = ["float32", "float16", "bfloat16"]
LAYOUTS = ["nchw", "nhwc"]
MODES = ["auto", "cluster", "cooperative", "two_kernels"]
# Shapes that need several blocks of a cluster, some of them empty or short, and 16-byte vectors.
LARGE = [
    Case(c=16, h=40, w=33, pad=1, act="relu"),
    Case(c=8, h=64, w=64, pad=3, residual=True, rpad=1, act="leaky_relu", affine="sample"),
    Case(n=2, c=24, h=37, w=61, kind="far", residual=True),
    Case(c=16, h=40, w=40, rho="random", unbiased=True, affine="channel", pad=1, act="relu"),
    Case(n=2, c=8, h=48, w=50, rho="random", unbiased=True, residual=True, rpad=3, pad=2),
    Case(c=2, h=96, w=100, kind="steps"),
    Case(c=40, h=3, w=3, pad=2),
]


@dataclass(frozen=True)
class Gpu:
    """What the emulator plays."""

    processors: int = 4
    blocks_per_processor: int = 8
    capability_major: int = 9
    largest_cluster: int = 16


GPUS = [Gpu(), Gpu(blocks_per_processor=64), Gpu(blocks_per_processor=64, capability_major=8, largest_cluster=0)]
GPUS += [Gpu(1, 1, 8, 0), Gpu(132, 1)]


@pytest.fixture
def kernels(emulated_cuda: ctypes.CDLL) -> ctypes.CDLL:
    use(emulated_cuda, GPUS[0])
    return emulated_cuda


def use(kernels: ctypes.CDLL, gpu: Gpu) -> None:
    kernels.set_device(GPUS.index(gpu), *astuple(gpu))


def stored(x: NDArray, dtype: str) -> NDArray:
    """x as the bits of dtype."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.ascontiguousarray(x, dtype)


def wide(x: NDArray, dtype: str) -> NDArray[np.float64]:
    if dtype == "bfloat16":
        return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return x.astype(np.float64)


def run(
    kernels: ctypes.CDLL, x: NDArray, dtype: str, layout: str, mode: str, given: dict[str, Any]
) -> NDArray[np.float64]:
    """NormAct of an NCHW float32 array in dtype and layout; NCHW float64. Raises ValueError for a refusal."""
    order = channels_last if layout == "nhwc" else lambda array: array
    n, c, h, w = x.shape
    pad, rpad, unbiased = given["pad"], given["rpad"], given["unbiased"]
    shape = (n, c, h + 2 * pad, w + 2 * pad)
    y = stored(order(np.full(shape, np.nan, np.float32)), dtype)  # what is not written stays visible
    per_sample = given["scale"] is not None and given["scale"].ndim == 2
    arrays = [stored(order(x), dtype), given["scale"], given["shift"], given["rho"]]
    arrays.append(None if given["residual"] is None else stored(order(given["residual"]), dtype))
    facts = np.array(
        [n, c, h, w, DTYPES.index(dtype), LAYOUTS.index(layout), MODES.index(mode), pad, rpad, per_sample, unbiased],
        np.int64,
    )
    addresses = [None if array is None else ctypes.c_void_p(array.ctypes.data) for array in [*arrays, y, facts]]
    slope = {"none": 1.0, "relu": 0.0, "leaky_relu": 0.2}[given["act"]]
    refusal = kernels.run_norm_act(*addresses, ctypes.c_float(1e-5), ctypes.c_float(slope))
    if refusal:
        raise ValueError(refusal.decode())
    y = wide(y, dtype)
    return y.transpose(0, 3, 1, 2) if layout == "nhwc" else y


def expected_of(x: NDArray, dtype: str, given: dict[str, Any]) -> NDArray[np.float64]:
    given = dict(given)
    if given["residual"] is not None:
        given["residual"] = wide(stored(given["residual"], dtype), dtype)
    return reference.norm_act(wide(stored(x, dtype), dtype), **given)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES + LARGE, ids=name_of)
def test_agrees_with_float64(kernels: ctypes.CDLL, case: Case, layout: str, mode: str) -> None:
    x, given = inputs_of(case)
    ran = 0
    for dtype in DTYPES:
        if dtype == "float16" and case.kind in {"huge", "tiny"}:
            continue
        try:
            y = run(kernels, x, dtype, layout, mode, given)
        except ValueError as refusal:
            assert f"mode '{mode}' does not take this shape" in str(refusal)  # noqa: PT017
            assert mode in {"cluster", "cooperative"}
            continue
        ran += 1
        assert relative_error(y, expected_of(x, dtype, given)) <= TOLERANCE[dtype]
    assert ran or mode in {"cluster", "cooperative"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bits_do_not_depend_on_the_order_of_threads(kernels: ctypes.CDLL, layout: str, mode: str) -> None:
    case = LARGE[1]
    x, given = inputs_of(case)
    kernels.set_backwards(False)
    forwards = run(kernels, x, "float32", layout, mode, given)
    kernels.set_backwards(True)
    try:
        assert np.array_equal(forwards, run(kernels, x, "float32", layout, mode, given))
    finally:
        kernels.set_backwards(False)


def launches_of(kernels: ctypes.CDLL, layout: str, mode: str, given: dict[str, Any], x: NDArray) -> int:
    before = kernels.launches()
    run(kernels, x, "float16", layout, mode, given)
    return int(kernels.launches()) - before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_kernel_where_the_gpu_allows_it_else_two(kernels: ctypes.CDLL, layout: str) -> None:
    x, given = inputs_of(LARGE[0])
    mixed_x, mixed = inputs_of(LARGE[3])
    hopper, turing, tiny = GPUS[1:4]
    use(kernels, hopper)
    assert launches_of(kernels, layout, "auto", given, x) == 1
    assert launches_of(kernels, layout, "cluster", given, x) == 1
    assert launches_of(kernels, layout, "auto", mixed, mixed_x) == 1
    assert launches_of(kernels, layout, "two_kernels", given, x) == 2
    if layout == "nhwc":
        assert launches_of(kernels, layout, "cluster", mixed, mixed_x) == 1
    else:
        with pytest.raises(ValueError, match="'cluster' does not take"):
            run(kernels, mixed_x, "float16", layout, "cluster", mixed)
    use(kernels, turing)
    with pytest.raises(ValueError, match="'cluster' does not take"):
        run(kernels, x, "float16", layout, "cluster", given)
    assert launches_of(kernels, layout, "auto", given, x) == 1
    use(kernels, tiny)
    big = np.zeros((1, 16, 64, 65), np.float32)  # more than one block holds
    assert launches_of(kernels, layout, "auto", given, big) == 2


def test_cyclegans_tensors_occupy_an_h200_in_one_kernel(kernels: ctypes.CDLL) -> None:
    """Those of its generator at 256x256; 132 processors, of which one kernel gets one block each."""
    use(kernels, GPUS[4])
    kernels.set_dry(True)
    given: dict[str, Any] = {"scale": None, "shift": None, "rho": None, "residual": None, "act": "relu"}
    given |= {"unbiased": False, "pad": 1, "rpad": 0}
    try:
        for channels, side in ((256, 64), (128, 128), (64, 256)):
            x = np.zeros((1, channels, side, side), np.float32)
            for mode in ("auto", "cooperative"):
                assert launches_of(kernels, "nhwc", mode, given, x) == 1
                assert 64 <= kernels.blocks() <= 132
    finally:
        kernels.set_dry(False)
