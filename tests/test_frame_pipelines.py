"""Which pipeline a frame gets, without a GPU: FramePipeline is played by one that doubles."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import gantrt.frame_pipelines
import numpy as np
import pytest
import torch
from gantrt.errors import UnsupportedInput
from gantrt.frame_pipelines import FramePipelines, Network

Made = list["Doubling"]


class Doubling:
    """FramePipeline, as far as it is used."""

    graph_active, why_no_graph = True, ""

    def __init__(self, enqueue: Any, **options: Any) -> None:
        self.options, self._frames = options, dict[int, Any]()
        enqueue(0, 1, 2, 3)

    def submit(self, frame: Any) -> int:
        self._frames[len(self._frames)] = frame
        return len(self._frames) - 1

    def result(self, ticket: int, out: Any) -> Any:
        out[...] = self._frames.pop(ticket) * 2
        return out


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(gantrt.frame_pipelines, "FramePipeline", Doubling)
    return []


def pipelines(prepared: list[int], **options: Any) -> FramePipelines:
    def prepare(slots: int, size: tuple[int, int]) -> Any:
        prepared.append(slots)
        return lambda slot, x, y, stream: None

    def halves(height: int, width: int) -> tuple[int, int]:
        return height // 2, width // 2

    return FramePipelines(Network(prepare, halves, (3, 1), "float16", "float16", device=1), **options)


def test_each_size_gets_one_pipeline_and_the_least_recent_goes(prepared: list[int]) -> None:
    frames = pipelines(prepared, slots=3, kept=2)
    small, wide, high = (np.ones(shape, np.uint8) for shape in ((4, 4, 3), (4, 8, 3), (8, 4, 3)))
    for frame in (small, wide, small, high):  # wide is the least recent when high comes
        assert (frames(frame) == 2).all()
    assert prepared == [3, 3, 3]
    gone = weakref.ref(frames.pipeline(small))
    assert len(prepared) == 3
    frames(wide)
    frames(high)
    assert len(prepared) == 5
    assert gone() is None


def test_what_the_pipeline_is_told(prepared: list[int]) -> None:
    frames = pipelines(prepared, color="bgr", resize="bilinear")
    options: dict[str, Any] = frames.pipeline(np.zeros((5, 6, 3), np.uint8)).options  # type: ignore[attr-defined]
    assert options["frame"] == options["result"] == (5, 6, 3)
    assert (options["input"], options["output"]) == ((3, 2, 3), (1, 2, 3))
    told = {key: options[key] for key in ("color", "resize", "device", "slots", "dtype", "layout")}
    wanted = {"color": "bgr", "resize": "bilinear", "device": 1, "slots": 1, "dtype": "float16", "layout": "nchw"}
    assert told == wanted


def test_a_result_is_of_the_frames_kind(prepared: list[int]) -> None:
    frames = pipelines(prepared)
    assert isinstance(frames(torch.ones(4, 4, 3, dtype=torch.uint8)), torch.Tensor)
    out = np.zeros((4, 4, 3), np.uint8)
    assert frames(np.ones((4, 4, 3), np.uint8), out) is out
    with pytest.raises(UnsupportedInput, match=r"must be \(H, W, 3\) or \(H, W, 1\) uint8, got \(4, 4\)"):
        frames(np.zeros((4, 4), np.uint8))


def test_a_refused_capture_is_said_once(
    prepared: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Doubling, "graph_active", False)
    monkeypatch.setattr(Doubling, "why_no_graph", "the network waits")
    frames = pipelines(prepared)
    with caplog.at_level(logging.WARNING, "gantrt"):
        for _ in range(3):
            frames(np.zeros((4, 4, 3), np.uint8))
    assert [record.getMessage() for record in caplog.records] == [
        "frames of 4x4 run without a CUDA graph: the network waits"
    ]
