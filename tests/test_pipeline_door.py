"""FramePipeline's Python door where there is no GPU; tests/test_frame_pipeline.py runs what stands behind it."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import has_cuda_device
from gantrt import DeviceUnavailable, _core
from gil import turns_of_another_thread

SIZES: dict[str, Any] = {"frame": (8, 8, 3), "result": (8, 8, 3), "input": (3, 8, 8), "output": (3, 8, 8)}
TYPES: dict[str, Any] = {"dtype": "float32", "output_dtype": "float32"}


def never(slot: int, x: int, y: int, stream: int) -> None:
    raise AssertionError("there is no GPU to queue anything on")


@pytest.mark.skipif(has_cuda_device(), reason="there is a GPU")
def test_without_a_gpu_it_names_the_cause() -> None:
    with pytest.raises(DeviceUnavailable, match=r"GANTRT_CUDA=ON|CUDA says"):
        _core.FramePipeline(never, **SIZES, **TYPES)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, float16, bfloat16; got 'int8'"),
        ({"layout": "chwn"}, "layout must be one of nchw, nhwc; got 'chwn'"),
        ({"color": "yuv"}, "color must be one of rgb, bgr; got 'yuv'"),
        ({"resize": "cubic"}, "resize must be one of auto, area, bilinear; got 'cubic'"),
    ],
)
def test_unknown_words_are_refused_with_the_known_ones(wrong: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _core.FramePipeline(never, **SIZES, **(TYPES | wrong))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("sides", [(37, 53), (719, 1280)], ids=["one band", "bands"])
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_frames_on_a_gpu_are_those_of_the_cpu_kernels(slots: int, layout: str, sides: tuple[int, int]) -> None:
    import numpy as np
    import torch

    def tensor_at(address: int) -> torch.Tensor:
        shape = (16, 32, 3) if layout == "nhwc" else (3, 16, 32)
        facts = {"shape": shape, "typestr": "<f4", "data": (address, False), "version": 3}
        return torch.as_tensor(type("Memory", (), {"__cuda_array_interface__": facts})(), device="cuda")

    def enqueue(slot: int, x: int, y: int, stream: int) -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
            torch.mul(tensor_at(x), -0.5, out=tensor_at(y)).add_(1.0)

    height, width = sides
    shape = (height, width, 3)
    size = {"frame": shape, "result": shape, "input": (3, 16, 32), "output": (3, 16, 32)}
    pipeline = _core.FramePipeline(enqueue, **size, **TYPES, slots=slots, layout=layout)
    assert pipeline.graph_active, pipeline.why_no_graph
    rng = np.random.default_rng(0)
    for _ in range(10):
        # Rows of a wider picture, and results into rows of one.
        frames = [rng.integers(0, 256, (height, width + 5, 3), np.uint8)[:, 2:-3] for _ in range(slots)]
        tickets = [pipeline.submit(frame) for frame in frames]
        on_gpu = []
        for ticket, frame in zip(tickets, frames, strict=True):
            x = _core.frame_to_tensor(frame, size=(16, 32))
            expected = _core.tensor_to_frame(1 - 0.5 * x, size=sides).astype(int)
            canvas = np.zeros((height, width + 5, 3), np.uint8)
            assert np.abs(pipeline.result(ticket, canvas[:, 2:-3]).astype(int) - expected).max() <= 1
            assert not canvas[:, :2].any()
            assert not canvas[:, -3:].any()
            on_gpu.append((torch.from_numpy(frame).cuda(), expected))
        for frame, expected in on_gpu:
            out = torch.empty_like(frame)
            pipeline.result(pipeline.submit(frame), out)
            assert np.abs(out.cpu().numpy().astype(int) - expected).max() <= 1
    assert all(ms >= 0 for ms in pipeline.time_stages(frames[0]).values())


@pytest.mark.needs_cuda
def test_the_gil_is_free_while_a_frame_is_on_its_way() -> None:
    import numpy as np

    size = {"frame": (2160, 3840, 3), "result": (2160, 3840, 3), "input": (3, 64, 64), "output": (3, 64, 64)}
    pipeline = _core.FramePipeline(lambda slot, x, y, stream: None, **size, **TYPES)
    frame = np.zeros((2160, 3840, 3), np.uint8)
    out = np.empty_like(frame)

    def work() -> None:
        for _ in range(20):
            pipeline.result(pipeline.submit(frame), out)

    assert turns_of_another_thread(work) > 50
