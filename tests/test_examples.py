"""The examples run as they stand, without a screen."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import clips
import numpy as np
import pytest
from clips import write_clip
from tiny_networks import write_pointwise

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
HEADLESS = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "QT_QPA_PLATFORM": "offscreen"}


def run(example: str, *args: str | Path) -> str:
    paths = os.pathsep.join([str(ROOT / "python"), *sys.path])
    environment = os.environ | HEADLESS | {"PYTHONPATH": paths}
    environment.pop("QT_QPA_PLATFORM_PLUGIN_PATH", None)  # opencv-python's own, of another Qt
    command = [sys.executable, EXAMPLES / example, *args]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_pointwise(tmp_path / "negative.onnx", gain=-1, dynamic=True)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", range(12))


def negatives(path: Path) -> list[int]:
    return [clips.index_of(255 - image) for _, image in clips.frames(path)]


def test_opencv_loop(engine: Path, clip: Path, tmp_path: Path) -> None:
    assert "n=12" in run("opencv_loop.py", engine, clip, tmp_path / "out.mp4")
    assert negatives(tmp_path / "out.mp4") == list(range(12))


def test_the_loop_has_six_lines() -> None:
    text = (EXAMPLES / "opencv_loop.py").read_text()
    loop = text.partition("# The six lines.\n")[2].partition("\n\n")[0]
    assert len(loop.splitlines()) == 6


def test_live_camera(engine: Path, clip: Path) -> None:
    said = run("live_camera.py", engine, f"fake:{clip}", "5").splitlines()
    assert [line.partition(":")[0] for line in said] == [f"frame {index}" for index in range(5)]
    assert "64x48" in said[0]


def test_pygame_window(engine: Path, clip: Path) -> None:
    needs("pygame")
    assert "12 frames translated" in run("pygame_window.py", engine, clip, "12")


def test_qt_window(engine: Path, clip: Path) -> None:
    needs("PySide6")
    assert "12 frames shown" in run("qt_window.py", engine, clip)


def test_gstreamer(engine: Path, tmp_path: Path) -> None:
    needs("gi")
    rows = [clips.grey(index, (48, 62)).reshape(48, 186) for index in range(12)]
    padded = [np.pad(row, ((0, 0), (0, 2))) for row in rows]  # to 188 bytes, as GStreamer lays them out
    (tmp_path / "in.rgb").write_bytes(b"".join(picture.tobytes() for picture in padded))
    before = f"filesrc location={tmp_path}/in.rgb ! rawvideoparse format=rgb width=62 height=48 framerate=25/1"
    after = f"videoconvert ! video/x-raw,format=RGB ! filesink location={tmp_path}/out.rgb"
    assert "12 frames" in run("gstreamer.py", engine, f"{before} ! videoconvert", after)
    made = np.frombuffer((tmp_path / "out.rgb").read_bytes(), np.uint8).reshape(12, 48, 188)
    np.testing.assert_array_equal(made[:, :, :186], 255 - np.stack(rows))


def test_ffmpeg_pipe(engine: Path, clip: Path, tmp_path: Path) -> None:
    if not shutil.which("ffmpeg"):
        pytest.skip("needs the ffmpeg command")
    run("ffmpeg_pipe.py", engine, clip, tmp_path / "out.mp4", "64x48", "25")
    assert negatives(tmp_path / "out.mp4") == list(range(12))
