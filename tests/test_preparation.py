"""How pictures are scaled and cut: five ways, squares and rectangles, 8 and 16 bits."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from gantrt.errors import UnsupportedInput, UsageError
from gantrt_training.data import Batches, Data
from gantrt_training.preparation import Preparation, Preprocess, resize
from gantrt_training.recipe import make_recipe
from gantrt_training.sizes import HeightWidth
from tiny_pictures import make_pairs, picture, write

WIDE = HeightWidth(8, 12)
LOAD = HeightWidth(10, 15)


@pytest.mark.parametrize(
    ("mode", "given", "loaded", "cut"),
    [
        ("resize_and_crop", (40, 30), (10, 15), (8, 12)),
        ("scale_width_and_crop", (40, 30), (20, 15), (8, 12)),
        ("scale_width_and_crop", (10, 60), (8, 15), (8, 12)),  # never lower than the crop
        ("scale_width", (40, 30), (16, 12), (16, 12)),
        ("scale_width", (30, 45), (8, 12), (8, 12)),
        ("crop", (40, 30), (40, 30), (8, 12)),
        ("none", (41, 30), (40, 32), (40, 32)),
    ],
)
def test_each_way_scales_and_cuts_as_it_says(mode: Preprocess, given: tuple, loaded: tuple, cut: tuple) -> None:
    how = Preparation(WIDE, LOAD, mode=mode, multiple=4)
    waiting = how.load(picture(0, *given))
    assert waiting.shape == (*loaded, 3)
    for down, right in itertools.product((0.0, 0.5, 0.999999), repeat=2):
        assert how.cut(waiting, down, right, False).shape == (*cut, 3)
    assert how.whole(picture(0, *given)).shape == (8, 12, 3)


def test_cuts_reach_every_corner_and_mirrors_mirror() -> None:
    how, given = Preparation(WIDE, WIDE, mode="crop"), picture(0, 10, 13)
    np.testing.assert_array_equal(how.cut(given, 0, 0, False), given[:8, :12])
    np.testing.assert_array_equal(how.cut(given, 0.9999, 0.9999, False), given[2:, 1:])
    np.testing.assert_array_equal(how.cut(given, 0.4, 0.6, True), given[1:9, 1:][:, ::-1])


@pytest.mark.parametrize(
    ("mode", "height", "width", "fault"),
    [
        ("crop", 8, 11, "is 8x11, smaller than size 8x12"),
        ("none", 5, 30, "is 5x30, smaller than size 8x12"),
        ("scale_width", 30, 70, "is 30x70, and 4x12 at that width, lower than size 8x12"),
    ],
)
def test_a_picture_smaller_than_networks_are_made_for_is_refused(mode, height, width, fault) -> None:
    with pytest.raises(UnsupportedInput, match=f"{fault}; lower size, remove it, or set preprocess=resize_and_crop"):
        Preparation(WIDE, WIDE, mode=mode, multiple=4).load(picture(0, height, width))


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_16_bits_are_resized_as_8_are_but_finer(mode) -> None:
    eight = picture(0, 19, 23) // 2 + 64  # far from black and white: 8 bits are clipped between the passes
    how = Preparation(7, 7, interpolation=mode)
    deep = resize(eight.astype(np.uint16) * 257, HeightWidth(11, 30), how)
    assert (deep.dtype, deep.shape) == (np.uint16, (11, 30, 3))
    assert np.abs(deep / 257 - resize(eight, HeightWidth(11, 30), how).astype(float)).max() <= 1
    assert (deep % 257 != 0).mean() > 0.9  # values between the 8-bit ones


def test_pairs_are_cut_alike_in_rectangles(tmp_path: Path) -> None:
    how = Preparation(HeightWidth(4, 8), HeightWidth(6, 10), flip=True)
    batches = Batches(Data(make_pairs(tmp_path), (3, 3), how, paired=True), batch=2, seed=0)
    for step in range(6):
        a, b = (side.numpy().astype(int) for side in batches.load(step))
        assert a.shape == (2, 4, 8, 3)
        assert np.abs(a + b - 255).max() <= 2


def test_uncut_pictures_need_one_size_in_a_batch(tmp_path: Path) -> None:
    for n, height in enumerate((8, 8, 12)):
        for side in "AB":
            write(tmp_path / f"train{side}" / f"{n}.png", picture(n, height, 8))
    data = Data(tmp_path, (3, 3), Preparation(8, 8, mode="none", multiple=4), paired=True)
    sizes = {Batches(data, 1, seed=0).load(step)[0].shape[1] for step in range(3)}
    assert sizes == {8, 12}
    with pytest.raises(UnsupportedInput, match="a batch would hold pictures of 8x8, 12x8; set batch=1"):
        Batches(data, 3, seed=0).load(0)


def test_partners_of_different_sizes_cannot_be_cut_alike(tmp_path: Path) -> None:
    write(tmp_path / "trainA" / "0.png", picture(0, 10, 10))
    write(tmp_path / "trainB" / "0.png", picture(0, 10, 11))
    with pytest.raises(UnsupportedInput, match=r"trainA/0\.png: its partner differs in size, 10x10 and 10x11"):
        Batches(Data(tmp_path, (3, 3), Preparation(8, 8, mode="crop"), paired=True), 1, seed=0).load(0)


@pytest.mark.parametrize(
    ("text", "size", "load"),
    [("256x384", HeightWidth(256, 384), HeightWidth(286, 429)), ("256x256", 256, 286), ("128", 128, 143)],
)
def test_a_size_is_one_number_or_two(text: str, size: object, load: object, tmp_path: Path) -> None:
    recipe = make_recipe("cyclegan", "x", overrides={"size": text})
    assert (recipe.config.size, recipe.preparation().load_size) == (size, load)
    recipe.save(tmp_path / "recipe.json")
    assert type(recipe).load(tmp_path / "recipe.json") == recipe
    for bad in ("256x", "x", "0x4", "4x4x4", "4.5x4"):
        with pytest.raises(UsageError, match="size"):
            make_recipe("cyclegan", "x", overrides={"size": bad}).preparation()


def test_a_network_for_one_size_refuses_uncut_pictures() -> None:
    with pytest.raises(UsageError, match="ugatit: preprocess=none leaves pictures their own sizes"):
        make_recipe("ugatit", "x", overrides={"preprocess": "none"}).preparation()
    assert make_recipe("ugatit", "x", "light", {"preprocess": "none"}).preparation().multiple == 4
