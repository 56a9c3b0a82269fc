"""Pictures in files: what is read is what a viewer shows, damage is refused, nothing half-written stays."""

from __future__ import annotations

import contextlib
import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from gantrt.errors import GantrtError, UnsupportedInput, UsageError
from gantrt.video import Frame, SinkOptions, headers, images, open_source
from gantrt.video.images import (
    Picture,
    PictureFolder,
    Pictures,
    decode_picture,
    encode_picture,
    read_picture,
    write_picture,
)
from gantrt.video.orientation import EXIF, from_display_matrix
from numpy.typing import NDArray

Image = NDArray[np.uint8]

REFUSED = ("broken.png", "corrupt-header.jpg", "decompression_bomb.gif", "truncated_image.png", "truncated_jpeg.jpg")


def noise(height: int = 12, width: int = 20, channels: int = 3, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def smooth(height: int = 64, width: int = 96) -> Image:
    """Something JPEG and WebP keep nearly exactly."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)], -1).astype(np.uint8)


def encoded(suffix: str, image: Image) -> bytes:
    bgr = image[..., [2, 1, 0, 3]] if image.shape[2] == 4 else image[..., ::-1]
    return cv2.imencode(suffix, bgr)[1].tobytes()


def exif(orientation: int, order: str = "<") -> bytes:
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0
    )


def with_exif(data: bytes, orientation: int) -> bytes:
    """A JPEG, PNG or WebP with that EXIF orientation."""
    if data[:2] == b"\xff\xd8":
        body = b"Exif\0\0" + exif(orientation, ">")
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if data[:4] == b"\x89PNG":
        chunk = b"eXIf" + exif(orientation)
        return data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    size = headers.read_header(data)
    x = b"VP8X" + struct.pack("<IB3x", 10, 8) + (size.width - 1).to_bytes(3, "little")
    chunks = (
        x + (size.height - 1).to_bytes(3, "little") + data[12:] + b"EXIF" + struct.pack("<I", 26) + exif(orientation)
    )
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def tiff(image: NDArray[np.uint8] | NDArray[np.uint16], orientation: int) -> bytes:
    """An uncompressed RGB TIFF of 8 or 16 bits."""
    height, width, _ = image.shape
    tags = [(0x100, 3, 1, width), (0x101, 3, 1, height), (0x102, 3, 3, 0), (0x103, 3, 1, 1), (0x106, 3, 1, 2)]
    tags += [(0x111, 4, 1, 0), (0x112, 3, 1, orientation), (0x115, 3, 1, 3), (0x116, 3, 1, height)]
    tags += [(0x117, 4, 1, image.nbytes)]
    depths = 8 + 2 + 12 * len(tags) + 4
    values = {0x102: depths, 0x111: depths + 6}
    entries = b"".join(struct.pack("<HHII", tag, kind, n, values.get(tag, v)) for tag, kind, n, v in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    return head + struct.pack("<HHH", *[8 * image.itemsize] * 3) + image.tobytes()


def real_pictures(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "images").iterdir())


def test_real_pictures_are_read_as_a_viewer_shows_them(data_dir: Path) -> None:
    read = 0
    for path in real_pictures(data_dir):
        if path.name in REFUSED:
            continue
        picture = read_picture(path)
        twin = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]  # applies the orientation, drops alpha and depth
        assert picture.image.shape == twin.shape, path.name
        assert picture.image.flags.c_contiguous, path.name
        # OpenCV cuts 16 bits to 8 where we round; and it rounds grey to colour.
        assert int(np.abs(picture.image.astype(int) - twin).max()) <= 1, path.name
        read += 1
    assert read == 18


@pytest.mark.parametrize("name", REFUSED)
def test_real_damaged_pictures_are_refused(data_dir: Path, name: str) -> None:
    with pytest.raises(UnsupportedInput, match=name):
        read_picture(data_dir / "images" / name)


def test_real_bomb_is_refused_for_its_size(data_dir: Path) -> None:
    with pytest.raises(UnsupportedInput, match=r"claims 65535x66601, more than the 268 megapixels"):
        read_picture(data_dir / "images" / "decompression_bomb.gif")


def test_a_header_that_claims_too_much_is_refused_before_decoding(tmp_path: Path) -> None:
    data = bytearray(encoded(".png", noise()))
    data[16:24] = struct.pack(">II", 60000, 60000)
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(UnsupportedInput, match="claims 60000x60000"):
        read_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(with_exif(encoded(suffix, smooth()), orientation))
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]
    expected = {  # as the EXIF standard says it: where the 0th row and the 0th column of the stored picture are shown
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }
    np.testing.assert_array_equal(read_picture(path).image, expected[orientation])
    assert images._size(path) == read_picture(path).image.shape[1::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_orientation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    for name, image in (("8.tif", noise()), ("16.tif", noise().astype(np.uint16) * 257)):
        (tmp_path / name).write_bytes(tiff(image, orientation))
        np.testing.assert_array_equal(read_picture(tmp_path / name).image, EXIF[orientation].apply(noise()))
        assert images._size(tmp_path / name) == read_picture(tmp_path / name).image.shape[1::-1]


def test_display_matrix_says_what_exif_says() -> None:
    one = 1 << 16
    turned = {
        1: (one, 0, 0, one),
        2: (-one, 0, 0, one),
        3: (-one, 0, 0, -one),
        6: (0, one, -one, 0),
        8: (0, -one, one, 0),
    }
    for orientation, (a, b, c, d) in turned.items():
        matrix = struct.pack("<9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        assert from_display_matrix(matrix) == EXIF[orientation]


def test_alpha_comes_back_unchanged_where_the_format_has_it(tmp_path: Path) -> None:
    rgba = noise(channels=4)
    (tmp_path / "in.png").write_bytes(encoded(".png", rgba))
    picture = read_picture(tmp_path / "in.png")
    np.testing.assert_array_equal(picture.image, rgba[..., :3])
    for name in ("out.png", "out.tif"):
        write_picture(tmp_path / name, Picture(255 - picture.image, picture.alpha))
        back = read_picture(tmp_path / name)
        np.testing.assert_array_equal(back.image, 255 - rgba[..., :3])
        np.testing.assert_array_equal(back.alpha, rgba[..., 3])


def test_alpha_is_turned_with_its_picture(tmp_path: Path) -> None:
    rgba = noise(channels=4)
    (tmp_path / "in.png").write_bytes(with_exif(encoded(".png", rgba), 6))
    np.testing.assert_array_equal(read_picture(tmp_path / "in.png").alpha, np.rot90(rgba[..., 3], -1))


def test_dropped_alpha_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "gantrt"):
        write_picture(tmp_path / "out.jpg", Picture(noise(), noise()[..., 0]))
    assert "no transparency" in caplog.text
    assert read_picture(tmp_path / "out.jpg").alpha is None


def test_sixteen_bits_are_rounded_to_eight(tmp_path: Path) -> None:
    values = np.array([0, 128, 129, 257, 385, 386, 32768, 65407, 65535], np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), np.dstack([values[None]] * 3))
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png").image[0, :, 0], expected)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), noise()[..., 0])
    image = read_picture(tmp_path / "grey.png").image
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], noise()[..., 0])


def test_float_values_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "float.tif"), np.zeros((4, 4, 3), np.float32))
    with pytest.raises(UnsupportedInput, match="float32"):
        read_picture(tmp_path / "float.tif")


def test_suffix_is_not_trusted_and_paths_may_be_odd(tmp_path: Path) -> None:
    path = tmp_path / "50% Größe №1 a:b %05d.jpg"
    path.write_bytes(encoded(".png", noise()))
    np.testing.assert_array_equal(read_picture(path).image, noise())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".gif", ".tiff"])
def test_a_picture_cut_off_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    data = encoded(suffix, noise(40, 60))
    path = tmp_path / f"cut{suffix}"
    for kept in [*range(0, 64, 7), *np.linspace(64, len(data) - 8, 12).astype(int).tolist()]:
        path.write_bytes(data[:kept])
        with pytest.raises(UnsupportedInput, match="cut"):
            read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".gif", ".tiff"])
def test_flipped_bytes_never_raise_anything_else(tmp_path: Path, suffix: str) -> None:
    data, random = encoded(suffix, noise(16, 16)), np.random.default_rng(0)
    path = tmp_path / f"flipped{suffix}"
    for _ in range(150):
        flipped = bytearray(data)
        for at in random.integers(0, min(len(data), 120), 3):
            flipped[at] = random.integers(256)
        path.write_bytes(flipped)
        with contextlib.suppress(UnsupportedInput):
            assert read_picture(path).image.ndim == 3


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UnsupportedInput, match=str(path)):
            read_picture(path)


@pytest.mark.parametrize(
    ("suffix", "error"), [(".png", 0), (".bmp", 0), (".TIFF", 0), (".jpg", 4), (".JPEG", 4), (".webp", 6)]
)
def test_formats_keep_what_they_can(tmp_path: Path, suffix: str, error: int) -> None:
    write_picture(tmp_path / f"out{suffix}", Picture(smooth()))
    back = read_picture(tmp_path / f"out{suffix}").image
    assert int(np.abs(back.astype(int) - smooth()).max()) <= error


def test_formats_we_do_not_write_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png"):
        write_picture(tmp_path / "out.gif", Picture(noise()))


def test_unwritable_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GantrtError, match="cannot be written") as caught:
        write_picture(tmp_path / "file" / "out.png", Picture(noise()))
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_existing_picture_is_kept_without_overwrite(tmp_path: Path) -> None:
    write_picture(tmp_path / "out.png", Picture(noise()))
    with pytest.raises(GantrtError, match="--overwrite"):
        write_picture(tmp_path / "out.png", Picture(smooth()), overwrite=False)
    np.testing.assert_array_equal(read_picture(tmp_path / "out.png").image, noise())


def test_a_folder_of_pictures_is_a_clip_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        write_picture(tmp_path / f"{number}.png", Picture(np.full((4, 6, 3), number, np.uint8)))
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(tmp_path) as source:
        assert (source.width, source.height, source.frames, source.rate) == (6, 4, 3, 25)
        frames = list(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 9, 10]
    assert [frame.seconds for frame in frames] == [0, 0.04, 0.08]


def test_pictures_of_two_sizes_are_no_clip(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", Picture(noise(4, 6)))
    write_picture(tmp_path / "2.png", Picture(noise(6, 4)))
    with pytest.raises(UnsupportedInput, match=r"2.png: is 4x6 and 1.png is 6x4"):
        Pictures([tmp_path / "1.png", tmp_path / "2.png"])


def test_frames_folder_keeps_or_replaces_older_frames(tmp_path: Path) -> None:
    sink = PictureFolder(tmp_path / "frames", SinkOptions())
    for index in range(3):
        sink.write(Frame(noise(), index))
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == ["000001.png", "000002.png", "000003.png"]
    with pytest.raises(GantrtError, match="exists already"):
        PictureFolder(tmp_path / "frames", SinkOptions())
    PictureFolder(tmp_path / "frames", SinkOptions(overwrite=True)).write(Frame(noise(), 0))
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == ["000001.png"]


def test_pictures_in_memory_are_those_in_files(tmp_path: Path) -> None:
    picture = Picture(noise(), noise(channels=1)[..., 0])
    data = encode_picture(picture, ".png")
    write_picture(tmp_path / "x.png", picture)
    assert (tmp_path / "x.png").read_bytes() == data
    again = decode_picture(data, "x")
    assert np.array_equal(again.image, picture.image)
    assert again.alpha is not None
    assert np.array_equal(again.alpha, picture.alpha)
    with pytest.raises(UnsupportedInput, match="upload: claims 20x12, more than"):
        decode_picture(data, "upload", max_pixels=20 * 12 - 1)
