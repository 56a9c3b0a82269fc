"""What a training sees: the right pictures, cut alike where they are pairs, in an order that seed and step decide."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gantrt.errors import UnsupportedInput
from gantrt_training import data as data_module
from gantrt_training.data import Batches, Data, Preparation, Side, Source, resize, to_float, to_pictures
from tiny_pictures import make_pairs, make_sides, picture, write

CUT = Preparation(size=8, load_size=10, flip=True)
WHOLE = Preparation(size=10, load_size=10)


def seen(batches: Batches, steps: range) -> list[tuple[np.ndarray, np.ndarray]]:
    return [tuple(side.numpy() for side in batches.load(step)) for step in steps]  # type: ignore[misc]


def test_left_is_a_and_right_is_b(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    data = Data(tmp_path, (3, 3), Preparation(10, 10), paired=True)
    assert (len(data.a), len(data.b), len(data.test_a), data.layout) == (5, 5, 2, "side by side")
    np.testing.assert_array_equal(data.a[0], resize(picture(0), 10, WHOLE))
    swapped = Data(tmp_path, (3, 3), Preparation(10, 10), paired=True, swap=True)
    np.testing.assert_array_equal(swapped.b[0], data.a[0])
    np.testing.assert_array_equal(swapped.a[0], data.b[0])


def test_pairs_are_cut_and_mirrored_alike(tmp_path: Path) -> None:
    batches = Batches(Data(make_pairs(tmp_path), (3, 3), CUT, paired=True), batch=2, seed=0)
    for a, b in seen(batches, range(8)):
        assert a.shape == (2, 8, 8, 3)
        assert np.abs(a.astype(int) + b - 255).max() <= 2  # resampling rounds


def test_cuts_and_mirrors_vary(tmp_path: Path) -> None:
    data = Data(make_pairs(tmp_path, train=1), (3, 3), CUT, paired=True)
    assert len({a.tobytes() for a, _ in seen(Batches(data, batch=1, seed=0), range(30))}) > 10


def test_partners_are_found_by_name_whatever_suffix_and_order(tmp_path: Path) -> None:
    for n, suffix in enumerate(("png", "bmp", "tiff")):
        write(tmp_path / "trainA" / "deep" / f"{n}.png", picture(n, 10, 10))
        write(tmp_path / "trainB" / "deep" / f"{n}.{suffix}", 255 - picture(n, 10, 10))
    data = Data(tmp_path, (3, 3), WHOLE, paired=True)
    for a, b in seen(Batches(data, batch=1, seed=0), range(3)):
        np.testing.assert_array_equal(a, 255 - b)


def test_pictures_without_a_partner_are_named(tmp_path: Path) -> None:
    make_sides(tmp_path)
    with pytest.raises(UnsupportedInput, match=r"2 pictures have no partner.*trainB/5\.png"):
        Data(tmp_path, (3, 3), WHOLE, paired=True)
    shutil.copy(tmp_path / "trainA" / "0.png", tmp_path / "trainA" / "0.bmp")
    with pytest.raises(UnsupportedInput, match=r"0\.bmp and .*0\.png have the same name"):
        Data(tmp_path, (3, 3), WHOLE, paired=True)


def test_an_epoch_shows_the_larger_side_once_and_the_other_at_random(tmp_path: Path) -> None:
    data = Data(make_sides(tmp_path, a=9, b=4), (3, 3), WHOLE, paired=False)
    batches = Batches(data, batch=3, seed=0)
    assert batches.steps_per_epoch == 3
    shown = np.concatenate([a for a, _ in seen(batches, range(3))])
    assert {one.tobytes() for one in shown} == {data.a[n].tobytes() for n in range(9)}
    firsts = {(a.tobytes(), b.tobytes()) for a, b in seen(Batches(data, batch=1, seed=0), range(90))}
    assert len(firsts) > 25  # of 36 combinations


def test_max_pictures_draws_others_in_each_epoch(tmp_path: Path) -> None:
    batches = Batches(Data(make_sides(tmp_path, a=9, b=9), (3, 3), WHOLE, paired=False), 1, seed=0, max_pictures=3)
    assert batches.steps_per_epoch == 3
    assert len({a.tobytes() for a, _ in seen(batches, range(60))}) == 9


def test_fewer_pictures_than_a_batch_are_repeated(tmp_path: Path) -> None:
    batches = Batches(Data(make_sides(tmp_path, a=2, b=3), (3, 3), WHOLE, paired=False), batch=8, seed=0)
    assert batches.steps_per_epoch == 1
    assert [side.shape[0] for side in batches.load(0)] == [8, 8]


@pytest.mark.parametrize("workers", [0, 3])
def test_seed_and_step_decide_whoever_decodes(tmp_path: Path, workers: int) -> None:
    make_sides(tmp_path)
    first = Batches(Data(tmp_path, (3, 1), CUT, paired=False), batch=2, seed=7)
    again = Batches(Data(tmp_path, (3, 1), CUT, paired=False), batch=2, seed=7)
    other = Batches(Data(tmp_path, (3, 1), CUT, paired=False), batch=2, seed=8)
    from_two = list(itertools.islice(again.iterate(2, workers), 10))
    for (a, b), (c, d) in zip(seen(first, range(2, 12)), from_two, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    assert any((a != c).any() for (a, _), (c, _) in zip(seen(first, range(3)), seen(other, range(3)), strict=True))


def test_what_is_remembered_equals_what_is_decoded(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    sources = [Source(tmp_path / "train" / f"{n}.png", str(n), half=1) for n in range(5)]
    decoded, remembered = Side(sources, 3, CUT, cache_bytes=0), Side(sources, 3, CUT)
    half = Side(sources, 3, CUT, cache_bytes=2 * 10 * 10 * 3)
    for n in (0, 4, 0, 2, 4, 1):
        for side in (remembered, half):
            np.testing.assert_array_equal(side[n], decoded[n])
    (tmp_path / "train" / "0.png").unlink()
    np.testing.assert_array_equal(remembered[0], half[0])


def test_both_halves_of_a_pair_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = data_module.read_picture
    monkeypatch.setattr(data_module, "read_picture", lambda path, *how: calls.append(path) or real(path, *how))
    batches = Batches(Data(make_pairs(tmp_path), (3, 3), CUT, paired=True), batch=1, seed=0)
    seen(batches, range(10))
    assert len(calls) == 5


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [7, 30])
def test_resizing_is_pillows(mode: str, size: int) -> None:
    image = pytest.importorskip("PIL.Image")
    filters = {"bicubic": image.Resampling.BICUBIC, "bilinear": image.Resampling.BILINEAR}
    given = picture(0, 19, 23)
    wanted = np.asarray(image.fromarray(given).resize((size, size), filters[mode]))
    got = resize(given, size, Preparation(size, size, interpolation=mode))  # type: ignore[arg-type]
    assert np.abs(got.astype(int) - wanted).max() <= 1


def test_tensors_span_minus_one_to_one_and_come_back_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    x = to_float(levels)
    assert x.shape == (1, 1, 16, 16)
    assert x.is_contiguous()
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_array_equal(to_pictures(x), levels.numpy())
    assert to_pictures(torch.full((1, 3, 1, 1), 7.0)).tolist() == [[[[255, 255, 255]]]]


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        ([], "does not exist"),
        (["."], "has no training pictures"),
        (["trainA"], "has no pictures in trainA"),
        (["trainA", "trainB"], "has no pictures in trainA and trainB"),
        (["train"], "has no pictures in train;"),
    ],
)
def test_a_folder_without_pictures_says_what_was_expected(tmp_path: Path, make: list[str], fault: str) -> None:
    root = tmp_path / "data"
    for name in make:
        (root / name).mkdir(parents=True)
    with pytest.raises(UnsupportedInput, match=f"{fault}.*expected trainA/ and trainB/"):
        Data(root, (3, 3), WHOLE, paired=False)


def test_val_serves_as_test_and_train_if_there_is_neither(tmp_path: Path) -> None:
    make_sides(tmp_path)
    for side in "AB":
        (tmp_path / f"test{side}").rename(tmp_path / f"val{side}")
    assert len(Data(tmp_path, (3, 3), WHOLE, paired=False).test_a) == 2
    for side in "AB":
        shutil.rmtree(tmp_path / f"val{side}")
    data = Data(tmp_path, (3, 3), WHOLE, paired=False)
    assert (len(data.test_a), data.has_test, "test_a" in data.summary()) == (5, False, False)


def test_facades_and_selfies_load(data_dir: Path) -> None:
    facades = Batches(Data(data_dir / "facades", (3, 3), Preparation(32, 36, flip=True), paired=True), 4, seed=0)
    assert facades.steps_per_epoch == 100
    assert facades.load(1)[0].shape == (4, 32, 32, 3)
    selfies = Batches(Data(data_dir / "selfie2anime", (3, 1), Preparation(32, 36), paired=False), 4, seed=0)
    assert (selfies.steps_per_epoch, selfies.load(0)[1].shape) == (150, (4, 32, 32, 1))
