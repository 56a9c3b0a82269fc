"""Tiles: no seams, the same picture as without them, whatever the sizes."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
import pytest
from gantrt.tiling import spans
from gantrt.translator import Translator
from gantrt.video.images import read_picture
from tiny_networks import write_convolutions, write_generator, write_pointwise


def load(path: Path, **options: Any) -> Translator:
    return gantrt.load(path, device="cpu", cache_dir="", precision="fp32", **options)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9)))


def photo(data_dir: Path, height: int, width: int) -> np.ndarray:
    image = read_picture(data_dir / "images" / "kodim03.png").image
    return np.ascontiguousarray(np.tile(image, (2, 2, 1))[:height, :width])


@pytest.mark.parametrize("length", [64, 65, 70, 96, 97, 127, 128, 129, 200, 255, 256, 511, 720, 1280])
@pytest.mark.parametrize("overlap", [0, 1, 8, 16, 31, 32])
def test_weights_of_tiles_add_up_to_one_and_tiles_overlap_enough(length: int, overlap: int) -> None:
    tiles = spans(length, 64, overlap)
    total = np.zeros(length)
    for tile in tiles:
        assert tile.weight.shape == (64,)
        assert tile.weight.min() >= 0
        assert tile.weight.max() <= 1
        total[tile.start : tile.start + 64] += tile.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert tiles[0].start == 0
    assert tiles[-1].start == length - 64
    for before, after in pairwise(tiles):
        assert before.start + 64 - after.start >= overlap
    assert len(tiles) <= 1 + -(-(length - 64) // (64 - overlap))


def test_what_lies_near_an_inner_edge_is_not_used() -> None:
    first, second = spans(96, 64, 32)
    assert not first.weight[-8:].any()
    assert not second.weight[:8].any()
    assert (first.weight[:40] == 1).all()


@pytest.mark.parametrize("size", [(16, 24), (17, 24), (16, 60), (5, 9), (1, 1), (100, 131), (240, 320)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_pointwise_network_in_tiles_is_the_network(tmp_path: Path, size: tuple[int, int], batch: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    with load(write_pointwise(tmp_path / "negative.onnx", gain=-1, batch=batch), fit="tile") as translator:
        np.testing.assert_array_equal(translator(frame), 255 - frame)
        assert translator.stats().frames == 1


@pytest.mark.parametrize(
    ("size", "overlap", "most"), [((256, 384), None, 255), ((300, 400), 32, 1), ((480, 640), None, 255)]
)
def test_tiles_have_no_seams_where_the_network_sees_less_than_their_overlap(
    tmp_path: Path, data_dir: Path, size: tuple[int, int], overlap: int | None, most: int
) -> None:
    """Eight 3x3 convolutions see 8 pixels around: of the whole and of tiles the interior is the same picture.

    To the last level with an overlap of four times what it sees, whose outer fourths are never used.
    """
    frame = photo(data_dir, *size)
    whole = write_convolutions(tmp_path / "whole.onnx", dynamic=True, size=(64, 96))
    tiles = write_convolutions(tmp_path / "tiles.onnx", size=(64, 96))
    with load(whole, fit="pad") as translator:
        expected = translator(frame)
    with load(tiles, fit="tile", overlap=overlap) as translator:
        made = translator(frame)
    inner = slice(16, -16), slice(16, -16)
    assert psnr(made[inner], expected[inner]) >= 45
    assert np.abs(made[inner].astype(int) - expected[inner]).max() <= most
    assert expected.std() > 20  # it is a picture
    with load(tiles) as translator:  # resizing, in comparison, is another picture
        assert psnr(translator(frame)[inner], expected[inner]) < 40


def test_without_overlap_there_are_seams(tmp_path: Path, data_dir: Path) -> None:
    """What the test above would see if tiles were only put side by side."""
    frame = photo(data_dir, 256, 384)
    with load(write_convolutions(tmp_path / "whole.onnx", dynamic=True), fit="pad") as translator:
        expected = translator(frame)
    with load(write_convolutions(tmp_path / "tiles.onnx", size=(64, 96)), fit="tile", overlap=0) as translator:
        assert psnr(translator(frame)[16:-16, 16:-16], expected[16:-16, 16:-16]) < 45


def test_a_dynamic_engine_is_tiled_at_the_size_asked_for(tmp_path: Path, data_dir: Path) -> None:
    frame = photo(data_dir, 200, 300)
    path = write_convolutions(tmp_path / "d.onnx", dynamic=True, size=(64, 64), multiple=32)
    with load(path, fit="pad") as translator:
        expected = translator(frame)
    for size in (None, (96, 128)):
        with load(path, fit="tile", size=size) as translator:
            assert psnr(translator(frame)[16:-16, 16:-16], expected[16:-16, 16:-16]) >= 45


def test_a_network_that_normalises_each_picture_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_generator(tmp_path / "g.onnx")  # its manifest says instance norm
    with caplog.at_level(logging.WARNING, "gantrt"):
        load(path, fit="tile").close()
        assert "normalises over each picture" in caplog.text
        caplog.clear()
        load(path, fit="resize").close()
        assert not caplog.text


def test_pad_takes_smaller_frames_with_a_fixed_engine(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (10, 13, 3), np.uint8)
    with load(write_pointwise(tmp_path / "negative.onnx", gain=-1), fit="pad") as translator:
        np.testing.assert_array_equal(translator(frame), 255 - frame)


def test_many_threads_with_tiles_get_their_own_pictures(tmp_path: Path) -> None:
    with load(write_pointwise(tmp_path / "negative.onnx", gain=-1), fit="tile", streams=2) as translator:
        frames = [np.full((40, 50, 3), value, np.uint8) for value in range(0, 200, 10)]
        futures = [translator.submit(frame) for frame in frames]
        for frame, future in zip(frames, futures, strict=True):
            np.testing.assert_array_equal(future.result(), 255 - frame)
