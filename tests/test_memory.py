"""When memory runs out: smaller batches, said once; else one error that says what would take less."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import av
import cv2
import gantrt
import numpy as np
import pytest
import torch
from clips import write_clip
from gantrt.cli import main
from gantrt.errors import OutOfMemory
from gantrt.memory import is_out_of_memory
from gantrt.video import files
from tiny_networks import write_generator, write_pointwise

FRAMES = [np.random.default_rng(seed).integers(0, 256, (16, 24, 3), np.uint8) for seed in range(7)]


def no_memory(kind: str) -> Exception:
    if kind == "numpy":
        return np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(np.float32))
    made: dict[str, Exception] = {
        "python": MemoryError(),
        "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        "openvino": RuntimeError("Exception from src/core: Can not allocate 123 bytes"),
        "onnxruntime": RuntimeError("[ONNXRuntimeError] : 1 : FAIL : bad allocation std::bad_alloc"),
        "cuda": gantrt.GantrtError("cuda: cuMemAlloc_v2: out of memory (2)"),
        "opencv": cv2.error("OpenCV(5.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 4 bytes"),
    }
    return made[kind]


KINDS = ["python", "numpy", "torch", "openvino", "onnxruntime", "cuda", "opencv"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_library_is_understood(kind: str) -> None:
    assert is_out_of_memory(no_memory(kind))


@pytest.mark.parametrize("error", [ValueError("batch of 3"), RuntimeError("memory layout"), OSError(28, "No space")])
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def short_of_memory(translator: Any, monkeypatch: pytest.MonkeyPatch, most: int, kind: str) -> list[int]:
    """From now on the engine of `translator` has room for `most` pictures. Returns the sizes it was asked for."""
    asked, run = [], translator.engine.run

    def cramped(x: Any, y: Any, stream: int | None = None) -> None:
        asked.append(len(x))
        if len(x) > most:
            raise no_memory(kind)
        run(x, y, stream)

    monkeypatch.setattr(translator.engine, "run", cramped)
    return asked


@pytest.mark.parametrize("kind", ["python", "torch"])
def test_batches_get_smaller_and_the_frames_stay_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_generator(tmp_path / "g.onnx", batch=4)
    with gantrt.load(path, device="cpu", cache_dir="", precision="fp32") as translator:
        whole = translator.translate(FRAMES)
        asked = short_of_memory(translator, monkeypatch, 1, kind)
        with caplog.at_level(logging.WARNING, "gantrt"):
            again, later = translator.translate(FRAMES), translator.translate(FRAMES)
    assert asked == [4, 2, *[1] * 16]
    for results in (again, later):
        for one, other in zip(results, whole, strict=True):
            np.testing.assert_allclose(one.astype(int), other, atol=1)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{path}: no memory for 4 pictures at once; 2 from now on",
        f"{path}: no memory for 2 pictures at once; 1 from now on",
    ]


def test_an_engine_of_one_batch_size_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_generator(tmp_path / "g.onnx", batch=4)
    with gantrt.load(path, device="cpu", cache_dir="", runtime="onnxruntime") as translator:
        short_of_memory(translator, monkeypatch, 1, "onnxruntime")
        with pytest.raises(OutOfMemory, match="4 pictures of 16x24; export it with a smaller --batch"):
            translator.translate(FRAMES)


def test_a_picture_too_large_for_memory_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_pointwise(tmp_path / "e.onnx", dynamic=True)
    (tmp_path / "in").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), np.zeros((8, 64 if index == 1 else 8, 3), np.uint8))
    from gantrt.engines.openvino import OpenVINOEngine

    run = OpenVINOEngine.run

    def cramped(self: Any, x: Any, y: Any, stream: int | None = None) -> None:
        if x.shape[3] > 32:
            raise MemoryError
        run(self, x, y, stream)

    monkeypatch.setattr(OpenVINOEngine, "run", cramped)
    args = [
        "translate",
        "--engine",
        engine,
        tmp_path / "in",
        "-o",
        tmp_path / "out",
        "--no-progress",
        "--device",
        "cpu",
    ]
    assert main(list(map(str, args))) == 5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png"]
    assert "no memory to run a picture of 8x64; try --fit tile" in capsys.readouterr().err


def test_no_memory_to_decode_is_no_damage_of_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_left(self: Any, packet: Any) -> Any:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    engine, clip = write_pointwise(tmp_path / "e.onnx"), write_clip(tmp_path / "in.mp4")
    monkeypatch.setattr(files.VideoFile, "_packets", lambda self: (_ for _ in [0]).throw(none_left(self, None)))
    assert main(["translate", "--engine", str(engine), str(clip), "-o", str(tmp_path / "o.mp4"), "-q"]) == 1
    assert "in.mp4: no memory for it" in capsys.readouterr().err
    assert not (tmp_path / "o.mp4").exists()
