"""The whole command over real clips and pictures, as one table: what goes in comes out, and exit codes are kept.

The network is the identity, so what comes out can be compared with what went in: frames, times, size as shown, colour,
sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import clips
import numpy as np
import pytest
from gantrt.cli import main
from gantrt.errors import TruncatedInput
from gantrt.video import Frame, open_source
from gantrt.video.images import read_picture
from tiny_networks import write_pointwise


@dataclass(frozen=True)
class Clip:
    frames: int
    size: tuple[int, int]  # (height, width) as shown
    sound: str | None = None
    code: int = 0


CLIPS = {
    "cockatoo.mp4": Clip(280, (720, 1280), "mp3"),
    "decord_corrupted.mp4": Clip(49, (720, 1280), code=5),
    "flipping_a_pancake.mkv": Clip(310, (240, 426), "opus"),
    "mona7s.mp4": Clip(211, (720, 1280), "aac"),
    "nasa_13013_rotated.mp4": Clip(17, (480, 270)),
    "newtonscradle.gif": Clip(36, (150, 200)),
    "test.webm": Clip(94, (480, 640)),
    "testsrc2_odd_height_and_width_vp9.mp4": Clip(25, (241, 321)),
}
# Output -> the coarseness of its clock, in seconds (None: it has none, a frame is a frame).
OUTPUTS: dict[str, Fraction | None] = {
    "out.mp4": Fraction(0),
    "out.mov": Fraction(0),
    "out.mkv": Fraction(1, 1000),
    "out.webm": Fraction(1, 1000),
    "out.gif": Fraction(1, 100),
    "out.apng": Fraction(1, 1000),
    "frames/": None,
    "numbers/%05d.jpg": None,
}
COPIED = {
    "out.mp4": ("mp3", "opus", "aac"),
    "out.mov": ("mp3", "aac"),
    "out.mkv": ("mp3", "opus", "aac"),
    "out.webm": ("opus",),
}
DAMAGED = ("broken.png", "corrupt-header.jpg", "decompression_bomb.gif", "truncated_image.png", "truncated_jpeg.jpg")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pointwise(tmp_path_factory.mktemp("engine") / "identity.onnx", dynamic=True)


def translate(engine: Path, *args: str | Path) -> int:
    options = ["--device", "cpu", "--fit", "pad", "--precision", "fp32", "-q"]
    return main(["translate", "--engine", str(engine), *options, *map(str, args)])


def read(path: Path, count: int | None = None) -> list[Frame]:
    frames: list[Frame] = []
    with open_source(path) as source:
        try:
            for frame in source:
                frames.append(frame)
                if len(frames) == count:
                    break
        except TruncatedInput:
            pass
    return frames


def written(folder: Path, output: str) -> list[Frame]:
    if output == "numbers/%05d.jpg":
        return read(folder / output)
    return read(folder / output.rstrip("/"))


def check(source: Path, clip: Clip, folder: Path, output: str, count: int | None) -> None:
    """What the command made of `source` (its first `count` frames) against the source itself."""
    before, after = read(source, count), written(folder, output)
    assert len(after) == len(before) == (count or clip.frames)
    assert {frame.image.shape for frame in after} == {(*clip.size, 3)}
    clock = OUTPUTS[output]
    if clock is not None:
        # Matroska begins at 0: what begins before it, a codec's run-in, moves the whole clip.
        shift = after[0].pts * after[0].time_base - before[0].pts * before[0].time_base  # type: ignore[operator]
        assert abs(shift) <= (0 if output in ("out.mp4", "out.mov") else Fraction(1, 10))
        for a, b in zip(before, after, strict=True):
            assert abs(a.pts * a.time_base + shift - b.pts * b.time_base) <= clock  # type: ignore[operator]
    for a, b in zip(before[::7], after[::7], strict=True):
        error = a.image.astype(int) - b.image
        assert np.abs(error.mean(axis=(0, 1))).max() < 1.5  # no colour is shifted
        assert np.abs(error).mean() < 6  # and it is the same picture, the same way up
        flipped = np.abs(a.image[::-1].astype(int) - b.image).mean()
        assert np.abs(error).mean() < flipped / 2
    if clip.sound and output in COPIED:
        ours, theirs = clips.packets(folder / output, "audio"), clips.packets(source, "audio")
        assert ours
        if clip.sound in COPIED[output]:
            assert [data for _, data in ours] == [data for _, data in theirs][: len(ours)]
            assert count or len(ours) == len(theirs)
    left = sorted(path.name for path in folder.iterdir())
    assert left == [output.partition("/")[0]]


# The large ones go through the two usual containers only: the rest is the same code.
SHORT = [(name, out) for name in CLIPS for out in OUTPUTS if CLIPS[name].size[0] < 720 or out in ("out.mp4", "out.mkv")]


@pytest.mark.parametrize(("name", "output"), SHORT)
def test_a_clip_in_is_the_clip_out(engine: Path, data_dir: Path, tmp_path: Path, name: str, output: str) -> None:
    clip = CLIPS[name]
    count = 3 if clip.size[0] == 720 else 6 if clip.size[0] == 480 else 12
    source = data_dir / "videos" / name
    spec = f"{tmp_path}/{output}"
    assert translate(engine, source, "-o", spec, "--max-frames", str(count)) == 0
    check(source, clip, tmp_path, output, count)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_a_whole_clip_in_is_the_whole_clip_out(engine: Path, data_dir: Path, tmp_path: Path, name: str) -> None:
    clip, source, output = CLIPS[name], data_dir / "videos" / name, tmp_path / "out.mp4"
    options = ["--device", "cpu", "--size", "32x32", "--crf", "40", "-q", "--no-progress"]
    assert main(["translate", "--engine", str(engine), str(source), "-o", str(output), *options]) == clip.code
    times, made = (sorted(time for time, _ in clips.packets(path, "video")) for path in (source, output))
    assert len(made) == clip.frames
    if not clip.code:
        assert made == times
    sound, copied = clips.packets(source, "audio"), clips.packets(output, "audio")
    assert copied == sound
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_every_picture_in_is_the_picture_out(engine: Path, data_dir: Path, tmp_path: Path) -> None:
    sources = sorted((data_dir / "images").iterdir())
    assert len(sources) == 23
    for source in sources:
        output = tmp_path / f"{source.name}.png"
        code = translate(engine, source, "-o", output)
        assert code == (5 if source.name in DAMAGED else 0), source.name
        if code:
            assert not output.exists()
            continue
        before, after = read_picture(source), read_picture(output)
        np.testing.assert_array_equal(before.image, after.image, source.name)
        assert (before.alpha is None) == (after.alpha is None)
        if before.alpha is not None:
            np.testing.assert_array_equal(before.alpha, after.alpha)
    assert len(list(tmp_path.iterdir())) == 18


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p12le", "gray"]
)
def test_eight_and_ten_bit_sources_keep_their_colours(engine: Path, tmp_path: Path, pix_fmt: str) -> None:
    """A ramp of luma, made by FFmpeg in the format itself; to a lossless clip of the same colours."""
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 64, pix_fmt
        frame = av.VideoFrame(256, 64, pix_fmt)
        bits = frame.format.components[0].bits
        for index, plane in enumerate(frame.planes):
            kind = np.uint16 if bits > 8 else np.uint8
            rows = np.frombuffer(plane, kind).reshape(plane.height, -1)
            ramp = np.linspace(16, 235, plane.width) * (1 << (bits - 8))
            rows[:, : plane.width] = ramp if index == 0 else 128 << (bits - 8)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    (tmp_path / "made").mkdir()
    lossless = ["--codec", "ffv1", "--pix-fmt", "bgr0"]
    assert translate(engine, tmp_path / "in.mkv", "-o", tmp_path / "made" / "out.mkv", *lossless) == 0
    (made,) = read(tmp_path / "made" / "out.mkv")
    ramp = np.linspace(16, 235, 256)
    exact = ramp if pix_fmt == "gray" else np.clip((ramp - 16) * 255 / 219, 0, 255)  # grey has the full range
    assert np.abs(made.image.astype(float) - exact[None, :, None]).max() <= 1.6  # the source was rounded as well
