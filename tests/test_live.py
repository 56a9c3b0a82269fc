"""Live sources: always the newest frame, no growing delay, found again when lost, and ended at once."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import clips
import gantrt
import numpy as np
import pytest
from clips import write_clip
from gantrt.cli import main
from gantrt.errors import DeviceUnavailable, GantrtError, UnsupportedInput, UsageError
from gantrt.streaming import Item, translated
from gantrt.timing import Summary
from gantrt.video import First, Frame, open_source
from gantrt.video.live import Image, Newest
from gantrt.video.pace import Pacer
from gantrt.video.schemes.camera import Camera
from gantrt.video.schemes.url import without_password

ROOT = Path(__file__).resolve().parent.parent


class Counting:
    """A Device: picture number n is grey n; `period` seconds apart, and lost after `lost_after` pictures."""

    opened = 0

    def __init__(self, period: float = 0.01, lost_after: int | None = None, size: tuple[int, int] = (8, 8)) -> None:
        self.height, self.width = size
        self.rate = Fraction(1) / Fraction(period).limit_denominator(1000)
        self._period, self._lost_after, self._count = period, lost_after, 0
        self.closed = False

    def read(self, closing: threading.Event) -> Callable[[], Image]:
        closing.wait(self._period)
        if self._lost_after is not None and self._count >= self._lost_after:
            raise GantrtError("unplugged")
        value = self._count % 256
        self._count += 1
        return lambda: np.full((self.height, self.width, 3), value, np.uint8)

    def close(self) -> None:
        self.closed = True


class Slow:
    """Stands in for a Translator of one stream that takes `seconds` a frame."""

    def __init__(self, seconds: float) -> None:
        self.info = SimpleNamespace(streams=1, color="rgb", manifest=SimpleNamespace(batch=1))
        self._seconds, self._workers = seconds, ThreadPoolExecutor(1)

    def submit(self, frame: np.ndarray) -> Future[np.ndarray]:
        return self._workers.submit(self._translate, frame)

    def stream(self, source: Any, **options: Any) -> Iterator[Item]:
        return translated(self, source, **options)  # type: ignore[arg-type]

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(frames=1, total=Summary.of([1.0]), engine=Summary.of([1.0]))

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _translate(self, frame: np.ndarray) -> np.ndarray:
        time.sleep(self._seconds)
        return frame.copy()


@pytest.fixture(autouse=True)
def _nothing_stays_running() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 2
    while left := [t.name for t in threading.enumerate() if t.name in ("gantrt-reader", "gantrt-capture")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def test_an_overloaded_network_drops_input_and_never_delays_output() -> None:
    source = Newest("test", lambda: Counting(period=0.005))
    ages, values = [], []
    for item in translated(Slow(0.05), First(source, 20)):  # type: ignore[arg-type]
        assert item.captured is not None
        ages.append(time.perf_counter() - item.captured)
        values.append(int(item.image[0, 0, 0]))
    # One translation and the wait for the next picture: were there a queue, ages would grow to 20 x 45 ms.
    assert sorted(ages)[-2] < 0.25
    assert np.mean(ages[10:]) < 2 * np.mean(ages[:10])
    assert source.dropped > 100
    steps = np.diff(values)
    assert (steps > 0).all()
    assert np.median(steps) >= 5


def test_a_slow_output_drops_input_too() -> None:
    source = Newest("test", lambda: Counting(period=0.005))
    ages = []
    for item in translated(Slow(0.001), First(source, 12)):  # type: ignore[arg-type]
        time.sleep(0.05)  # what shows it
        ages.append(time.perf_counter() - (item.captured or 0))
    assert sorted(ages)[-2] < 0.3  # the frame under way when the last was shown, and showing it
    assert source.dropped > 50


def test_a_fast_network_sees_every_picture() -> None:
    source = Newest("test", lambda: Counting(period=0.02))
    with source:
        values = [int(frame.image[0, 0, 0]) for frame in First(source, 10)]
    assert values == list(range(10))
    assert source.dropped == 0


def test_frames_are_stamped_with_the_time_of_their_arrival() -> None:
    with Newest("test", lambda: Counting(period=0.02)) as source:
        frames = list(First(source, 10))
    assert [frame.index for frame in frames] == list(range(10))
    seconds = [frame.seconds or 0.0 for frame in frames]
    assert seconds[0] == 0
    assert seconds == sorted(set(seconds))
    assert 0.15 < seconds[-1] < 0.6


def test_a_lost_device_is_opened_again_and_the_stream_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    devices: list[Counting] = []

    def open_device() -> Counting:
        if len(devices) == 1 and not missing:
            missing.append(True)
            raise OSError("not there yet")
        devices.append(Counting(lost_after=3, size=(8 + len(devices), 8)))
        return devices[-1]

    missing: list[bool] = []
    with caplog.at_level(logging.DEBUG, "gantrt"), Newest("cam", open_device) as source:
        frames = list(First(source, 7))
    assert [frame.index for frame in frames] == list(range(7))
    assert {frame.image.shape for frame in frames} == {(8, 8, 3)}  # the first one's size
    assert source.reconnected == 2
    assert "cam: lost (unplugged); trying again" in caplog.text
    assert "cam: not yet (not there yet)" in caplog.text
    assert "cam: is back" in caplog.text
    deadline = time.monotonic() + 2
    while not all(device.closed for device in devices):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_waiting_for_a_lost_device_ends_at_once_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Counting] = []

    def open_device() -> Counting:
        if opened:
            raise OSError("gone for good")
        opened.append(Counting(lost_after=1))
        return opened[0]

    source = Newest("cam", open_device)
    stream = translated(Slow(0.0), source)  # type: ignore[arg-type]
    next(stream)
    begin = time.monotonic()
    threading.Timer(0.3, source.interrupt).start()
    assert list(stream) == []
    assert time.monotonic() - begin < 1.0


def test_a_bug_in_a_device_reaches_the_reader() -> None:
    class Broken(Counting):
        def read(self, closing: threading.Event) -> Callable[[], Image]:
            raise RuntimeError("a bug")

    with Newest("test", Broken) as source, pytest.raises(RuntimeError, match="a bug"):
        list(source)


def test_a_clip_plays_as_a_camera_at_its_own_speed_for_ever(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", range(5))
    with open_source(f"fake:{clip}") as source:
        assert (source.width, source.height, source.rate, source.frames) == (64, 48, 25, None)
        begin = time.perf_counter()
        frames = list(First(source, 12))
        took = time.perf_counter() - begin
    assert [clips.index_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4] * 2 + [0, 1]
    assert 11 / 25 <= took < 11 / 25 + 0.4


def test_a_file_that_is_no_clip_is_no_fake_camera(tmp_path: Path) -> None:
    for name in ("missing.mp4", ""):
        with pytest.raises(UnsupportedInput):
            open_source(f"fake:{tmp_path}/{name}")


def test_pacing_keeps_a_clips_times_and_a_live_frame_never_waits() -> None:
    pacer, now = Pacer(), time.perf_counter()
    assert pacer.wait(Frame(np.zeros((1, 1, 3), np.uint8), 0, 100, Fraction(1, 100))) == 0
    assert 0.4 < pacer.wait(Frame(np.zeros((1, 1, 3), np.uint8), 1, 150, Fraction(1, 100))) <= 0.5
    assert pacer.wait(Frame(np.zeros((1, 1, 3), np.uint8), 1, 900, Fraction(1, 100), captured=now)) == 0
    late = Pacer()
    late.wait(Frame(np.zeros((1, 1, 3), np.uint8), 0, 0, Fraction(1)))
    late._zero -= 60  # type: ignore[operator]
    assert late.wait(Frame(np.zeros((1, 1, 3), np.uint8), 1, 1, Fraction(1))) == 0
    assert 0.9 < late.wait(Frame(np.zeros((1, 1, 3), np.uint8), 2, 2, Fraction(1))) <= 1  # it goes on from there


class Broadcast(threading.Thread):
    """A TCP server that sends a clip as MPEG-TS to each who comes, and hangs up at its end, or keeps silent."""

    def __init__(self, clip: bytes, connections: int = 100, silent: bool = False) -> None:
        super().__init__(daemon=True)
        self._clip, self._left, self._silent = clip, connections, silent
        self._server = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"

    def run(self) -> None:
        while self._left:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._left -= 1
            self._held.append(client)
            try:
                client.sendall(self._clip)
            except OSError:
                continue
            if not self._silent:
                client.close()
        self._server.close()

    def close(self) -> None:
        self._left = 0
        for held in (*self._held, self._server):
            held.close()


@pytest.fixture
def transport_stream(tmp_path: Path) -> bytes:
    return write_clip(tmp_path / "clip.ts", range(50), options={"g": "10", "bf": "0"}).read_bytes()


def test_a_network_stream_that_hangs_up_is_connected_again(
    transport_stream: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = Broadcast(transport_stream)
    server.start()
    try:
        with caplog.at_level(logging.INFO, "gantrt"), open_source(server.url) as source:
            assert isinstance(source, Newest)
            begin, frames = time.monotonic(), 0
            for frame in source:
                assert frame.image.shape == (48, 64, 3)
                frames += 1
                if source.reconnected >= 2:
                    break
                assert time.monotonic() - begin < 10
    finally:
        server.close()
    assert frames >= 3
    assert "lost (the stream has ended)" in caplog.text
    assert "is back" in caplog.text


def test_a_network_stream_that_falls_silent_is_given_up_and_connected_again(
    transport_stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gantrt.video.schemes.url._STALL", 0.3)
    server = Broadcast(transport_stream, silent=True)
    server.start()
    try:
        with open_source(server.url) as source:
            assert isinstance(source, Newest)
            begin = time.monotonic()
            for _ in source:
                if source.reconnected:
                    break
                assert time.monotonic() - begin < 10
    finally:
        server.close()


def test_nobody_there_is_said_and_passwords_are_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnsupportedInput, match="cannot be opened") as caught:
        open_source(f"tcp://user:secret@127.0.0.1:{port}")
    assert caught.value.exit_code == 5
    assert "secret" not in str(caught.value)
    assert without_password("rtsp://me:p@w:d@host/x") in ("rtsp://me:***@host/x", "rtsp://me:***@w:d@host/x")


def test_a_camera_that_is_not_there_is_said() -> None:
    if Path("/dev/video77").exists():
        pytest.skip("there is a camera 77")
    with pytest.raises(DeviceUnavailable, match="camera:77: no such camera") as caught:
        open_source("camera:77")
    assert caught.value.exit_code == 4
    with pytest.raises(UsageError, match="camera:0,720x1280,30"):
        open_source("camera:zero")


def test_a_camera_is_asked_for_its_size_and_gives_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    asked: dict[int, float] = {}

    class Capture:
        def __init__(self, device: int, api: int) -> None:
            asked[-1] = device
            self._left = 3

        def set(self, key: int, value: float) -> bool:
            asked[key] = value
            return True

        def get(self, key: int) -> float:
            return 30.0

        def isOpened(self) -> bool:
            return True

        def read(self) -> tuple[bool, np.ndarray | None]:
            self._left -= 1
            return (True, np.full((720, 1280, 3), (1, 2, 3), np.uint8)) if self._left >= 0 else (False, None)

        def release(self) -> None:
            asked[-2] = 1

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    camera = Camera("camera:2,720x1280,30", "2", "720", "1280", "30")
    assert (camera.width, camera.height, camera.rate) == (1280, 720, 30)
    assert asked[-1] == 2
    wanted = {
        cv2.CAP_PROP_FRAME_WIDTH: 1280,
        cv2.CAP_PROP_FRAME_HEIGHT: 720,
        cv2.CAP_PROP_FPS: 30,
        cv2.CAP_PROP_BUFFERSIZE: 1,
    }
    assert {key: asked[key] for key in wanted} == wanted
    picture = camera.read(threading.Event())()
    assert picture[0, 0].tolist() == [3, 2, 1]
    camera.read(threading.Event())
    with pytest.raises(GantrtError, match="no more pictures"):
        camera.read(threading.Event())
    camera.close()
    assert asked[-2] == 1


def run_translate(monkeypatch: pytest.MonkeyPatch, translator: Any, *args: str | Path) -> int:
    monkeypatch.setattr(gantrt, "load", lambda *_, **__: translator)
    return main(["translate", "--engine", "e.onnx", *map(str, args)])


def test_the_command_says_what_was_dropped_and_how_old_frames_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gantrt.progress._LINE_PERIOD", 0.2)
    clip = write_clip(tmp_path / "in.mp4", range(25))
    args = [f"fake:{clip}", "-o", "null:", "--max-frames", "8", "--json"]
    assert run_translate(monkeypatch, Slow(0.1), *args) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert summary["frames"] == 8
    assert 8 <= summary["dropped"] <= 20  # at 25 a second, of 0.8 s
    assert 90 < summary["age_p95_ms"] < 300
    assert "age_p95_ms" in printed.err
    assert "dropped" in printed.err


def test_a_recording_of_a_live_source_keeps_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "in.mp4", range(25))
    output = tmp_path / "out.mp4"
    assert run_translate(monkeypatch, Slow(0.07), f"fake:{clip}", "-o", output, "--max-frames", "8", "-q") == 0
    written = clips.frames(output)
    assert len(written) == 8
    # 25 frames a second in, one in about three taken: the times are those of the pictures, not 1/25 apart.
    assert 0.45 < float(written[-1][0]) < 1.2
    shown = [clips.index_of(image) for _, image in written]
    for (seconds, _), index in zip(written, shown, strict=True):
        assert abs(float(seconds) % 1 - ((index - shown[0]) / 25) % 1) % 0.96 < 0.08


@pytest.mark.parametrize("lost", [False, True], ids=["running", "disconnected"])
def test_ctrl_c_ends_a_live_source_at_once_with_a_file_that_plays(
    tmp_path: Path, lost: bool, transport_stream: bytes
) -> None:
    server = Broadcast(transport_stream, connections=1)
    server.start()
    write_clip(tmp_path / "in.mp4", range(25))
    program = """
import sys, gantrt
from gantrt.cli import main
from test_live import Slow
gantrt.load = lambda *_, **__: Slow(0.001)
sys.exit(main(sys.argv[1:]))
"""
    spec = server.url if lost else "fake:in.mp4"
    args = ["translate", "--engine", "e.onnx", spec, "-o", "out.mp4", "-v"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(ROOT / "tests")])}
    with subprocess.Popen(
        [sys.executable, "-c", program, *args], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        if lost:
            while "again in" not in process.stderr.readline():
                pass
        else:
            deadline = time.monotonic() + 20
            while not list(tmp_path.glob(".out*")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(1.0)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        process.wait()
        took = time.monotonic() - begin
    server.close()
    assert process.returncode == 130, said
    assert took < 3
    assert "frames are kept in out.mp4" in said
    assert len(clips.frames(tmp_path / "out.mp4")) >= 1
    assert not list(tmp_path.glob(".out*"))


def test_http_files_are_no_live_streams(tmp_path: Path) -> None:
    import functools
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    write_clip(tmp_path / "clip.mp4", range(3))
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(UnsupportedInput, match="download it"):
                open_source(f"http://127.0.0.1:{server.server_port}/clip.mp4")
        finally:
            server.shutdown()
