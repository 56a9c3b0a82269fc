"""Which files are pictures, and what is read from them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from gantrt.errors import UnsupportedInput
from gantrt_training.pictures import halves, list_pictures, read_as_stored, read_picture
from tiny_pictures import picture, write


def test_colours_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_array_equal(read_picture(write(tmp_path / "x.png", red), 3), red)


def test_grey_and_colour_are_read_as_the_channels_asked_for(tmp_path: Path) -> None:
    grey = picture(1, channels=1)
    path = write(tmp_path / "x.png", grey)
    np.testing.assert_array_equal(read_picture(path, 1), grey)
    np.testing.assert_array_equal(read_picture(path, 3), np.repeat(grey, 3, axis=2))
    assert read_picture(write(tmp_path / "y.png", picture(2)), 1).shape == (10, 12, 1)


def test_16_bit_values_are_scaled_to_8(tmp_path: Path) -> None:
    levels = np.array([[0, 128, 257, 40_000, 65_535]], np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), levels)
    assert read_picture(tmp_path / "x.png", 1)[0, :, 0].tolist() == [0, 0, 1, 156, 255]


def test_alpha_is_dropped_and_colour_kept(tmp_path: Path) -> None:
    rgba = picture(3, channels=4)
    cv2.imwrite(str(tmp_path / "x.png"), rgba[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png", 3), rgba[..., :3])


def test_floating_point_pictures_are_refused_by_name(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.tiff"), np.zeros((4, 4), np.float32))
    with pytest.raises(UnsupportedInput, match=r"x\.tiff.*8 or 16 bits"):
        read_picture(tmp_path / "x.tiff", 1)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\nand then nothing"])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UnsupportedInput, match=r"x\.png"):
        read_picture(tmp_path / "x.png", 3)


def test_content_counts_not_the_suffix(tmp_path: Path) -> None:
    write(tmp_path / "a.png", picture(4)).rename(tmp_path / "a.jpg")
    write(tmp_path / "b.png", picture(5)).rename(tmp_path / "b")
    for name in ("Thumbs.db", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_text("x")
    assert [path.name for path in list_pictures(tmp_path)] == ["a.jpg", "b"]
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg", 3), picture(4))


def test_odd_widths_have_no_halves(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInput, match=r"x\.png: 7 pixels wide"):
        halves(picture(0, width=7), tmp_path / "x.png")


def test_real_pictures_are_upright_and_damaged_ones_named(data_dir: Path) -> None:
    images = data_dir / "images"
    for name in ("Landscape_6.jpg", "rommel.jpg", "rotation_6.jpg"):
        turned = read_picture(images / name, 3).shape[:2]
        assert turned == cv2.imread(str(images / name), cv2.IMREAD_UNCHANGED).shape[1::-1]
    readable = 0
    for path in list_pictures(images):
        try:
            assert read_picture(path, 3).shape[2] == 3
            assert read_picture(path, 1).shape[2] == 1
            readable += 1
        except UnsupportedInput as error:
            assert str(path) in str(error)  # noqa: PT017
    assert readable >= 17


def test_stored_values_survive_as_they_are(data_dir: Path) -> None:
    images = data_dir / "images"
    assert read_as_stored(images / "sample.png").dtype == np.uint16
    assert read_as_stored(images / "rgba.png").shape == (128, 128, 4)
    assert read_as_stored(images / "hopper_gray.jpg").ndim == 2
    assert read_as_stored(images / "rotation_6.jpg").shape == (308, 231, 3)
