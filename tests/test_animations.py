"""Animated pictures and numbered ones: GIF and APNG out with their times, %05d in and out."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import clips
import numpy as np
import pytest
from clips import write_clip
from gantrt.errors import GantrtError, UnsupportedInput
from gantrt.video import Frame, SinkOptions, open_sink, open_source
from gantrt.video.headers import gif_pictures
from gantrt.video.images import Picture, is_animated, is_pattern, read_picture, write_picture

MS = Fraction(1, 1000)


def copy(source: Path, output: Path) -> list[Frame]:
    with open_source(source) as opened:
        sink = open_sink(output, opened)
        seen = list(opened)
        for frame in seen:
            sink.write(frame)
        sink.close()
    return seen


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9)))


@pytest.mark.parametrize("suffix", [".gif", ".apng"])
def test_a_clip_becomes_an_animation_frame_by_frame_at_its_times(tmp_path: Path, suffix: str) -> None:
    stamps = (0, 40, 70, 120, 130, 400, 430, 1000)
    source = write_clip(tmp_path / "in.mkv", stamps, time_base=MS, sound="aac", codec="ffv1")
    copy(source, tmp_path / f"out{suffix}")
    written = clips.frames(tmp_path / f"out{suffix}")
    assert [clips.index_of(image) for _, image in written] == list(range(len(stamps)))
    assert [time for time, _ in written] == [Fraction(stamp, 1000) for stamp in stamps]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", f"out{suffix}"]


def test_real_gif_survives_a_round_trip(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "videos" / "newtonscradle.gif"
    seen = copy(source, tmp_path / "out.gif")
    written = clips.frames(tmp_path / "out.gif")
    assert [frame.seconds for frame in seen] == [float(time) for time, _ in written]
    assert min(psnr(a.image, b) for a, (_, b) in zip(seen, written, strict=True)) > 30
    # A browser plays it for ever: NETSCAPE2.0 with a count of 0.
    data = (tmp_path / "out.gif").read_bytes()
    assert data[data.index(b"NETSCAPE2.0") + 13 :][:2] == b"\0\0"


def test_an_animation_in_colour_is_near_in_gif_and_exact_in_apng(tmp_path: Path, data_dir: Path) -> None:
    picture = read_picture(data_dir / "images" / "kodim03.png").image[:256, :384]
    for suffix, least in ((".gif", 30), (".apng", 99)):
        with open_source(write_clip(tmp_path / "like.mkv", (0, 1), size=(256, 384), codec="ffv1")) as like:
            sink = open_sink(tmp_path / f"out{suffix}", like)
            sink.write(Frame(picture, 0))
            sink.write(Frame(picture[:, ::-1].copy(), 1))
            sink.close()
        first, second = (image for _, image in clips.frames(tmp_path / f"out{suffix}"))
        assert psnr(picture, first) > least
        assert psnr(picture[:, ::-1], second) > least


def test_apng_is_read_as_the_clip_it_is(tmp_path: Path) -> None:
    copy(write_clip(tmp_path / "in.mkv", range(5), codec="ffv1"), tmp_path / "out.apng")
    renamed = (tmp_path / "out.apng").rename(tmp_path / "moves.png")
    assert is_animated(renamed)
    with open_source(renamed) as source:
        assert [clips.index_of(frame.image) for frame in source] == list(range(5))


def test_a_gif_of_more_than_fifty_frames_a_second_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_clip(tmp_path / "in.mp4", range(0, 100, 5), time_base=MS)  # 200 a second
    with caplog.at_level(logging.WARNING, "gantrt"):
        copy(source, tmp_path / "out.gif")
    assert "50 frames/s at most" in caplog.text
    times = [time for time, _ in clips.frames(tmp_path / "out.gif")]
    assert len(times) == 20
    assert times == sorted(set(times))


def test_gif_pictures_are_counted_without_decoding(data_dir: Path) -> None:
    data = (data_dir / "videos" / "newtonscradle.gif").read_bytes()
    assert gif_pictures(data, 1000) == 36
    assert gif_pictures(data, 2) == 2
    assert gif_pictures(data[:5000], 1000) <= 1
    assert gif_pictures(b"GIF89a", 2) == 0
    assert not is_animated(data_dir / "images" / "grey-plus-alpha.gif")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("%05d.png", True), ("a%d.jpg", True), ("50%_off.png", False), ("%05d.mp4", False), ("%d_%d.png", False)],
)
def test_a_pattern_has_one_number_and_a_pictures_suffix(name: str, expected: bool) -> None:
    assert is_pattern(name) == expected


def test_numbered_pictures_are_read_in_order_of_their_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (8, 9, 10, 12, 100000):
        write_picture(tmp_path / f"f{number:05}.png", Picture(clips.grey(number % 32)))
    for other in ("f1.png", "fx0001.png", "f00001.jpg.txt"):
        (tmp_path / other).write_bytes(b"not one of them")
    with caplog.at_level(logging.WARNING, "gantrt"), open_source(tmp_path / "f%05d.png") as source:
        assert [clips.index_of(frame.image) for frame in source] == [8, 9, 10, 12, 100000 % 32]
    assert "are missing" in caplog.text
    with pytest.raises(UnsupportedInput, match="no such file"):
        open_source(tmp_path / "g%05d.png")


@pytest.mark.parametrize("name", ["%05d.png", "frame-%d.jpg"])
def test_numbered_pictures_are_written_from_one(tmp_path: Path, name: str) -> None:
    source = write_clip(tmp_path / "in.mkv", range(12), codec="ffv1")
    copy(source, tmp_path / "out" / name)
    written = [read_picture(tmp_path / "out" / (name % number)).image for number in range(1, 13)]
    assert [clips.index_of(image) for image in written] == list(range(12))
    assert len(list((tmp_path / "out").iterdir())) == 12
    with open_source(source) as like:
        with pytest.raises(GantrtError, match="--overwrite"):
            open_sink(tmp_path / "out" / name, like)
        open_sink(tmp_path / "out" / name, like, SinkOptions(overwrite=True))
    assert not list((tmp_path / "out").iterdir())
