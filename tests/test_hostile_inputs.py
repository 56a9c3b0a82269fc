"""Pictures and clips made to harm, and honest ones cut anywhere: a line, exit code 0 or 5, what was done is kept."""

from __future__ import annotations

import resource
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import write_clip
from gantrt.cli import main
from gantrt.errors import UnsupportedInput
from gantrt.video.images import MAX_PIXELS, read_picture
from tiny_networks import write_pointwise

CUT_EVERY = 16  # of the kilobytes of a clip; bench/hostile.py takes each


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pointwise(tmp_path_factory.mktemp("engine") / "copy.onnx")


def png(width: int, height: int, rows: bytes, depth: int = 8, kind: int = 0) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIIIII", 60, 0, 54, 40, width, height, 1, 24, 0, 6, 0, 0, 0, 0) + bytes(6)


def tiff(width: int, height: int) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: height, 279: 4}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)).ljust(220, b"\0")


def encoded(suffix: str, picture: np.ndarray | None = None) -> bytes:
    picture = np.full((6, 5, 3), 90, np.uint8) if picture is None else picture
    return bytes(cv2.imencode(suffix, picture)[1])


REFUSED: dict[str, Callable[[], bytes]] = {
    "PNG of 10 gigapixels": lambda: png(100_000, 100_000, bytes(10_000)),
    "PNG of 2 ** 31 columns": lambda: png(1 << 31, 1, bytes(100)),
    "PNG of no columns": lambda: png(0, 5, bytes(10)),
    "PNG without its pixels": lambda: png(4000, 4000, bytes(100)),
    "BMP of 4 exapixels": lambda: bmp(-(1 << 31), -(1 << 31)),
    "BMP of no rows": lambda: bmp(5, 0),
    "TIFF of 4 exapixels": lambda: tiff(1 << 31, 1 << 31),
    "TIFF without its pixels": lambda: tiff(3000, 3000),
    "TIFF whose directory is nowhere": lambda: b"II*\0" + struct.pack("<I", 1 << 31) + bytes(64),
    "GIF of no pixels": lambda: b"GIF89a" + bytes(7) + b"\x2c" + bytes(9) + b"\x02\0\x3b",
    "GIF that never ends": lambda: b"GIF89a\x05\0\x05\0\0\0\0" + b"\x21\xfe\x01\x00" * 5000,
    "WebP that says it is longer": lambda: encoded(".webp")[:4] + b"\xff\xff\xff\x7f" + encoded(".webp")[8:],
    "JPEG with a segment of no length": lambda: b"\xff\xd8\xff\xe0\0\0" * 40,
    "a text": lambda: b"no picture at all, but a text",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_picture_that_cannot_be_is_a_line_and_takes_no_memory(
    tmp_path: Path, engine: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.png").write_bytes(REFUSED[case]())
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    words = [
        "translate",
        "--engine",
        str(engine),
        str(tmp_path / "in.png"),
        "-o",
        str(tmp_path / "out.png"),
        "--no-progress",
        "-q",
    ]
    assert main(words) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gantrt: {tmp_path / 'in.png'}: ")
    assert not (tmp_path / "out.png").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    assert time.monotonic() - begin < 10


def test_the_largest_picture_that_is_decoded_is_bounded(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    (tmp_path / "in.png").write_bytes(png(side, side, b""))
    with pytest.raises(UnsupportedInput, match="megapixels we decode"):
        read_picture(tmp_path / "in.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_the_suffix_is_not_believed(tmp_path: Path, engine: Path, suffix: str) -> None:
    (tmp_path / "in.jpg").write_bytes(encoded(suffix))
    assert (
        main(["translate", "--engine", str(engine), str(tmp_path / "in.jpg"), "-o", str(tmp_path / "out.png"), "-q"])
        == 0
    )
    assert read_picture(tmp_path / "out.png").image.shape == (6, 5, 3)


@pytest.mark.parametrize(
    "picture",
    [
        np.full((1, 1), 9, np.uint8),
        np.full((1, 1, 3), 9, np.uint16),
        np.full((1, 900, 4), 9, np.uint8),
        np.full((900, 1), 9, np.uint8),
    ],
    ids=["1x1 grey", "1x1 of 16 bit", "one row with alpha", "one column"],
)
def test_the_smallest_pictures_are_pictures(tmp_path: Path, engine: Path, picture: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    for fit in ("resize", "tile", *["pad"] * (max(picture.shape) < 16)):
        out = tmp_path / f"{fit}.png"
        assert (
            main(["translate", "--engine", str(engine), str(tmp_path / "in.png"), "-o", str(out), "--fit", fit, "-q"])
            == 0
        )
        assert read_picture(out).image.shape == (*picture.shape[:2], 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_a_picture_cut_anywhere_is_a_line(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    data = encoded(suffix, noise)
    for end in range(0, len(data) - 8, max(1, len(data) // 40)):
        (tmp_path / "in").write_bytes(data[:end])
        with pytest.raises(UnsupportedInput) as caught:
            read_picture(tmp_path / "in")
        assert "\n" not in str(caught.value)


def test_all_pictures_of_the_collection_end_well(
    data_dir: Path, engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CMYK, 16 bit, palettes, all orientations, cut ones, and files that are none."""
    files = sorted(path for path in (data_dir / "images").rglob("*") if path.is_file())
    assert len(files) >= 20
    for number, path in enumerate(files):
        code = main(["translate", "--engine", str(engine), str(path), "-o", str(tmp_path / f"{number}.png"), "-q"])
        said = capsys.readouterr().err
        assert code in (0, 5), (path, said)
        assert "Traceback" not in said
        assert "unforeseen" not in said


# Clips


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("clip") / "in.mkv")


def write_noise(path: Path) -> Path:
    """A clip of 40 frames in less than 60 kB, each of more than one."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"crf": "34", "g": "6", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(40):
            out.mux(video.encode(av.VideoFrame.from_ndarray(noise.integers(0, 256, (48, 64, 3), np.uint8), "rgb24")))
        out.mux(video.encode(None))
    assert 40_000 < path.stat().st_size < 60_000
    return path


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_a_clip_cut_anywhere_is_kept_as_far_as_it_goes(
    clip: Path, engine: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (
        clip.read_bytes()
        if kind == "mkv"
        else write_clip(tmp_path / "whole.mp4", faststart=True, sound="aac").read_bytes()
    )
    step = (CUT_EVERY << 10) if kind == "mkv" else len(data) // 4
    for end in (*range(0, len(data), step), len(data) - 1, len(data)):
        check_cut(data[:end], tmp_path, kind, engine)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "unforeseen" not in said


def check_cut(data: bytes, folder: Path, kind: str, engine: Path) -> tuple[int, int]:
    """Translate what is left of a clip: the exit code, which is 0 or 5, and how many frames are kept and play."""
    source, out = folder / f"cut.{kind}", folder / "out.mp4"
    source.write_bytes(data)
    out.unlink(missing_ok=True)
    begin = time.monotonic()
    words = ["translate", "--engine", str(engine), str(source), "-o", str(out), "--overwrite", "--no-progress", "-q"]
    code = main(words)
    assert code in (0, 5)
    assert time.monotonic() - begin < 60
    frames = 0
    if out.exists():
        with av.open(str(out)) as made:
            frames = sum(1 for _ in made.decode(video=0))
        assert frames
    assert frames or code == 5
    return code, frames


@pytest.mark.parametrize("kind", ["mkv", "mp4", "mov", "avi"])
def test_a_clip_that_lost_its_last_bytes_says_so_though_all_frames_play(
    engine: Path, tmp_path: Path, kind: str
) -> None:
    data = write_noise(tmp_path / f"whole.{kind}").read_bytes()
    assert check_cut(data, tmp_path, kind, engine) == (0, 40)
    assert check_cut(data[:-3], tmp_path, kind, engine)[0] == 5
    if kind in ("mkv", "avi"):  # the others play nothing without their index, which is behind the frames
        code, frames = check_cut(data[:-6000], tmp_path, kind, engine)
        assert code == 5
        assert 30 <= frames < 40


@pytest.mark.parametrize(
    "header",
    [
        b"YUV4MPEG2 W99999999 H99999999", b"YUV4MPEG2 W99999999999999999999 H1", b"YUV4MPEG2 W4 H0",
        b"YUV4MPEG2 W-4 H-4",
        b"YUV4MPEG2 W4 H4 F1:99999999999", b"YUV4MPEG2 W4 H4 F9" + b"9" * 3000 + b":1", b"YUV4MPEG2 W4 H4 Cpal8",
        b"YUV4MPEG2 W4", b"YUV4MPEG2", b"", b"\0" * 5000, b"RIFF", b"YUV4MPEG2 W1e3 H4", b"YUV4MPEG2 W4 H4 It",
    ],
    ids=lambda header: repr(header[:30]),
)  # fmt: skip
def test_a_y4m_header_that_cannot_be_is_a_line(header: bytes) -> None:
    from gantrt.video.schemes.y4m import parse_header

    with pytest.raises(UnsupportedInput) as caught:
        parse_header(header)
    assert "\n" not in str(caught.value)
