"""Running plans: each reason why one cannot run here has its line, its exit code, and the command that mends it."""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import gantrt
import numpy as np
import pytest
import torch
from gantrt import _core, frame_pipelines
from gantrt.cli import main
from gantrt.engines import Options, load_engine, open_engine
from gantrt.errors import DeviceUnavailable, EngineCorrupt, EngineMismatch, GantrtError, UsageError
from gantrt.manifest import InputSpec, Manifest
from gantrt.plan_file import UNSEALED
from gantrt.plans import driver
from gantrt.plans import engine as running
from gantrt.plans.targets import TENSORRT, TENSORRT_RTX
from test_plan_file import write_plan

GPU = Options("cuda")
MANIFEST = Manifest(
    family="tiny",
    input=InputSpec(3, 16, 24),
    norm_mode="none",
    made_by={"gantrt": "0.1.0"},
    target={
        "runtime": "tensorrt-rtx",
        "version": "1.7.1.116",
        "compute_capability": "8.9",
        "source": "tiny.onnx",
        "crc32": UNSEALED,
    },
)
PLUGIN = ({"name": "gantrt::NormAct", "version": "1"},)
REBUILD = "gantrt export tiny.onnx -o {path} --overwrite --target tensorrt-rtx --compute-capability "


@pytest.fixture
def rtx() -> Any:
    library = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")
    if library.__version__ != "1.7.1.116":
        pytest.skip("the plans of these tests name TensorRT-RTX 1.7.1.116")
    return library


@pytest.fixture
def with_gpu(monkeypatch) -> None:
    """As if an RTX 4090 were here, as far as the checks go."""
    monkeypatch.setattr(driver, "missing", lambda: "")
    monkeypatch.setattr(driver, "capability", lambda index=0: 89)
    monkeypatch.setattr(driver, "name", lambda index=0: "NVIDIA GeForce RTX 4090")
    monkeypatch.setattr(driver, "on_device", lambda index: contextlib.nullcontext())


@pytest.fixture
def without_gpu(monkeypatch) -> None:
    monkeypatch.setattr(driver, "_open", lambda: (None, "no NVIDIA driver"))


def test_without_a_gpu_it_says_so_and_names_the_onnx(rtx, without_gpu, tmp_path, capsys) -> None:
    path = write_plan(tmp_path / "tiny.plan", MANIFEST)
    cv2.imwrite(str(tmp_path / "in.png"), np.zeros((16, 24, 3), np.uint8))
    for device in ("auto", "cuda"):
        words = ["--engine", str(path), "--device", device, str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]
        assert main(["translate", *words]) == 4
        assert capsys.readouterr().err == (
            f"gantrt: {path}: needs an NVIDIA GPU of compute capability 8.9, and there is none here "
            "(no NVIDIA driver); translate with the .onnx it was built from, tiny.onnx\n"
        )
    with pytest.raises(DeviceUnavailable, match="NVIDIA GPU only"):
        open_engine(path, Options("cpu"))


@pytest.mark.parametrize(
    ("changes", "target", "text"),
    [
        ({}, {"compute_capability": "7.5,8.6"}, "compute capability 7.5,8.6, and NVIDIA GeForce RTX 4090 has 8.9"),
        ({}, {"version": "1.6.0.1"}, "built by tensorrt-rtx 1.6.0.1, and here is 1.7.1.116"),
        ({"plugins": ({"name": "gantrt::NormAct", "version": "2"},)}, {}, "the plugin gantrt::NormAct 2"),
    ],
)
def test_a_plan_for_another_gpu_or_version_names_both_and_the_command(
    rtx, with_gpu, tmp_path, capsys, changes, target, text
) -> None:
    manifest = replace(MANIFEST, target=MANIFEST.target | target, **changes)
    path = write_plan(tmp_path / "tiny.plan", manifest)
    with pytest.raises(EngineMismatch) as caught:
        open_engine(path, GPU)
    assert text in str(caught.value)
    assert REBUILD.format(path=path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if "compute_capability" in target:
        assert str(caught.value).endswith("--compute-capability 8.9")


def as_on_an_h100(monkeypatch) -> None:
    monkeypatch.setattr(driver, "capability", lambda index=0: 90)
    monkeypatch.setattr(driver, "name", lambda index=0: "NVIDIA H100 80GB HBM3")


@pytest.mark.parametrize("changes", [{}, {"version": "1.6.0.1"}, {"options": "--no-plugins"}])
def test_on_a_gpu_tensorrt_rtx_does_not_know_the_command_is_one_for_tensorrt(
    rtx, with_gpu, tmp_path, monkeypatch, changes
) -> None:
    as_on_an_h100(monkeypatch)
    path = write_plan(
        tmp_path / "tiny.plan", replace(MANIFEST, target=MANIFEST.target | {"compute_capability": "8.0"} | changes)
    )
    with pytest.raises(EngineMismatch) as caught:
        open_engine(path, GPU)
    options = " --no-plugins" if "options" in changes else ""
    assert str(caught.value) == (
        f"{path}: built for compute capability 8.0, and NVIDIA H100 80GB HBM3 has 9.0, which tensorrt-rtx 1.7.1.116 "
        "neither builds nor runs anything for; rebuild it for TensorRT (pip install 'gantrt[tensorrt]'): "
        f"gantrt export tiny.onnx -o {path} --overwrite --target tensorrt{options}"
    )


def test_for_a_gpu_tensorrt_rtx_does_not_know_nothing_is_built_and_tensorrt_named(
    rtx, with_gpu, tmp_path, monkeypatch, capsys
) -> None:
    as_on_an_h100(monkeypatch)
    (tmp_path / "tiny.onnx").write_bytes(b"not read before the GPU is known")
    for words in ([], ["--compute-capability", "9.0"]):
        plan = tmp_path / "tiny.plan"
        assert main(["export", str(tmp_path / "tiny.onnx"), "-o", str(plan), "--target", "tensorrt-rtx", *words]) == 2
        assert capsys.readouterr().err == (
            "gantrt: tensorrt-rtx 1.7.1.116 builds nothing for compute capability 9.0; it knows "
            "7.5, 8.0, 8.6, 8.9, 12.0, 12.1; on such a GPU give --target tensorrt\n"
        )
        assert not plan.exists()


@pytest.mark.skipif(_core.cuda_built(), reason="this build has the CUDA kernels")
def test_a_plan_with_plugins_needs_the_cuda_kernels(rtx, with_gpu, tmp_path) -> None:
    path = write_plan(tmp_path / "tiny.plan", replace(MANIFEST, plugins=PLUGIN))
    with pytest.raises(DeviceUnavailable, match=r"GANTRT_CUDA=ON.*--no-plugins$"):
        open_engine(path, GPU)


def test_a_plan_tensorrt_cannot_read_is_corrupt_and_its_reason_told(rtx, with_gpu, tmp_path) -> None:
    path = tmp_path / "foreign.plan"
    path.write_bytes(b"vtrt" + bytes(range(256)) * 8)
    if not TENSORRT.missing():
        pytest.skip("another TensorRT is here, which is asked first")
    with pytest.raises(EngineCorrupt, match=r"tensorrt-rtx 1\.7\.1\.116 cannot read it: .+"):
        open_engine(path, replace(GPU, trust=True))


def test_a_plan_goes_to_the_runtime_that_built_it(with_gpu, tmp_path) -> None:
    path = write_plan(tmp_path / "tiny.plan", replace(MANIFEST, target=MANIFEST.target | {"runtime": "tensorrt"}))
    with pytest.raises(EngineMismatch, match="was built by tensorrt; tensorrt_rtx cannot run it"):
        open_engine(path, GPU, "tensorrt_rtx")
    with pytest.raises(EngineMismatch, match="runs on TensorRT, not on openvino"):
        open_engine(path, Options("cpu"), "openvino")
    if TENSORRT.missing():
        with pytest.raises(DeviceUnavailable, match=r"pip install 'gantrt\[tensorrt\]'"):
            open_engine(path, GPU)


def test_a_plan_computes_only_as_it_was_built(rtx, with_gpu, tmp_path) -> None:
    path = write_plan(tmp_path / "tiny.plan", MANIFEST)
    with pytest.raises(UsageError, match="as it was built, in fp32"):
        open_engine(path, Options("cuda", precision="fp16"))


# The calls of a run, against a TensorRT of paper: an engine that makes negatives


class PaperEngine:
    """y = -x, by addresses, in host memory."""

    num_io_tensors = 2
    contexts = 0
    ports = ("input", "output")

    def get_tensor_name(self, index: int) -> str:
        return self.ports[index]

    def get_tensor_mode(self, name: str) -> str:
        return name

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (1, 3, 16, 24)

    def create_execution_context(self) -> Any:
        type(self).contexts += 1
        return PaperContext()


class PaperContext:
    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.count = int(np.prod(shape))
        return shape == (1, 3, 16, 24)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        kind = ctypes.c_float * self.count
        x, y = (np.ctypeslib.as_array(kind.from_address(self.addresses[name])) for name in PaperEngine.ports)
        y[:] = -x
        return True


class PaperBuffer:
    open = 0

    def __init__(self, size: int) -> None:
        self.memory = ctypes.create_string_buffer(size)
        self.address, self.size = ctypes.addressof(self.memory), size
        PaperBuffer.open += 1

    def upload(self, host: int, stream: Any) -> None:
        ctypes.memmove(self.address, host, self.size)

    def download(self, host: int, stream: Any) -> None:
        ctypes.memmove(host, self.address, self.size)

    def close(self) -> None:
        PaperBuffer.open -= 1


class PaperLogger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, VERBOSE=4)


@pytest.fixture
def paper(with_gpu, monkeypatch) -> Any:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: PaperEngine())
    library = SimpleNamespace(
        __version__="1.7.1.116",
        __name__="paper",
        ILogger=PaperLogger,
        Runtime=lambda logger: runtime,
        TensorIOMode=SimpleNamespace(INPUT="input"),
        nptype=np.dtype,
        **{name: name for name in ("float32", "float16", "bfloat16")},
    )
    monkeypatch.setattr(PaperLogger, "__init__", lambda self: None)
    monkeypatch.setattr(type(TENSORRT_RTX), "load", lambda self: library)
    monkeypatch.setattr(type(TENSORRT_RTX), "missing", lambda self: None)
    monkeypatch.setattr(driver, "Buffer", PaperBuffer)
    stream = SimpleNamespace(handle=7, synchronize=lambda: None, close=lambda: None)
    monkeypatch.setattr(driver, "Stream", lambda: stream)
    return library


def test_a_run_copies_in_runs_and_copies_out_and_keeps_its_context(paper, tmp_path) -> None:
    PaperEngine.contexts = PaperBuffer.open = 0
    engine = open_engine(write_plan(tmp_path / "tiny.plan", MANIFEST), GPU)
    assert (engine.name, engine.device, engine.precision) == ("tensorrt-rtx", "cuda", "fp32")
    assert engine.fit(100, 100) == (16, 24)
    random = np.random.default_rng(0)
    for _ in range(3):
        x, y = random.normal(size=(2, 1, 3, 16, 24)).astype(np.float32)
        engine.run(x, y)
        np.testing.assert_array_equal(y, -x)
    assert PaperEngine.contexts == 1
    with pytest.raises(EngineMismatch, match="does not take 1x3x8x8"):
        engine.run(np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 3, 8, 8), np.float32))
    engine.run(x, y)
    assert PaperEngine.contexts == 2  # the one that failed is not used again
    engine.close()


def test_device_arrays_are_bound_as_they_are(paper, tmp_path) -> None:
    engine = open_engine(write_plan(tmp_path / "tiny.plan", MANIFEST), GPU)
    x, y = np.ones((2, 1, 3, 16, 24), np.float32)
    on_gpu = [SimpleNamespace(shape=a.shape, __cuda_array_interface__={"data": (a.ctypes.data, False)}) for a in (x, y)]
    engine.run(*on_gpu, stream=5)
    np.testing.assert_array_equal(y, -x)


def test_of_another_programs_plan_the_size_is_learned(paper, tmp_path) -> None:
    path = tmp_path / "foreign.plan"
    path.write_bytes(b"vtrt" + bytes(200))
    engine = open_engine(path, replace(GPU, trust=True), "tensorrt_rtx", value_range=(0.0, 1.0))
    assert engine.manifest.input == InputSpec(3, 16, 24)
    assert engine.manifest.range == (0.0, 1.0)


@pytest.mark.parametrize("made_by", [None, {}, {"somebody": "1.0"}])
def test_a_plan_of_another_maker_is_refused_unless_trusted(paper, made_by, tmp_path, capsys, monkeypatch) -> None:
    """A plan is a program: who has one of trtexec says once that it is meant."""
    monkeypatch.setattr(_core, "cuda_built", lambda: False)  # frames through the host: this GPU is on paper
    path = tmp_path / "foreign.plan"
    if made_by is None:
        path.write_bytes(b"vtrt" + bytes(200))
    else:
        write_plan(path, replace(MANIFEST, made_by=made_by))
    cv2.imwrite(str(tmp_path / "in.png"), np.zeros((16, 24, 3), np.uint8))
    words = ["translate", "--engine", str(path), str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]
    with pytest.raises(EngineMismatch, match="gantrt did not make it"):
        gantrt.load(path, device="cuda", runtime="tensorrt_rtx")
    assert main(words) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gantrt: {path}: ")
    assert "a plan is a program" in line
    assert "--trust (in Python trust=True)" in line
    assert main([*words, "--trust", "--runtime", "tensorrt_rtx"]) == 0
    with gantrt.load(path, device="cuda", runtime="tensorrt_rtx", trust=True) as translator:
        assert translator.info.runtime == "tensorrt-rtx"


def test_both_engines_say_what_they_are() -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        module = load_engine(name)
        assert (module.SUFFIXES, module.DEVICES) == ((".plan",), ("cuda",))
        assert module.missing() is None or "pip install" in module.missing()


def test_a_plan_of_several_sizes_takes_the_one_a_frame_fits(paper, monkeypatch, tmp_path) -> None:
    chosen: list[int] = []

    def any_shape(self: PaperContext, name: str, shape: tuple[int, ...]) -> bool:
        self.count = int(np.prod(shape))
        return True

    switch = lambda self, profile, stream: chosen.append(profile)  # noqa: E731
    monkeypatch.setattr(PaperContext, "set_optimization_profile_async", switch, raising=False)
    monkeypatch.setattr(PaperContext, "set_input_shape", any_shape)
    target = MANIFEST.target | {"sizes": "16x24,64x64,32x32"}
    manifest = replace(MANIFEST, target=target, input=InputSpec(3, 16, 24, 1, True))
    path = write_plan(tmp_path / "tiny.plan", manifest)
    engine = open_engine(path, GPU)
    assert [engine.fit(*size) for size in ((10, 10), (17, 20), (33, 20), (500, 500))] == [
        (16, 24),
        (32, 32),
        (64, 64),
        (64, 64),
    ]
    for _ in range(2):
        for size in ((16, 24), (32, 32), (64, 64)):
            x, y = np.random.default_rng(0).normal(size=(2, 1, 3, *size)).astype(np.float32)
            engine.run(x, y)
            np.testing.assert_array_equal(y, -x)
    assert chosen == [2, 1]  # once for each context but the first profile's
    with pytest.raises(UsageError, match="this plan is for 16x24, 64x64, 32x32, not 8x8"):
        open_engine(path, Options("cuda", size=(8, 8)))


class HostPipeline:
    """FramePipeline, on the CPU and at once."""

    graph_active, why_no_graph = True, ""

    def __init__(self, enqueue: Any, **options: Any) -> None:
        self.enqueue, self.options, self.made = enqueue, options, dict[int, Any]()
        assert (options["dtype"], options["output_dtype"], options["layout"]) == ("float32", "float32", "nchw")

    def submit(self, frame: Any) -> int:
        color, size = self.options["color"], self.options["input"]
        x = _core.frame_to_tensor(frame, size=size[1:], channels=size[0], color=color, range=self.options["range"])
        y = np.empty((1, *self.options["output"]), np.float32)
        self.enqueue(0, x.ctypes.data, y.ctypes.data, 7)
        height, width, _ = self.options["result"]
        self.made[id(y)] = _core.tensor_to_frame(y, size=(height, width), color=color, range=self.options["range"])
        return id(y)

    def result(self, ticket: int, out: Any) -> Any:
        out[...] = self.made.pop(ticket)
        return out


@pytest.fixture
def piped(paper, monkeypatch) -> None:
    monkeypatch.setattr(_core, "cuda_built", lambda: True)
    monkeypatch.setattr(frame_pipelines, "FramePipeline", HostPipeline)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_whole_frames_go_through_a_pipeline_around_the_plan(piped, tmp_path, color) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    with gantrt.load(write_plan(tmp_path / "tiny.plan", MANIFEST), device="cuda", color=color, streams=2) as t:
        contexts = PaperEngine.contexts
        for given in (frame, frame[::-1], frame[..., ::-1], torch.from_numpy(frame)):
            made = np.asarray(t(given))
            np.testing.assert_allclose(made.astype(int), 255 - np.asarray(given).astype(int), atol=1)
        assert [np.array_equal(y, t(frame)) for y in t.translate([frame] * 3)] == [True] * 3
        assert PaperEngine.contexts == contexts + 2  # one for each slot, made once
        out = np.empty_like(frame)
        assert t(frame, out=out) is out
        assert t.stats().frames == 11
    with pytest.raises(GantrtError, match="it is closed"):
        t(frame)


def test_a_plan_that_makes_no_numbers_is_refused_when_it_is_loaded(paper, monkeypatch, tmp_path) -> None:
    def spoil(self: PaperContext, stream: int) -> bool:
        values = (ctypes.c_float * self.count).from_address(self.addresses["output"])
        values[:] = [float("nan")] * self.count
        return True

    monkeypatch.setattr(PaperContext, "execute_async_v3", spoil)
    with pytest.raises(EngineCorrupt, match="makes no numbers of a plain picture"):
        open_engine(write_plan(tmp_path / "tiny.plan", MANIFEST), GPU)


def test_a_plan_that_makes_one_value_is_said_to(paper, monkeypatch, tmp_path, caplog) -> None:
    def flatten(self: PaperContext, stream: int) -> bool:
        ctypes.memset(self.addresses["output"], 0, 4 * self.count)
        return True

    monkeypatch.setattr(PaperContext, "execute_async_v3", flatten)
    open_engine(write_plan(tmp_path / "tiny.plan", MANIFEST), GPU)
    assert "makes a picture of one value" in caplog.text


@pytest.mark.needs_cuda
@pytest.mark.parametrize("plugins", [False, True])
def test_a_plan_makes_the_pictures_of_its_engine(rtx, tmp_path: Path, plugins: bool) -> None:
    """On a GPU: build for it, run, compare with ONNX Runtime."""
    from gantrt.plans.build import Request, build_plan
    from plan_networks import write_tiny

    onnx = write_tiny(tmp_path / "tiny.onnx")
    build_plan(onnx, tmp_path / "tiny.plan", Request("tensorrt-rtx", plugins=plugins, progress=False))
    x = np.random.default_rng(0).normal(size=(1, 3, 16, 24)).astype(np.float32)
    made, wanted = np.empty_like(x), np.empty_like(x)
    with contextlib.closing(open_engine(tmp_path / "tiny.plan", GPU)) as engine:
        assert isinstance(engine, running.PlanEngine)
        engine.run(x, made)
    open_engine(onnx, Options("cpu"), "onnxruntime").run(x, wanted)
    np.testing.assert_allclose(made, wanted, atol=2e-4)
