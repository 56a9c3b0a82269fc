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


def test_fractions_are_taken_within_0_and_1_and_refused_by_name_beyond(tmp_path: Path) -> None:
    fractions = np.array([[0, 0.25, 0.5, 1]], np.float32)
    cv2.imwrite(str(tmp_path / "x.tiff"), fractions)
    assert read_picture(tmp_path / "x.tiff", 1)[0, :, 0].tolist() == [0, 64, 128, 255]
    assert read_picture(tmp_path / "x.tiff", 1, 16)[0, :, 0].tolist() == [0, 16384, 32768, 65535]
    for bad in (fractions * 2, fractions - 1, fractions * np.nan):
        cv2.imwrite(str(tmp_path / "y.tiff"), bad)
        with pytest.raises(UnsupportedInput, match=r"y\.tiff: holds fractions from .* scale them"):
            read_picture(tmp_path / "y.tiff", 1)
    np.save(tmp_path / "z.npy", np.zeros((4, 4), np.int32))
    with pytest.raises(UnsupportedInput, match=r"z\.npy: holds int32 values; save it with 8 or 16 bits"):
        read_picture(tmp_path / "z.npy", 1)


def test_16_bits_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (6, 5, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), deep[..., ::-1])
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png", 3, 16), deep)
    shallow = write(tmp_path / "y.png", picture(0))
    np.testing.assert_array_equal(read_picture(shallow, 3, 16), picture(0).astype(np.uint16) * 257)
    for bits, wanted in ((8, [0, 128, 255, 255]), (16, [0, 32776, 65535, 65535])):
        cv2.imwrite(str(tmp_path / "z.png"), np.array([[0, 2048, 4095, 5000]], np.uint16))
        assert read_picture(tmp_path / "z.png", 1, bits, white=4095)[0, :, 0].tolist() == wanted  # type: ignore[arg-type]


def test_12_bits_taken_for_16_are_pointed_out_once(
    data_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch
) -> None:
    monkeypatch.setattr("gantrt_training.pictures._dark", set())
    for _ in range(2):
        read_picture(data_dir / "images" / "16bit.cropped.tif", 1)
    assert caplog.text.count("16bit.cropped.tif reaches 694 of 65535, and will be almost black") == 1
    assert read_picture(data_dir / "images" / "16bit.cropped.tif", 1, white=694).max() == 255


def test_four_channels_are_rgb_and_alpha(tmp_path: Path) -> None:
    rgba = picture(3, channels=4)
    cv2.imwrite(str(tmp_path / "x.png"), rgba[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png", 4), rgba)
    with pytest.raises(UnsupportedInput, match=r"y\.png: holds 3 channels, not 4"):
        read_picture(write(tmp_path / "y.png", picture(0)), 4)
    with pytest.raises(UnsupportedInput, match=r"holds 4 channels, not 6; such pictures are .npy, .npz or .tif"):
        read_picture(tmp_path / "x.png", 6)


def test_arrays_of_any_channels_are_read_either_way_round(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 1 << 16, (6, 5, 7), np.uint16)
    np.save(tmp_path / "last.npy", stack)
    np.save(tmp_path / "first.npy", stack.transpose(2, 0, 1))
    np.savez_compressed(tmp_path / "one.npz", bands=stack)
    (tmp_path / "first.npy").rename(tmp_path / "first.png")  # a suffix that lies
    for name in ("last.npy", "first.png", "one.npz"):
        np.testing.assert_array_equal(read_picture(tmp_path / name, 7, 16), stack)
    assert [path.name for path in list_pictures(tmp_path)] == ["first.png", "last.npy", "one.npz"]
    np.save(tmp_path / "grey.npy", stack[..., 0])
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.npy", 1, 16), stack[..., :1])
    with pytest.raises(UnsupportedInput, match=r"last\.npy: holds 6x5x7, not height x width x 3; set channels_a"):
        read_picture(tmp_path / "last.npy", 3)
    np.savez(tmp_path / "two.npz", a=stack, b=stack)
    with pytest.raises(UnsupportedInput, match=r"two\.npz: holds 2 arrays, not one"):
        read_picture(tmp_path / "two.npz", 7)


def test_tiffs_of_any_channels_are_read_in_layers_and_in_pages(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for channels in (2, 4, 13):
        stack = np.random.default_rng(0).integers(0, 1 << 16, (6, 5, channels), np.uint16)
        tifffile.imwrite(tmp_path / "layers.tif", stack, photometric="minisblack", planarconfig="contig")
        tifffile.imwrite(tmp_path / "pages.tif", stack.transpose(2, 0, 1), photometric="minisblack")
        tifffile.imwrite(
            tmp_path / "small.tif",
            stack.transpose(2, 0, 1),
            photometric="minisblack",
            compression="zlib",
        )
        for name in ("layers.tif", "pages.tif", "small.tif"):
            np.testing.assert_array_equal(read_picture(tmp_path / name, channels, 16), stack)
    with pytest.raises(UnsupportedInput, match=r"layers\.tif: holds 6x5x13, not height x width x 5"):
        read_picture(tmp_path / "layers.tif", 5)


def test_arrays_and_tiffs_that_are_damaged_or_run_code_are_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "code.npy", np.array([{"an": "object"}], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", np.zeros((8, 8, 5), np.uint8))
    np.save(tmp_path / "x.npy", np.zeros((8, 8, 5), np.uint8))
    pytest.importorskip("tifffile").imwrite(tmp_path / "x.tif", np.zeros((5, 64, 64), np.uint8))
    for name in ("x.npz", "x.npy", "x.tif"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(whole[: len(whole) * 2 // 3])
    for name in ("code.npy", "cut_x.npz", "cut_x.npy", "cut_x.tif"):
        with pytest.raises(UnsupportedInput, match=name) as caught:
            read_picture(tmp_path / name, 5)
        assert "\n" not in str(caught.value)


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
