"""Windows, virtual cameras and screens: found by name, honest where they are not here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import clips
import numpy as np
import pytest
from clips import write_clip
from gantrt.errors import DeviceUnavailable, UsageError
from gantrt.video import SinkClosed, open_sink, open_source, schemes
from tiny_networks import write_pointwise

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A virtual X11 screen of 320x240."""
    if not shutil.which("Xvfb"):
        pytest.skip("needs Xvfb")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "320x240x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as file:
        yield f":{file.readline().strip()}"
    server.terminate()
    server.wait()


def test_every_scheme_says_how_it_is_written_and_is_a_source_or_a_sink() -> None:
    assert {"camera", "rtsp", "screen", "fake", "window", "vcam", "null", "-"} <= set(schemes.modules())
    for module in schemes.modules().values():
        assert hasattr(module, "source") or hasattr(module, "sink")
        assert module.USAGE in schemes.usage("source") + schemes.usage("sink")


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ("camera:0", "source", "camera"),
        ("rtsp://host/x", "source", "url"),
        ("-", "source", "y4m"),
        ("-", "sink", "y4m"),
        ("window:", "sink", "window"),
        ("in.mp4", "source", None),
        ("C:\\clips\\in.mp4", "sink", None),
        ("what:ever.mp4", "source", None),
    ],
)
def test_specs_find_their_module(spec: str, kind: Any, name: str | None) -> None:
    module = schemes.find(spec, kind)
    assert (module.__name__.rpartition(".")[2] if module else None) == name


def test_outputs_nobody_writes_are_usage_errors() -> None:
    for spec in ("what:ever", "camera:0", "rtsp://host/x"):
        with pytest.raises(UsageError, match=r"vcam:, window:"):
            schemes.find(spec, "sink")


def test_without_a_display_there_is_no_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_clip(tmp_path / "in.mp4", (0,))
    for value in ("", ":987"):
        monkeypatch.setenv("DISPLAY", value)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        with open_source(source) as opened, pytest.raises(DeviceUnavailable, match="no display") as caught:
            open_sink("window:", opened)
        assert caught.value.exit_code == 4


class Windows:
    """Stands in for OpenCV's windows."""

    WINDOW_NORMAL, WINDOW_KEEPRATIO, WINDOW_GUI_NORMAL, WND_PROP_VISIBLE, COLOR_RGB2BGR = 0, 0, 16, 4, 4
    error = type("error", (Exception,), {"err": "nothing"})

    def __init__(self, key: int = -1, visible: float = 1.0) -> None:
        self.key, self.visible, self.shown, self.waited = key, visible, [], 0.0
        self.open = False

    def namedWindow(self, title: str, flags: int) -> None:
        self.open = True

    def resizeWindow(self, *_: object) -> None: ...
    def getWindowProperty(self, title: str, what: int) -> float:
        return self.visible

    def imshow(self, title: str, image: np.ndarray) -> None:
        self.shown.append(image)

    def cvtColor(self, image: np.ndarray, code: int) -> np.ndarray:
        return image[..., ::-1]

    def waitKey(self, milliseconds: int) -> int:
        self.waited += milliseconds / 1e3
        time.sleep(milliseconds / 1e3)
        return self.key

    def destroyAllWindows(self) -> None:
        self.open = False


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1.0), (27, 1.0), (-1, 0.0)], ids=["q", "Escape", "closed"])
def test_a_window_ends_when_its_viewer_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: int, visible: float
) -> None:
    from gantrt.video.schemes import window

    monkeypatch.setattr(window, "_display_answers", lambda: True)
    windows = Windows()
    monkeypatch.setitem(sys.modules, "cv2", windows)
    with open_source(write_clip(tmp_path / "in.mp4", range(5))) as source:
        sink = open_sink("window:", source)
        frames = list(source)
        begin = time.perf_counter()
        for frame in frames[:4]:
            sink.write(frame)
        assert 0.1 < time.perf_counter() - begin < 0.6  # at its own speed
        assert len(windows.shown) == 4
        windows.key, windows.visible = key, visible
        with pytest.raises(SinkClosed):
            sink.write(frames[4])
        sink.close(complete=False)
        assert not windows.open


def test_a_screen_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in ("screen:x", "screen:1,0"):
        with pytest.raises(UsageError, match="screen:1,15"):
            open_source(spec)
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(DeviceUnavailable, match=r"pip install 'gantrt\[camera\]'"):
        open_source("screen:")
    monkeypatch.delitem(sys.modules, "mss")
    pytest.importorskip("mss")
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(DeviceUnavailable, match="cannot be grabbed") as caught:
        open_source("screen:")
    assert caught.value.exit_code == 4


def covers(image: np.ndarray, grey: int) -> float:
    """The share of pixels of that grey."""
    return float((np.abs(image.astype(int) - grey).max(axis=2) <= 2).mean())


def test_a_real_window_shows_what_a_screen_grabs(tmp_path: Path, display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in one process, a grab of its screen in this one: two schemes at once."""
    pytest.importorskip("mss")
    write_clip(tmp_path / "in.mp4", range(3), size=(240, 320))
    engine = write_pointwise(tmp_path / "negative.onnx", gain=-1, dynamic=True)
    program = "import sys; from gantrt.cli import main; sys.exit(main())"
    args = ["translate", "--engine", str(engine), "--device", "cpu", "fake:in.mp4", "-o", "window:test"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "python"), "DISPLAY": display}
    command = [sys.executable, "-c", program, *args, "--max-frames", "1000", "-q"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            wanted = {255 - clips.level(index) for index in range(3)}
            seen: set[int] = set()
            monkeypatch.setenv("DISPLAY", display)
            with open_source("screen:1,20") as screen:
                assert (screen.height, screen.width) == (240, 320)
                deadline = time.monotonic() + 40
                for frame in screen:
                    seen |= {value for value in wanted if covers(frame.image, value) > 0.3}
                    if len(seen) > 1 or time.monotonic() > deadline:
                        break
            assert len(seen) > 1, process.poll()
        finally:
            process.terminate()


def test_a_virtual_camera_is_sent_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Camera:
        def __init__(self, width: int, height: int, fps: float, *, device: str | None) -> None:
            self.facts, self.sent, self.closed = (width, height, fps, device), [], False
            made.append(self)

        def send(self, image: np.ndarray) -> None:
            self.sent.append(image)

        def close(self) -> None:
            self.closed = True

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=Camera))
    with open_source(write_clip(tmp_path / "in.mp4", range(4))) as source:
        sink = open_sink("vcam:/dev/video9", source)
        begin = time.perf_counter()
        for frame in source:
            sink.write(frame)
        sink.close()
    assert 0.1 < time.perf_counter() - begin < 0.6
    (camera,) = made
    assert camera.facts == (64, 48, 25.0, "/dev/video9")
    assert [clips.index_of(image) for image in camera.sent] == [0, 1, 2, 3]
    assert camera.closed


def test_no_virtual_camera_comes_with_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("'v4l2loopback' backend: no device")

    with open_source(write_clip(tmp_path / "in.mp4", (0,))) as source:
        monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=refuse))
        monkeypatch.setattr(sys, "platform", "linux")
        with pytest.raises(DeviceUnavailable, match="modprobe v4l2loopback") as caught:
            open_sink("vcam:", source)
        assert caught.value.exit_code == 4
        monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
        with pytest.raises(DeviceUnavailable, match=r"pip install 'gantrt\[camera\]'"):
            open_sink("vcam:", source)
