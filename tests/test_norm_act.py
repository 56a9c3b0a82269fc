"""norm_act: against float64, against torch, and what it promises about memory, threads and errors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import torch
from conftest import has_cuda_device
from gantrt import DeviceUnavailable, _core, norm_act
from gantrt_training.nets.norm import norm_act as norm_act_of_torch
from gil import turns_of_another_thread
from numpy.typing import NDArray

TOLERANCE = {
    "float32": 2e-6,  # a few roundings of 6e-8 in x - mean, the product and the sum, and those of the statistics
    "float16": 5e-4,  # one rounding of the result, 2.8e-4 on average, and no arithmetic in half
    "bfloat16": 4e-3,  # the same, 2.3e-3
    "torch": 2e-5,  # torch's own error: it keeps the mean in one float
}


@dataclass(frozen=True)
class Case:
    n: int = 1
    c: int = 3
    h: int = 9
    w: int = 11
    kind: str = "normal"  # what x looks like
    rho: str | None = None
    affine: str | None = None  # "channel" or "sample"
    unbiased: bool = False
    act: str = "none"
    residual: bool = False
    rpad: int = 0
    pad: int = 0


CASES = [
    Case(),
    Case(h=1, w=1),
    Case(h=1, w=1, rho="random", unbiased=True),
    Case(c=1, h=1, w=1, rho="zero", unbiased=True),
    Case(n=3, c=13, h=1, w=37, affine="sample", act="relu"),
    Case(n=2, c=7, h=37, w=1, affine="channel", act="leaky_relu"),
    Case(c=64, h=33, w=31, pad=1, act="relu"),
    Case(c=64, h=32, w=32, pad=3, act="relu", affine="channel"),
    Case(c=64, h=16, w=16, pad=1, residual=True, rpad=1, rho="random", affine="sample", unbiased=True),
    Case(n=2, c=16, h=5, w=4, pad=3, residual=True, rpad=3, act="leaky_relu"),
    Case(n=2, c=16, h=8, w=8, residual=True, act="relu", affine="channel"),
    Case(c=7, h=2, w=2, pad=1, rho="one", unbiased=True),
    Case(c=7, h=3, w=3, pad=2, rho="zero", unbiased=True, affine="channel"),
    Case(c=1, h=130, w=129, pad=2, act="leaky_relu"),
    Case(c=3, h=128, w=160, rho="random", unbiased=True, act="relu"),
    Case(c=3, h=200, w=100, kind="far", pad=1),
    Case(c=13, h=40, w=40, kind="far", rho="random", unbiased=True, affine="sample"),
    Case(n=3, c=64, h=20, w=24, kind="far", act="relu", pad=1, residual=True, rpad=2),
    Case(c=7, kind="constant", act="relu", affine="channel"),
    Case(c=7, kind="constant", rho="random", unbiased=True),
    Case(c=1, kind="constant", rho="zero"),
    Case(c=3, kind="huge", rho="random", unbiased=True),
    Case(c=64, kind="huge", pad=1),
    Case(c=13, kind="tiny", rho="random", affine="sample"),
    Case(c=33, h=24, w=17, kind="outlier"),
    Case(c=33, h=24, w=17, kind="outlier", rho="random"),
    Case(c=17, h=40, w=30, kind="steps", rho="random", unbiased=True, pad=1),
]


def name_of(case: Case) -> str:
    changed = [f"{key}={value}" for key, value in vars(case).items() if value != getattr(Case(), key)]
    return ",".join(changed) or "plain"


def inputs_of(case: Case) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """x and every other argument, as float32 NCHW."""
    rng = np.random.default_rng(CASES.index(case) if case in CASES else len(CASES))
    shape = (case.n, case.c, case.h, case.w)
    x = rng.standard_normal(shape)
    if case.kind == "far":
        x += 400
    elif case.kind == "constant":
        x = np.broadcast_to(rng.standard_normal((case.n, case.c, 1, 1)), shape) + 0.0
    elif case.kind == "huge":
        x *= 6e4
    elif case.kind == "tiny":
        x *= 1e-20
    elif case.kind == "outlier":
        x[..., 0, 0] += 1e3
    elif case.kind == "steps":  # tiles whose means lie far apart
        x += np.linspace(-300, 300, case.h)[:, None] + 50 * np.arange(case.c)[:, None, None]
    rhos = {None: None, "zero": np.zeros(case.c), "one": np.ones(case.c), "random": rng.random(case.c)}
    size = {None: None, "channel": (case.c,), "sample": (case.n, case.c)}[case.affine]
    border = 2 * case.rpad
    arguments = {
        "scale": None if size is None else rng.standard_normal(size).astype(np.float32),
        "shift": None if size is None else rng.standard_normal(size).astype(np.float32),
        "rho": None if case.rho is None else rhos[case.rho].astype(np.float32),
        "residual": rng.standard_normal((case.n, case.c, case.h + border, case.w + border)).astype(np.float32)
        if case.residual
        else None,
        "unbiased": case.unbiased,
        "act": case.act,
        "pad": case.pad,
        "rpad": case.rpad,
    }
    return x.astype(np.float32), arguments


def relative_error(y: NDArray, expected: NDArray) -> float:
    """L2, relative to what a normalised value is (1) where the expected result is smaller than that."""
    assert y.shape == expected.shape
    assert np.isfinite(y).all()
    unit = max(float(np.linalg.norm(expected)), 1e-3 * np.sqrt(expected.size))
    return float(np.linalg.norm(y - expected)) / unit


def channels_last(x: NDArray | None) -> NDArray | None:
    return None if x is None else np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_cpu_agrees_with_float64(case: Case, layout: str) -> None:
    x, arguments = inputs_of(case)
    expected = reference.norm_act(x, **arguments)
    if layout == "nchw":
        y = norm_act(x, **arguments)
    else:
        arguments["residual"] = channels_last(arguments["residual"])
        y = norm_act(channels_last(x), layout="nhwc", **arguments).transpose(0, 3, 1, 2)
    assert relative_error(y, expected) <= TOLERANCE["float32"]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_agrees_with_the_networks_own_definition(case: Case) -> None:
    if case.kind in {"far", "constant"}:
        pytest.skip("torch keeps the mean in one float, whose rounding is 1e-5 of a standard deviation there")
    if case.h * case.w == 1 and case.rho is None:
        pytest.skip("torch's instance_norm refuses one pixel")
    x, arguments = inputs_of(case)
    as_tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    expected = norm_act_of_torch(torch.from_numpy(x), **as_tensors)
    y = norm_act(torch.from_numpy(x), **as_tensors)
    assert isinstance(y, torch.Tensor)
    assert relative_error(y.numpy(), expected.numpy()) <= TOLERANCE["torch"]


@pytest.mark.parametrize("value", [3e38, -3e38, 1e30, 65504.0, 1e-45])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_no_finite_input_makes_a_nan(value: float, layout: str) -> None:
    rng = np.random.default_rng(0)
    x = (rng.choice([-1.0, 1.0, 0.5], (2, 5, 6, 7)) * value).astype(np.float32)
    rho = rng.random(5 if layout == "nchw" else 7).astype(np.float32)
    for mixture in (None, rho):
        assert np.isfinite(norm_act(x, rho=mixture, act="relu", layout=layout)).all()


def test_a_nan_stays_visible() -> None:
    x = np.zeros((1, 2, 4, 4), np.float32)
    x[0, 1, 2, 2] = np.nan
    y = norm_act(x, act="relu")
    assert np.isnan(y[0, 1, 2, 2])
    assert not np.isnan(y[0, 0]).any()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_bits_do_not_depend_on_threads(layout: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 40, 65, 48)).astype(np.float32)
    channels = 40 if layout == "nchw" else 48
    rho = rng.random(channels).astype(np.float32)
    for arguments in ({}, {"rho": rho, "pad": 3}):
        one = norm_act(x, layout=layout, threads=1, **arguments)
        for threads in (2, 3, 8, 0):
            for _ in range(3):
                assert np.array_equal(one, norm_act(x, layout=layout, threads=threads, **arguments))


PRINT_BITS = """
import hashlib, numpy as np
from gantrt import _core
rng = np.random.default_rng(0)
x = (rng.standard_normal((2, 35, 61, 47)) + 5).astype(np.float32)
frame = rng.integers(0, 256, (123, 217, 3), np.uint8)
h = hashlib.sha256()
for layout, c in (("nchw", 35), ("nhwc", 47)):
    h.update(_core.norm_act(x, rho=np.linspace(0, 1, c, dtype=np.float32), layout=layout, pad=1).tobytes())
for how in ("bilinear", "area"):
    for size in ((64, 65), (200, 300)):
        t = _core.frame_to_tensor(frame, size=size, resize=how)
        h.update(t.tobytes())
        h.update(_core.tensor_to_frame(t, size=(150, 151), resize=how).tobytes())
print(h.hexdigest(), *_core.cpu_features())
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    seen = {}
    for isa in ("baseline", "avx2", "avx512"):
        environment = dict(os.environ, GANTRT_ISA=isa)
        done = subprocess.run(
            [sys.executable, "-c", PRINT_BITS], env=environment, capture_output=True, text=True, check=True
        )
        digest, *features = done.stdout.split()
        seen[tuple(features)] = digest
    assert () in seen
    assert len(set(seen.values())) == 1


def test_out_is_filled_in_place_and_returned() -> None:
    x = np.random.default_rng(2).standard_normal((1, 3, 8, 8)).astype(np.float32)
    out = np.full((1, 3, 10, 10), np.nan, np.float32)
    assert norm_act(x, pad=1, out=out) is out
    assert np.array_equal(out, norm_act(x, pad=1))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_x_may_be_its_own_result(layout: str) -> None:
    x = np.random.default_rng(3).standard_normal((2, 16, 16, 16)).astype(np.float32)
    expected = norm_act(x, residual=x, act="relu", layout=layout)
    assert norm_act(x, residual=x, act="relu", layout=layout, out=x) is x
    assert np.array_equal(x, expected)


def test_torch_tensors_are_shared_not_copied() -> None:
    storage = torch.randn(1, 3, 8, 8)
    view = torch.from_numpy(storage.numpy())  # the same memory seen twice
    y = norm_act(storage, out=storage)
    assert y is storage
    assert torch.equal(view, storage)
    assert abs(float(view.mean())) < 1e-6


class OnlyDLPack:
    """A producer that knows nothing but DLPack, in its old form or its new one."""

    def __init__(self, array: NDArray, versioned: bool) -> None:
        self.array, self.versioned = array, versioned

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **wishes: Any) -> object:
        if wishes and not self.versioned:
            raise TypeError("__dlpack__() takes no arguments")
        return self.array.__dlpack__(**wishes)


@pytest.mark.parametrize("versioned", [True, False])
def test_any_dlpack_array_goes_in_and_is_written_in_place(versioned: bool) -> None:
    x = np.random.default_rng(4).standard_normal((1, 2, 4, 4)).astype(np.float32)
    expected = norm_act(x)
    given = OnlyDLPack(x.copy(), versioned)
    assert np.array_equal(norm_act(given), expected)
    assert norm_act(x, out=given) is given
    assert np.array_equal(given.array, expected)


def test_borrowed_memory_is_given_back() -> None:
    x = np.zeros((1, 2, 4, 4), np.float32)
    given = OnlyDLPack(x, True)
    before = sys.getrefcount(x)
    for _ in range(100):
        norm_act(given, out=given)
    assert sys.getrefcount(x) == before


def test_a_buffer_and_parameters_of_other_kinds_go_in() -> None:
    x = np.random.default_rng(5).standard_normal((1, 2, 4, 4)).astype(np.float32)
    y = norm_act(memoryview(x), torch.tensor([2.0, 3.0]), np.array([1.0, -1.0], np.float32))
    assert relative_error(y, reference.norm_act(x, np.array([2.0, 3.0]), np.array([1.0, -1.0]))) <= 2e-6


def test_the_gil_is_released() -> None:
    x = np.random.default_rng(6).standard_normal((4, 64, 256, 256)).astype(np.float32)
    out = np.empty_like(x)

    def work() -> None:
        for _ in range(3):
            norm_act(x, out=out, threads=1)

    assert turns_of_another_thread(work) > 50


def test_many_python_threads_may_call_at_once() -> None:
    rng = np.random.default_rng(7)
    pictures = [rng.standard_normal((1, 32, 64, 64)).astype(np.float32) for _ in range(6)]
    expected = [norm_act(x, threads=1) for x in pictures]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(norm_act(pictures[i], threads=3), expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(pictures))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_forked_child_computes_too() -> None:
    x = np.random.default_rng(8).standard_normal((1, 32, 64, 64)).astype(np.float32)
    expected = norm_act(x, threads=4)  # the pool exists before the fork
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(norm_act(x, threads=4), expected) else 1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


GOOD = np.zeros((1, 4, 6, 8), np.float32)
read_only = np.zeros((1, 4, 6, 8), np.float32)
read_only.flags.writeable = False

REFUSED = {
    "float64": (lambda: norm_act(GOOD.astype(np.float64)), "x must be .*float32.* got float64"),
    "uint8": (lambda: norm_act(GOOD.astype(np.uint8)), "x must be float32, got uint8"),
    "big endian": (lambda: norm_act(GOOD.astype(">f4")), "byte order"),
    "a list": (lambda: norm_act([[1.0]]), "x must be an array .* got list"),
    "rank": (lambda: norm_act(GOOD[0]), r"x must have 4 axes, got shape \(4, 6, 8\)"),
    "rank 5": (lambda: norm_act(GOOD[None]), "x must have 1 to 4 axes"),
    "empty": (lambda: norm_act(GOOD[:, :0]), r"x must not be empty, got shape \(1, 0, 6, 8\)"),
    "strides": (lambda: norm_act(GOOD[..., ::2]), r"x must be contiguous, got strides \(192, 48, 8, 2\)"),
    "negative strides": (lambda: norm_act(GOOD[:, ::-1]), "x must be contiguous, got strides"),
    "channels last": (lambda: norm_act(GOOD.transpose(0, 3, 1, 2)), "layout='nhwc'"),
    "scale": (lambda: norm_act(GOOD, np.zeros(3, np.float32)), r"scale must have shape \(4,\) or \(1, 4\), got \(3,\)"),
    "shift dtype": (lambda: norm_act(GOOD, shift=np.zeros(4, np.float16)), "shift must be float32, got float16"),
    "rho": (lambda: norm_act(GOOD, rho=np.zeros((1, 4), np.float32)), r"rho must have shape \(4,\), got \(1, 4\)"),
    "residual": (lambda: norm_act(GOOD, residual=GOOD, rpad=1), r"residual must have shape \(1, 4, 8, 10\)"),
    "rpad alone": (lambda: norm_act(GOOD, rpad=1), "no residual"),
    "pad": (lambda: norm_act(GOOD, pad=4), "pad must be 0..3, got 4"),
    "pad too wide": (lambda: norm_act(GOOD[:, :, :2].copy(), pad=2), "pad 2 reflects more than there is of 2 x 8"),
    "eps": (lambda: norm_act(GOOD, eps=0.0), "eps must be positive"),
    "eps too small": (lambda: norm_act(GOOD, eps=1e-60), "eps must be positive"),
    "slope": (lambda: norm_act(GOOD, act="leaky_relu", slope=float("nan")), "slope must be finite"),
    "act": (lambda: norm_act(GOOD, act="gelu"), "act must be one of none, relu, leaky_relu; got 'gelu'"),
    "layout": (lambda: norm_act(GOOD, layout="chwn"), "layout must be one of nchw, nhwc"),
    "out shape": (lambda: norm_act(GOOD, pad=1, out=GOOD.copy()), r"out must have shape \(1, 4, 8, 10\)"),
    "out read-only": (lambda: norm_act(GOOD, out=read_only), "out is read-only"),
    "out dtype": (lambda: norm_act(GOOD, out=np.zeros_like(GOOD, np.uint8)), "must share a dtype"),
    "needs grad": (lambda: norm_act(torch.zeros(1, 4, 6, 8, requires_grad=True)), "x cannot be shared: .*detach"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_named(name: str) -> None:
    call, text = REFUSED[name]
    with pytest.raises(ValueError, match=text) as caught:
        call()
    assert str(caught.value).startswith("norm_act: ")
    assert "\n" not in str(caught.value)


def test_overlapping_memory_is_refused() -> None:
    flat = np.zeros(1000, np.float32)
    x, out = flat[:384].reshape(1, 4, 8, 12), flat[100:484].reshape(1, 4, 8, 12)
    with pytest.raises(ValueError, match="out and x overlap"):
        norm_act(x, out=out)
    with pytest.raises(ValueError, match="out and residual overlap"):
        norm_act(np.zeros_like(x), residual=x, out=out)


@pytest.mark.parametrize("shape", [(1, 2**31, 1, 1), (2**20, 2**20, 2**20, 1), (1, 1, 2**40, 2**40)])
def test_a_hostile_shape_is_refused_before_it_is_multiplied(shape: tuple[int, ...]) -> None:
    x = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1, 1, 1), (0, 0, 0, 0))

    class Hostile:
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": shape,
            "typestr": "<f4",
            "data": (x.ctypes.data, False),
            "version": 3,
        }

    with pytest.raises((ValueError, DeviceUnavailable), match=r"no shape memory can have|too large|CUDA says"):
        norm_act(Hostile())


def test_the_real_memory_of_a_broadcast_view_is_never_exceeded() -> None:
    x = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 64, 1 << 15, 1 << 15), (0, 0, 0, 0))
    with pytest.raises(ValueError, match="contiguous"):
        norm_act(x)


class FakeCuda:
    """An array that says it lies on a GPU."""

    def __init__(self, array: NDArray) -> None:
        self.__cuda_array_interface__ = array.__array_interface__ | {"version": 3}


@pytest.mark.skipif(_core.cuda_built(), reason="this build has CUDA")
def test_cuda_arrays_without_cuda_name_the_cause() -> None:
    with pytest.raises(DeviceUnavailable, match="GANTRT_CUDA=ON"):
        norm_act(FakeCuda(GOOD), out=FakeCuda(np.empty_like(GOOD)))
    with pytest.raises(ValueError, match="give one as out="):
        norm_act(FakeCuda(GOOD))


@pytest.mark.skipif(not _core.cuda_built() or has_cuda_device(), reason="needs the CUDA kernels, and no GPU")
def test_cuda_arrays_without_a_gpu_name_the_cause() -> None:
    with pytest.raises(DeviceUnavailable, match="CUDA says"):
        norm_act(FakeCuda(GOOD), out=FakeCuda(np.empty_like(GOOD)))


def test_build_facts() -> None:
    assert _core.cuda_built() == bool(_core.cuda_architectures())
    assert all(70 <= architecture < 200 for architecture in _core.cuda_architectures())
    assert set(_core.cpu_features()) <= {"avx2", "avx512"}
    assert _core.default_threads() == len(os.sched_getaffinity(0))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("mode", ["auto", "cluster", "cooperative", "two_kernels"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_cuda_agrees_with_float64(case: Case, layout: str, dtype: str, mode: str) -> None:
    if dtype == "float16" and case.kind in {"huge", "tiny"}:
        pytest.skip("float16 cannot hold these values")
    x, arguments = inputs_of(case)

    def on_gpu(array: NDArray, kind: torch.dtype) -> torch.Tensor:
        tensor = torch.from_numpy(array).to("cuda", kind)
        return tensor.permute(0, 2, 3, 1).contiguous() if layout == "nhwc" and array.ndim == 4 else tensor

    kind = getattr(torch, dtype)
    given = {key: on_gpu(v, torch.float32) if isinstance(v, np.ndarray) else v for key, v in arguments.items()}
    device_x = on_gpu(x, kind)
    if arguments["residual"] is not None:
        given["residual"] = on_gpu(arguments["residual"], kind)
        arguments["residual"] = torch.from_numpy(arguments["residual"]).to(kind).double().numpy()
    expected = reference.norm_act(torch.from_numpy(x).to(kind).double().numpy(), **arguments)
    try:
        y = norm_act(device_x, layout=layout, mode=mode, **given)
    except ValueError as refusal:
        assert mode in {"cluster", "cooperative"}
        pytest.skip(str(refusal))
    for _ in range(100):
        assert torch.equal(y, norm_act(device_x, layout=layout, mode=mode, **given))
    y = y.permute(0, 3, 1, 2) if layout == "nhwc" else y
    assert relative_error(y.double().cpu().numpy(), expected) <= TOLERANCE[dtype]
