"""y4m through pipes: what PyAV and ffmpeg write is read, what we write they read, and nothing hangs."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
from clips import write_clip
from gantrt.errors import TruncatedInput, UnsupportedInput, UsageError
from gantrt.video import Frame, SinkOptions, open_source
from gantrt.video.color import FULL, LIMITED, Colors, to_rgb
from gantrt.video.schemes.y4m import FORMATS, Header, Y4MSink, Y4MSource, parse_header
from tiny_networks import write_pointwise

ROOT = Path(__file__).resolve().parent.parent
NTSC = Fraction(30000, 1001)


def pyav_y4m(path: Path, pix_fmt: str, size: tuple[int, int], count: int = 3, full: bool = False) -> list[np.ndarray]:
    """Noise written as y4m by FFmpeg's own muxer; returns the frames as RGB."""
    random = np.random.default_rng(0)
    height, width = size
    pictures = []
    with av.open(str(path), "w", format="yuv4mpegpipe") as out:
        video = out.add_stream("wrapped_avframe", rate=NTSC)
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.color_range = FULL if full else LIMITED
        for index in range(count):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane in frame.planes:
                memory = np.frombuffer(plane, np.uint8)
                memory[:] = random.integers(16, 236, memory.size, np.uint8)
            usual = Colors.usual(width, height)
            frame.colorspace, frame.color_range = usual.matrix, FULL if full else LIMITED
            pictures.append(to_rgb(frame))
            frame.pts, frame.time_base = index, 1 / NTSC
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return pictures


def sent(frames: list[Frame], like: object, options: SinkOptions | None = None) -> bytes:
    file = io.BytesIO()
    sink = Y4MSink(file, like, options or SinkOptions())  # type: ignore[arg-type]
    for frame in frames:
        sink.write(frame)
    sink.close()
    return file.getvalue()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "gray"])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_what_ffmpegs_muxer_writes_is_read_to_the_value(
    tmp_path: Path, pix_fmt: str, size: tuple[int, int], full: bool
) -> None:
    pictures = pyav_y4m(tmp_path / "in.y4m", pix_fmt, size, full=full)
    with (tmp_path / "in.y4m").open("rb") as file, Y4MSource(file) as source:
        frames = list(source)
        assert (source.height, source.width, source.rate) == (*size, NTSC)
        assert source.header.range in ((FULL,) if full else (LIMITED, None))
    assert [frame.pts for frame in frames] == [0, 1, 2]
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)


@pytest.mark.parametrize("chroma", FORMATS)
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_what_is_read_and_written_is_the_same_stream(chroma: str, size: tuple[int, int]) -> None:
    """Flat colours, so that no chroma is averaged: our writer is the inverse of our reader, header included."""
    header = Header(size[1], size[0], NTSC, chroma, Fraction(4, 3), LIMITED)
    blank = av.VideoFrame(size[1], size[0], FORMATS[chroma])
    bits, data = blank.format.components[0].bits, header.line()
    for luma in (40, 90, 200):
        data += b"FRAME\n"
        for index, plane in enumerate(blank.planes):
            value = (128 if index else luma) << (bits - 8)
            data += np.full(plane.width * plane.height, value, np.uint16 if bits > 8 else np.uint8).tobytes()
    source = Y4MSource(io.BytesIO(data))
    again = sent(list(source), source)
    assert again.partition(b"\n")[0] == data.partition(b"\n")[0]
    if bits == 8:
        assert again == data
    else:  # 8 bits of RGB hold no more
        was, now = (
            np.frombuffer(stream[len(header.line()) + 6 :][:64], np.uint16).astype(int) for stream in (data, again)
        )
        assert np.abs(was - now).max() <= 1 << (bits - 8)


def test_ffmpegs_demuxer_reads_what_we_write(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", range(10), size=(47, 64), pix_fmt="yuv444p", sar=Fraction(4, 3))
    with open_source(source) as opened:
        seen = list(opened)
        (tmp_path / "out.y4m").write_bytes(sent(seen, opened))
    assert [clips.index_of(image) for _, image in clips.frames(tmp_path / "out.y4m")] == list(range(10))
    facts = clips.stream(tmp_path / "out.y4m")
    assert (facts["size"], facts["sar"], facts["pix_fmt"]) == ((47, 64), Fraction(4, 3), "yuv420p")
    with av.open(str(tmp_path / "out.y4m")) as container:
        assert container.streams.video[0].average_rate == 25


def test_ten_bit_clips_may_be_passed_on_in_ten_bits(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", range(3), codec="ffv1", pix_fmt="yuv420p10le")
    with open_source(source) as opened:
        data = sent(list(opened), opened, SinkOptions(pix_fmt="yuv420p10le"))
    assert b" C420p10 " in data.partition(b"\n")[0]
    (tmp_path / "out.y4m").write_bytes(data)
    assert [clips.index_of(image) for _, image in clips.frames(tmp_path / "out.y4m")] == [0, 1, 2]


def test_irregular_times_become_repeated_frames_and_none_is_dropped(tmp_path: Path) -> None:
    stamps = (0, 40, 80, 240, 245, 250, 400)  # milliseconds, at 25 a second
    source = write_clip(tmp_path / "in.mkv", stamps, time_base=Fraction(1, 1000), codec="ffv1")
    with open_source(source) as opened:
        (tmp_path / "out.y4m").write_bytes(sent(list(opened), opened))
    shown = [clips.index_of(image) for _, image in clips.frames(tmp_path / "out.y4m")]
    assert shown == [0, 1, 2, 2, 2, 2, 3, 4, 5, 5, 6]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"RIFF....", "no YUV4MPEG2"),
        (b"YUV4MPEG2 W64", "damaged"),
        (b"YUV4MPEG2 W64 Hx", "damaged"),
        (b"YUV4MPEG2 W0 H4", "0x4"),
        (b"YUV4MPEG2 W64 H48 F25", "damaged"),
        (b"YUV4MPEG2 W64 H48 It", "deinterlace"),
        (b"YUV4MPEG2 W64 H48 Im", "deinterlace"),
        (b"YUV4MPEG2 W64 H48 C444alpha", "444alpha"),
    ],
)
def test_headers_that_cannot_be_read_are_refused(header: bytes, text: str) -> None:
    with pytest.raises(UnsupportedInput, match=text) as caught:
        parse_header(header)
    assert caught.value.exit_code == 5


def test_what_a_header_leaves_out_is_what_the_format_says() -> None:
    header = parse_header(b"YUV4MPEG2 W64 H48 F0:0 A0:0 I? XYSCSS=420JPEG")
    assert (header.rate, header.sample_aspect_ratio, header.chroma, header.range) == (25, None, "420jpeg", None)
    assert parse_header(header.line().strip()) == header


def test_an_empty_pipe_and_a_broken_one_are_said() -> None:
    with pytest.raises(UnsupportedInput, match="stdin is empty"):
        Y4MSource(io.BytesIO(b""))
    data = Header(8, 4, Fraction(25)).line() + (b"FRAME\n" + bytes(48)) * 2
    for broken, text in ((data + b"FRAME\n" + bytes(20), "inside frame 2"), (data + b"NOISE\n", "damaged after 2")):
        seen = []
        with pytest.raises(TruncatedInput, match=text):
            seen.extend(Y4MSource(io.BytesIO(broken)))
        assert len(seen) == 2


def test_flags_y4m_has_no_use_for_are_usage_errors() -> None:
    like = Y4MSource(io.BytesIO(Header(8, 4, Fraction(25)).line()))
    for options in (SinkOptions(codec="h264"), SinkOptions(crf=3), SinkOptions(pix_fmt="rgb24")):
        with pytest.raises(UsageError, match="y4m"):
            sent([], like, options)


def test_waiting_for_a_silent_pipe_ends_when_interrupted() -> None:
    read, write = os.pipe()
    try:
        os.write(write, Header(8, 4, Fraction(25)).line() + b"FRAME\n" + bytes(48) + b"FRA")
        with os.fdopen(read, "rb") as file:
            source = Y4MSource(file)
            threading.Timer(0.2, source.interrupt).start()
            begin = time.monotonic()
            with pytest.raises(TruncatedInput):
                list(source)
            assert time.monotonic() - begin < 2
    finally:
        os.close(write)


def command(engine: Path, *args: str) -> list[str]:
    program = "import sys; from gantrt.cli import main; sys.exit(main())"
    return [
        *(sys.executable, "-c", program, "translate", "--engine", str(engine), "--device", "cpu", "-q"),
        *args,
    ]


@pytest.fixture
def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "python")}


def test_the_command_in_a_pipe(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = write_pointwise(tmp_path / "negative.onnx", gain=-1, dynamic=True)
    with open_source(write_clip(tmp_path / "in.mp4", range(20))) as opened:
        data = sent(list(opened), opened)
    options: dict[str, Any] = {"capture_output": True, "env": environment, "timeout": 60}
    done = subprocess.run(command(engine, "-", "-o", "-"), input=data, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.partition(b"\n")[0] == data.partition(b"\n")[0]
    (tmp_path / "out.y4m").write_bytes(done.stdout)
    assert [clips.index_of(255 - image) for _, image in clips.frames(tmp_path / "out.y4m")] == list(range(20))
    # The same stream cut off: what came is translated, and it is said.
    to_file = command(engine, "-", "-o", str(tmp_path / "cut.mp4"))
    done = subprocess.run(to_file, input=data[: len(data) // 2], check=False, **options)
    assert done.returncode == 5
    assert b"frames are kept in" in done.stderr
    assert len(clips.frames(tmp_path / "cut.mp4")) == 9


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = write_pointwise(tmp_path / "negative.onnx", gain=-1, dynamic=True)
    clip = write_clip(tmp_path / "in.mp4", range(200), size=(480, 640))
    with subprocess.Popen(
        command(engine, str(clip), "-o", "-"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(500_000)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(30) == 141  # 128 + SIGPIPE, as `cat` would
    assert said == b""


def test_ctrl_c_ends_a_command_that_waits_for_its_pipe(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = write_pointwise(tmp_path / "negative.onnx", gain=-1, dynamic=True)
    run = command(engine, "-", "-o", str(tmp_path / "out.mp4"))
    with subprocess.Popen(run, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        header = Header(64, 48, Fraction(25))
        process.stdin.write(header.line() + (b"FRAME\n" + bytes(64 * 48 * 3 // 2)) * 5)
        process.stdin.flush()
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob(".out*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.0)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - begin < 3
    assert len(clips.frames(tmp_path / "out.mp4")) >= 3


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the ffmpeg command")
def test_between_two_ffmpegs(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = write_pointwise(tmp_path / "negative.onnx", gain=-1, dynamic=True)
    source = write_clip(tmp_path / "in.mp4", range(30), size=(47, 63), pix_fmt="yuv444p")
    ours = " ".join(f"'{part}'" for part in command(engine, "-", "-o", "-"))
    line = (
        f"ffmpeg -v error -i '{source}' -f yuv4mpegpipe -pix_fmt yuv420p - | {ours} "
        f"| ffmpeg -v error -i - -c:v ffv1 '{tmp_path}/out.mkv'"
    )
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    written = clips.frames(tmp_path / "out.mkv")
    assert [clips.index_of(255 - image) for _, image in written] == list(range(30))
    assert [round(float(t) * 25) for t, _ in written] == list(range(30))
    assert clips.stream(tmp_path / "out.mkv")["size"] == (47, 63)
