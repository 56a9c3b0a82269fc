"""A GPU that fails or disappears is one error, the first one, and nothing waits for it or dies of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gantrt
import gantrt.frame_pipelines
import numpy as np
import pytest
from clips import write_clip
from gantrt.cli import main
from gantrt.errors import DeviceUnavailable, GantrtError, OutOfMemory
from gantrt.frame_pipelines import FramePipelines, Network
from gantrt.plans import driver
from tiny_networks import write_pointwise

FRAME = np.zeros((4, 4, 3), np.uint8)
GONE = "frame_pipeline: CUDA says CUDA-capable device(s) is/are busy or unavailable"
NO_MEMORY = "frame_pipeline: CUDA says out of memory"


class Driver:
    """libcuda, until the GPU is gone: from then on every call returns the same error."""

    def __init__(self) -> None:
        self.sticky, self.calls = 0, list[str]()

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> int:
            self.calls.append(name)
            return self.sticky

        return call

    def cuGetErrorString(self, status: int, text: Any) -> int:
        text._obj.value = {2: b"out of memory", 719: b"unspecified launch failure"}[status]
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(driver, "_open", lambda: (made, ""))
    return made


def test_a_failed_call_is_told_once_and_everything_is_let_go(library: Driver) -> None:
    def work() -> None:
        with driver.on_device(0):
            stream, buffer = driver.Stream(), driver.Buffer(16)
            library.sticky = 719
            try:
                stream.synchronize()
            finally:
                buffer.close()
                stream.close()

    with pytest.raises(DeviceUnavailable, match=r"cuda: cuStreamSynchronize: unspecified launch failure \(719\)"):
        work()
    assert library.calls[-4:] == [
        "cuMemFree_v2", "cuStreamDestroy_v2", "cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2",
    ]  # fmt: skip


def test_no_memory_on_a_gpu_is_told_as_such(library: Driver) -> None:
    library.sticky = 2
    with pytest.raises(OutOfMemory, match=r"cuMemAlloc_v2: out of memory \(2\); try a smaller --size"):
        driver.Buffer(1 << 40)


class Lost:
    """FramePipeline on a GPU that is gone after some frames; `at` says at which of its calls that shows."""

    graph_active, why_no_graph = True, ""

    def __init__(self, at: str, frames: int, says: str) -> None:
        self._at, self._left, self._says = at, frames, says

    def submit(self, frame: Any) -> Any:
        self._fail("submit")
        return frame

    def result(self, ticket: Any, out: Any) -> Any:
        self._left -= 1
        self._fail("result")
        out[...] = ticket
        return out

    def _fail(self, at: str) -> None:
        if at == self._at and self._left < 0:
            raise RuntimeError(self._says)


def lost(monkeypatch: pytest.MonkeyPatch, at: str, frames: int = -1, says: str = GONE) -> FramePipelines:
    monkeypatch.setattr(gantrt.frame_pipelines, "FramePipeline", lambda *_, **__: Lost(at, frames, says))
    network = Network(lambda slots, size: lambda *_: None, lambda h, w: (h, w), (3, 3), "float32", "float32")
    return FramePipelines(network)


@pytest.mark.parametrize("at", ["submit", "result"])
@pytest.mark.parametrize(("says", "kind"), [(GONE, DeviceUnavailable), (NO_MEMORY, OutOfMemory)])
def test_what_cuda_says_is_an_error_of_ours(
    at: str, says: str, kind: type[GantrtError], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind, match="CUDA says"):
        lost(monkeypatch, at, says=says)(FRAME)


@pytest.mark.parametrize("at", ["submit", "result"])
def test_translating_ends_with_4_one_line_and_no_half_file(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gantrt.engines.openvino import OpenVINOEngine

    pipelines = lost(monkeypatch, at, frames=5)
    monkeypatch.setattr(OpenVINOEngine, "frames", lambda *_: pipelines, raising=False)
    engine, clip = write_pointwise(tmp_path / "e.onnx"), write_clip(tmp_path / "in.mp4")
    for output in ("out.mp4", "frames/"):
        args = ["translate", "--engine", str(engine), str(clip), "-o", f"{tmp_path}/{output}", "-q", "--device", "cpu"]
        assert main(args) == 4
        assert capsys.readouterr().err == (
            f"gantrt: {GONE}; the GPU failed or is gone, see nvidia-smi; what runs on it must start anew\n"
        )
    assert not (tmp_path / "out.mp4").exists()
    assert not list(tmp_path.glob(".*"))
