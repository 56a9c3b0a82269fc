"""Clips in, clips out: every frame, its time, its colour, the sound beside it, and no half-written file."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import clips
import numpy as np
import pytest
from clips import write_clip
from gantrt.errors import GantrtError, TruncatedInput, UnsupportedInput, UsageError
from gantrt.video import First, Frame, FrameSource, SinkOptions, open_sink, open_source
from gantrt.video.color import Colors, Converter, from_rgb, to_rgb
from gantrt.video.files import VideoFile
from gantrt.video.images import PictureFolder
from gantrt.video.schemes.null import NullSink

BFRAMES = {"bf": "3", "b-adapt": "0", "g": "12"}
VFR = (0, 40, 47, 120, 121, 400, 433, 1000, 1033, 1500)  # milliseconds
MS = Fraction(1, 1000)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "gantrt"):
        yield caplog


def copy(
    source: Path | FrameSource, output: Path, options: SinkOptions | None = None, count: int | None = None
) -> list[Frame]:
    """Frames of `source` into `output`, untranslated; returns them."""
    opened = source if not isinstance(source, Path) else open_source(source)
    with opened:
        sink = open_sink(output, opened, options)
        seen = []
        for frame in First(opened, count) if count else opened:
            sink.write(frame)
            seen.append(frame)
        sink.close(complete=count is None)
    return seen


def times(frames: list[Frame]) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames if frame.pts is not None and frame.time_base]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("options", [BFRAMES, {"bf": "0"}], ids=["B-frames", "no B-frames"])
def test_every_frame_comes_once_in_order_at_its_time(tmp_path: Path, suffix: str, options: dict[str, str]) -> None:
    source = write_clip(tmp_path / "in.mp4", range(25), options=options)
    seen = copy(source, tmp_path / f"out{suffix}")
    assert [clips.index_of(frame.image) for frame in seen] == list(range(25))
    assert [frame.index for frame in seen] == list(range(25))
    written = clips.frames(tmp_path / f"out{suffix}")
    assert [clips.index_of(image) for _, image in written] == list(range(25))
    assert [time for time, _ in written] == times(seen) == [Fraction(i, 25) for i in range(25)]
    assert names(tmp_path) == sorted(["in.mp4", f"out{suffix}"])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_irregular_times_are_kept(tmp_path: Path, suffix: str) -> None:
    source = write_clip(tmp_path / "in.mkv", VFR, time_base=MS, options=BFRAMES)
    copy(source, tmp_path / f"out{suffix}")
    assert [time for time, _ in clips.frames(tmp_path / f"out{suffix}")] == [Fraction(t, 1000) for t in VFR]


def test_the_last_frame_stays_as_long_as_it_did(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", (0, 100, 1000), time_base=MS)
    copy(source, tmp_path / "out.mp4")
    before, after = clips.stream(source)["duration"], clips.stream(tmp_path / "out.mp4")["duration"]
    assert before == after


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_late_start_is_kept_for_picture_and_sound(tmp_path: Path, suffix: str) -> None:
    source = write_clip(tmp_path / f"in{suffix}", range(125, 150), sound="libopus", sound_start=Fraction(5))
    copy(source, tmp_path / f"out{suffix}")
    assert clips.frames(tmp_path / f"out{suffix}")[0][0] == 5
    before, after = (clips.packets(path, "audio") for path in (source, tmp_path / f"out{suffix}"))
    assert [t for t, _ in before] == [t for t, _ in after]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_clip_of_one_frame(tmp_path: Path, suffix: str) -> None:
    source = write_clip(tmp_path / "in.mp4", (0,))
    copy(source, tmp_path / f"out{suffix}")
    assert len(clips.frames(tmp_path / f"out{suffix}")) == 1


def test_times_that_repeat_or_go_back_are_made_to_increase(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.height, video.width = clips.SIZE
        for stamp in (0, 40, 40, 80, 60, 120):
            frame = av.VideoFrame.from_ndarray(clips.grey(0), "rgb24").reformat(format="yuv420p")
            (packet,) = video.codec_context.encode(frame)
            packet.pts = packet.dts = stamp
            packet.stream, packet.time_base = video, MS
            with contextlib.suppress(av.FFmpegError):
                out.mux(packet)
    seen = copy(tmp_path / "in.mkv", tmp_path / "out.mp4")
    stamps = [frame.pts for frame in seen if frame.pts is not None]
    assert len(seen) >= 5
    assert stamps == sorted(set(stamps))
    assert len(clips.frames(tmp_path / "out.mp4")) == len(seen)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_to_the_pixels_and_the_tag_goes(tmp_path: Path, rotation: int) -> None:
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("PyAV before 18 cannot write a rotated clip")
    height, width = clips.SIZE
    source = write_clip(tmp_path / "in.mp4", (0, 1), rotation=rotation, sar=Fraction(4, 3))
    seen = copy(source, tmp_path / "out.mp4")
    upright = rotation % 180 == 0
    assert seen[0].image.shape[:2] == ((height, width) if upright else (width, height))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0
    assert clips.stream(tmp_path / "out.mp4")["sar"] == (Fraction(4, 3) if upright else Fraction(3, 4))


@pytest.mark.parametrize(
    ("suffix", "size", "options", "pix_fmt"),
    [
        (".mp4", (241, 321), SinkOptions(), "yuv444p"),
        (".mp4", (48, 63), SinkOptions(), "yuv444p"),
        (".mp4", (48, 63), SinkOptions(codec="vp9"), "yuv420p"),
        (".webm", (47, 63), SinkOptions(), "yuv420p"),
        (".mkv", (48, 64), SinkOptions(codec="ffv1"), "yuv420p"),
        (".mkv", (48, 64), SinkOptions(codec="hevc", crf=20), "yuv420p"),
        (".mp4", (48, 64), SinkOptions(codec="hevc", pix_fmt="yuv420p10le"), "yuv420p10le"),
        (".mp4", (64, 64), SinkOptions(codec="av1"), "yuv420p"),
        (".mov", (48, 64), SinkOptions(pix_fmt="yuv444p"), "yuv444p"),
    ],
)
def test_size_is_kept_whatever_the_codec(
    tmp_path: Path, suffix: str, size: tuple[int, int], options: SinkOptions, pix_fmt: str
) -> None:
    source = write_clip(tmp_path / "in.mkv", (0, 1, 2), size=size, codec="ffv1", pix_fmt="yuv444p")
    copy(source, tmp_path / f"out{suffix}", options)
    assert clips.stream(tmp_path / f"out{suffix}")["pix_fmt"] == pix_fmt
    assert [image.shape[:2] for _, image in clips.frames(tmp_path / f"out{suffix}")] == [size] * 3


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("out.mp4", SinkOptions(codec="nonsense"), "nonsense"),
        ("out.mp4", SinkOptions(codec="aac"), "is for audio"),
        ("out.webm", SinkOptions(codec="h264"), "cannot hold h264"),
        ("out.mov", SinkOptions(codec="vp9"), "cannot hold vp9"),
        ("out.mkv", SinkOptions(codec="ffv1", crf=3), "no constant quality"),
        ("out.mp4", SinkOptions(pix_fmt="rgb48be"), "libx264 takes"),
        ("out.mp4", SinkOptions(pix_fmt="yuv420p"), "cannot hold 63x47"),
        ("out.avi", SinkOptions(), r"\.webm"),
        ("out.gif", SinkOptions(codec="gif"), "has none to choose"),
        ("camera:0", SinkOptions(), "no such output"),
        ("nonsense:", SinkOptions(), "no such output"),
    ],
)
def test_what_cannot_be_written_is_a_usage_error(tmp_path: Path, name: str, options: SinkOptions, match: str) -> None:
    source = write_clip(tmp_path / "in.mkv", (0,), size=(47, 63), codec="ffv1")
    spec = str(tmp_path / name) if name.startswith("out") else name
    with open_source(source) as opened, pytest.raises(UsageError, match=match):
        open_sink(spec, opened, options)
    assert names(tmp_path) == ["in.mkv"]


# Kr, Kb of ITU-T H.273, by matrix.
LUMA = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def bars() -> np.ndarray:
    """Colour bars, 16x16 pixels each: the corners of the RGB cube and some colours inside."""
    random = np.random.default_rng(0).integers(0, 256, (4, 8, 3))
    corners = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)])
    return np.repeat(np.repeat(np.concatenate([corners[None], random]), 16, 0), 16, 1).astype(np.uint8)


def bar_values(image: np.ndarray) -> np.ndarray:
    return image[8::16, 8::16].astype(int)


def to_yuv(rgb: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """H.273, 8 bit, in float64: the judge."""
    kr, kb = LUMA[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    low, luma, chroma = (0, 255, 255) if full else (16, 219, 224)
    return np.rint(np.clip(np.stack([low + luma * y, 128 + chroma * u, 128 + chroma * v]), 0, 255)).astype(np.uint8)


def from_yuv(yuv: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """The inverse, of (3, H, W) integers to (H, W, 3) RGB in levels, neither rounded."""
    kr, kb = LUMA[matrix]
    low, luma, chroma = (0, 255, 255) if full else (16, 219, 224)
    y, u, v = (yuv[0] - low) / luma, (yuv[1] - 128) / chroma, (yuv[2] - 128) / chroma
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return np.clip(255 * np.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b], -1), 0, 255)


def yuv_bars(path: Path) -> np.ndarray:
    """The numbers in the file, in the middle of each bar: (3, rows, columns)."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        planes = [
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            for plane in frame.planes
        ]
        steps = [16 * plane.shape[0] // len(planes[0]) for plane in planes]  # 8 where chroma is halved
        return np.stack(
            [plane[step // 2 :: step, step // 2 :: step] for plane, step in zip(planes, steps, strict=True)]
        ).astype(int)


def write_bars(path: Path, matrix: int, full: bool, pix_fmt: str) -> Path:
    """Colour bars, losslessly, computed here."""
    yuv = to_yuv(bars(), matrix, full)
    if pix_fmt == "yuv420p":
        data = np.concatenate([yuv[0].ravel(), yuv[1, ::2, ::2].ravel(), yuv[2, ::2, ::2].ravel()])
        frame = av.VideoFrame.from_ndarray(data.reshape(-1, yuv.shape[2]), "yuv420p")
    else:
        frame = av.VideoFrame.from_ndarray(yuv, "yuv444p")
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"qp": "0"})
        video.height, video.width = yuv.shape[1:]
        video.pix_fmt = pix_fmt
        video.codec_context.colorspace, video.codec_context.color_range = matrix, 2 if full else 1
        out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize("matrix", LUMA)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_colour_bars_survive_there_and_back(tmp_path: Path, matrix: int, full: bool, pix_fmt: str) -> None:
    source = write_bars(tmp_path / "in.mp4", matrix, full, pix_fmt)
    (read,) = copy(source, tmp_path / "out.mp4", SinkOptions(crf=0, pix_fmt=pix_fmt))
    # What the file's numbers mean, and what numbers its colours are: to the nearest level, and one more at most.
    stored = to_yuv(bar_values(bars())[None], matrix, full)[:, 0].astype(float)
    assert np.abs(bar_values(read.image) - from_yuv(stored, matrix, full)).max() <= 1
    wanted = to_yuv(bar_values(read.image)[None], matrix, full)[:, 0].astype(int)
    assert np.abs(yuv_bars(tmp_path / "out.mp4") - wanted).max() <= 1
    # 8-bit YUV has no room for every colour: rounding alone costs up to two levels of blue.
    assert np.abs(bar_values(read.image) - bar_values(bars())).max() <= 2
    assert clips.stream(tmp_path / "out.mp4")["colors"] == (matrix, 2 if full else 1)
    with open_source(tmp_path / "out.mp4") as again:
        (written,) = list(again)
    assert np.abs(bar_values(written.image) - bar_values(read.image)).max() <= 2


def test_a_converter_follows_colours_that_change_from_frame_to_frame() -> None:
    """It keeps swscale's tables: those of the frame before must not be used for this one."""
    converter, image = Converter(), bars()
    for matrix, color_range, pix_fmt in (
        (1, 1, "yuv420p"),
        (6, 1, "yuv420p"),
        (1, 2, "yuv420p"),
        (9, 2, "yuv444p"),
    ) * 2:
        colors = Colors(matrix, color_range)
        made = converter.from_rgb(image, colors, pix_fmt)
        np.testing.assert_array_equal(made.to_ndarray(), from_rgb(image, colors, pix_fmt).to_ndarray())
        np.testing.assert_array_equal(converter.to_rgb(made), to_rgb(from_rgb(image, colors, pix_fmt)))


def test_a_clip_without_tags_is_taken_for_what_players_take_it(tmp_path: Path) -> None:
    assert Colors.usual(1280, 720) == Colors(1, 1)
    assert Colors.usual(640, 480) == Colors(6, 1)
    with open_source(write_clip(tmp_path / "in.mkv", (0,), codec="ffv1")) as source:
        assert isinstance(source, VideoFile)
        assert source.colors == Colors(6, 1)


@pytest.mark.parametrize(
    ("sound", "source_name", "output_name"),
    [
        ("aac", "in.mp4", "out.mp4"),
        ("aac", "in.mp4", "out.mkv"),
        ("libmp3lame", "in.mkv", "out.mov"),
        ("libopus", "in.webm", "out.mp4"),
        ("libopus", "in.mkv", "out.webm"),
        ("flac", "in.mkv", "out.mp4"),
        ("pcm_s16le", "in.mov", "out.mkv"),
    ],
)
def test_sound_is_copied_to_the_byte(tmp_path: Path, sound: str, source_name: str, output_name: str) -> None:
    codec = "libvpx-vp9" if source_name.endswith("webm") else "libx264"
    source = write_clip(
        tmp_path / source_name, sound=sound, codec=codec, options={"cpu-used": "8"} if codec != "libx264" else {}
    )
    copy(source, tmp_path / output_name)
    before, after = clips.packets(source, "audio"), clips.packets(tmp_path / output_name, "audio")
    assert [data for _, data in before] == [data for _, data in after]
    # Matroska keeps milliseconds and begins at 0: what begins before it, a codec's run-in, moves sound and picture.
    shift = clips.frames(tmp_path / output_name)[0][0] - clips.frames(source)[0][0]
    assert max(abs(a[0] + shift - b[0]) for a, b in zip(before, after, strict=True)) <= MS


@pytest.mark.parametrize(("sound", "suffix", "expected"), [("aac", ".webm", "opus"), ("adpcm_ms", ".mp4", "aac")])
def test_sound_a_container_cannot_hold_is_encoded_anew(
    tmp_path: Path, warnings: pytest.LogCaptureFixture, sound: str, suffix: str, expected: str
) -> None:
    source = write_clip(tmp_path / "in.avi", sound=sound, codec="mpeg4")
    copy(source, tmp_path / f"out{suffix}")
    assert f"becomes {'lib' if expected == 'opus' else ''}{expected}" in warnings.text
    assert clips.stream(tmp_path / f"out{suffix}", "audio")["codec"] == expected
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        decoded = list(container.decode(audio=0))
    assert abs(float(decoded[0].pts * decoded[0].time_base)) < 0.05
    wave = np.concatenate([frame.to_ndarray().reshape(-1) for frame in decoded])
    assert abs(len(wave) / 48000 - 0.96) < 0.1
    spectrum = np.abs(np.fft.rfft(wave))
    assert abs(spectrum.argmax() * 48000 / len(wave) - 440) < 5


def test_sound_stays_out_when_asked(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", sound="aac")
    copy(source, tmp_path / "out.mp4", SinkOptions(audio=False))
    assert clips.packets(tmp_path / "out.mp4", "audio") == []


def test_sound_ends_with_the_frames_when_left_early(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", range(75), sound="aac")
    copy(source, tmp_path / "out.mp4", count=10)
    assert len(clips.frames(tmp_path / "out.mp4")) == 10
    assert 0.3 < clips.packets(tmp_path / "out.mp4", "audio")[-1][0] <= 0.4


def write_extras(path: Path) -> Path:
    """A clip with subtitles, an attachment, chapters and titles."""
    base = write_clip(path.with_name("base.mkv"))
    with av.open(str(base)) as plain, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(plain.streams.video[0], opaque=True)
        text = out.add_mux_stream("subrip")
        text.metadata["language"] = "deu"
        out.add_attachment("font.ttf", "font/ttf", b"\0\1\0\0 no font")
        out.metadata.update({"title": "Größe", "artist": "nobody"})
        out.set_chapters(
            [
                {"id": 1, "start": 0, "end": 400, "time_base": MS, "metadata": {"title": "one"}},
                {"id": 2, "start": 400, "end": 1000, "time_base": MS, "metadata": {"title": "two"}},
            ]
        )
        for packet in plain.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
        for start, line in ((100, b"first line"), (500, b"second line")):
            packet = av.Packet(line)
            packet.stream, packet.time_base = text, MS
            packet.pts = packet.dts = start
            packet.duration = 300
            out.mux(packet)
    base.unlink()
    return path


def test_subtitles_attachments_chapters_and_titles_come_along(tmp_path: Path) -> None:
    source = write_extras(tmp_path / "in.mkv")
    copy(source, tmp_path / "out.mkv")
    assert clips.packets(tmp_path / "out.mkv", "subtitle") == clips.packets(source, "subtitle")
    assert len(clips.packets(source, "subtitle")) == 2
    assert clips.stream(tmp_path / "out.mkv", "subtitle")["metadata"]["language"] == "deu"
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["one", "two"]
        assert container.metadata["title"] == "Größe"
        assert [stream.type for stream in container.streams] == ["video", "subtitle", "attachment"]


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mov_text"), (".mov", "mov_text"), (".webm", "webvtt")])
def test_subtitles_become_what_the_container_holds_and_back(tmp_path: Path, suffix: str, codec: str) -> None:
    source = write_extras(tmp_path / "in.mkv")
    copy(source, tmp_path / f"out{suffix}")
    assert clips.stream(tmp_path / f"out{suffix}", "subtitle")["codec"] == codec
    assert len(clips.frames(tmp_path / f"out{suffix}")) == 25
    copy(tmp_path / f"out{suffix}", tmp_path / "back.mkv")
    assert clips.packets(tmp_path / "back.mkv", "subtitle") == clips.packets(source, "subtitle")


def test_what_a_container_cannot_hold_is_left_out_and_said(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    copy(write_extras(tmp_path / "in.mkv"), tmp_path / "out.mp4")
    assert "mp4 cannot hold its attachment" in warnings.text
    assert len(clips.frames(tmp_path / "out.mp4")) == 25


def test_the_index_is_in_front(tmp_path: Path) -> None:
    data = copy(write_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4") and (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_cut_in_the_middle_is_noticed_and_its_frames_kept(tmp_path: Path, suffix: str) -> None:
    source = write_clip(tmp_path / f"in{suffix}", range(100), sound="aac", options={"g": "10"})
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 6 // 10])
    with open_source(source) as opened:
        sink = open_sink(tmp_path / "out.mp4", opened)
        seen: list[Frame] = []
        with pytest.raises(TruncatedInput, match=r"frames could be read"):
            seen.extend(opened)
        for frame in seen:
            sink.write(frame)
        sink.close(complete=False)
    assert 10 < len(seen) < 100
    assert len(clips.frames(tmp_path / "out.mp4")) == len(seen)


def test_a_damaged_packet_costs_its_own_frame_only(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", range(25), options={"g": "1", "bf": "0"})
    with av.open(str(source)) as container:
        tenth = [packet for packet in container.demux(video=0) if packet.size][10]
        at, size = tenth.pos, tenth.size
    data = bytearray(source.read_bytes())
    data[at : at + size] = b"\xff" * size
    source.write_bytes(data)
    seen = []
    with open_source(source) as opened, pytest.raises(TruncatedInput, match="is damaged; 24 of 25 frames"):
        seen.extend(opened)
    assert [clips.index_of(frame.image) for frame in seen] == [i for i in range(25) if i != 10]


def test_a_file_that_is_whole_is_not_called_cut(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv", ".mov", ".webm", ".ts", ".avi"):
        codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(suffix[1:], "libx264")
        source = write_clip(
            tmp_path / f"in{suffix}", range(60), codec=codec, options={"cpu-used": "8"} if "vpx" in codec else {}
        )
        with open_source(source) as opened:
            assert len(list(opened)) == 60, suffix


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no clip " * 100)
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        audio = out.add_stream("aac", rate=48000, layout="mono")
        for frame in clips.sine(Fraction(0), Fraction(1)):
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    header = write_clip(tmp_path / "header.mp4").read_bytes()
    (tmp_path / "header.mp4").write_bytes(header[: header.index(b"mdat") + 4])
    for name in ("empty.mp4", "text.mp4", "sound.mp4", "header.mp4", "missing.mp4"):
        with pytest.raises(UnsupportedInput, match=name) as caught:
            open_source(tmp_path / name)
        assert caught.value.exit_code == 5


def test_odd_paths_are_only_paths(tmp_path: Path) -> None:
    for name in ("50%_off.mp4", "a:b %05d.mp4", "Größe №1.MP4", "rtsp:x.mp4"):
        source = write_clip(tmp_path / "in.mp4", (0, 1)).rename(tmp_path / f"in {name}")
        copy(source, tmp_path / name)
        assert len(clips.frames(tmp_path / name)) == 2
        source.unlink()


def test_frames_are_counted_or_estimated(tmp_path: Path) -> None:
    with open_source(write_clip(tmp_path / "in.mp4")) as source:
        assert (source.frames, source.frames_estimated, source.rate) == (25, False, 25)
        first = First(source, 10)
        assert (first.frames, first.frames_estimated) == (10, False)
        assert len(list(first)) == 10
    with open_source(write_clip(tmp_path / "in.mkv")) as source:
        assert (source.frames, source.frames_estimated) == (25, True)


def test_an_output_that_exists_is_kept_without_overwrite(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", (0, 1))
    (tmp_path / "out.mp4").write_text("old")
    with open_source(source) as opened, pytest.raises(GantrtError, match="--overwrite"):
        open_sink(tmp_path / "out.mp4", opened)
    assert (tmp_path / "out.mp4").read_text() == "old"
    copy(source, tmp_path / "out.mp4", SinkOptions(overwrite=True))
    assert len(clips.frames(tmp_path / "out.mp4")) == 2


def test_a_clip_may_replace_itself(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", sound="aac")
    copy(source, source, SinkOptions(overwrite=True))
    assert len(clips.frames(source)) == 25
    assert names(tmp_path) == ["in.mp4"]


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", sound="aac")
    with open_source(source) as opened:
        sink = open_sink(tmp_path / "out.mp4", opened)
        sink.write(next(iter(opened)))
        assert len(names(tmp_path)) == 2
        sink.abort()
    assert names(tmp_path) == ["in.mp4"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", range(25), size=(480, 640))
    random = np.random.default_rng(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_source(source) as opened:
        sink = open_sink(tmp_path / "out.mp4", opened)

        def write_much() -> None:
            for index in range(60):
                sink.write(Frame(random.integers(0, 256, (480, 640, 3), np.uint8), index))

        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(GantrtError, match=r"out.mp4: cannot be written \(file too large\)") as caught:
                write_much()
            sink.abort()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 1
    assert names(tmp_path) == ["in.mp4"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", (0,))
    with open_source(source) as opened, pytest.raises(GantrtError, match="cannot be written") as caught:
        open_sink(source / "out.mp4", opened)
    assert caught.value.exit_code == 1


def test_specs_choose_sources_and_sinks(tmp_path: Path) -> None:
    with open_source(write_clip(tmp_path / "in.mp4", (0,))) as source:
        assert isinstance(source, VideoFile)
        assert isinstance(open_sink("null:", source), NullSink)
        assert isinstance(open_sink(tmp_path / "frames", source), PictureFolder)


# What the real clips are: file, frames (of which decode), display size, sound.
REAL = {
    "cockatoo.mp4": (280, (720, 1280), "mp3"),
    "decord_corrupted.mp4": (49, (720, 1280), None),
    "flipping_a_pancake.mkv": (310, (240, 426), "opus"),
    "mona7s.mp4": (211, (720, 1280), "aac"),
    "nasa_13013_rotated.mp4": (17, (480, 270), None),
    "newtonscradle.gif": (36, (150, 200), None),
    "test.webm": (94, (480, 640), None),
    "testsrc2_odd_height_and_width_vp9.mp4": (25, (241, 321), None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_clips_are_read_to_the_last_frame(data_dir: Path, name: str) -> None:
    count, size, _ = REAL[name]
    broken = name == "decord_corrupted.mp4"
    seen, stamps = 0, []
    with open_source(data_dir / "videos" / name) as source:
        assert (source.height, source.width) == size
        with pytest.raises(TruncatedInput, match="49 of 50") if broken else contextlib.nullcontext():
            for frame in source:
                assert frame.image.shape == (*size, 3)
                stamps.append(frame.pts)
                seen += 1
    assert seen == count
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("name", REAL)
def test_real_clips_keep_frames_times_size_and_sound(data_dir: Path, tmp_path: Path, name: str, suffix: str) -> None:
    source, output = data_dir / "videos" / name, tmp_path / f"out{suffix}"
    size, sound = REAL[name][1:]
    count = 3 if size[0] == 720 else 10
    seen = copy(source, output, SinkOptions(crf=40), count)
    written = clips.frames(output)
    assert len(written) == len(seen) == count
    assert {image.shape[:2] for _, image in written} == {size}
    step = Fraction(0) if suffix == ".mp4" else MS  # Matroska keeps milliseconds, and begins at 0
    shift = written[0][0] - times(seen)[0]
    assert max(abs(a + shift - b) for a, (b, _) in zip(times(seen), written, strict=True)) <= step
    assert shift == 0 or suffix != ".mp4"
    before, after = clips.packets(source, "audio"), clips.packets(output, "audio")
    assert bool(after) == bool(sound)
    if suffix != ".webm" or sound == "opus":
        assert [data for _, data in before][: len(after)] == [data for _, data in after]
        assert all(abs(a[0] + shift - b[0]) <= step for a, b in zip(before, after, strict=False))


def test_a_playlist_from_a_stranger_is_refused_before_it_reads_another_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "secret.mp4", range(3))
    playlist = tmp_path / "innocent.mp4"
    playlist.write_text("ffconcat version 1.0\nfile secret.mp4\n")
    assert len(list(VideoFile(playlist))) == 3, "without a list FFmpeg follows it: that is what the list is for"
    with pytest.raises(UnsupportedInput, match="cannot be read as a clip"):
        VideoFile(playlist, formats="mov,matroska,gif")


def test_frames_larger_than_allowed_are_not_decoded(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", range(3))
    assert len(list(VideoFile(clip, formats="mov", max_pixels=48 * 64))) == 3
    with pytest.raises(UnsupportedInput, match="not one frame"):
        VideoFile(clip, formats="mov", max_pixels=48 * 64 - 1)
