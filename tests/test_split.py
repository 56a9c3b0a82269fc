"""gantrt split: both halves, bit for bit, all or none."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from gantrt.cli import main
from gantrt_training.data import Data, Preparation
from gantrt_training.pictures import read_picture
from tiny_pictures import make_pairs, picture, write


def split(*args: Path | str) -> int:
    return main(["split", *map(str, args), "-q"])


def test_an_array_is_no_picture_to_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "x.npy", np.zeros((4, 8, 5), np.uint8))
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 5
    assert "x.npy: is an array, no picture" in capsys.readouterr().err


def test_left_becomes_a_and_right_b_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pairs(tmp_path / "in", train=3, test=1)
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["testA", "testB", "trainA", "trainB"]
    for n in range(3):
        left = read_picture(tmp_path / "out" / "trainA" / f"{n}.png", 3)
        np.testing.assert_array_equal(left, picture(n))
        np.testing.assert_array_equal(read_picture(tmp_path / "out" / "trainB" / f"{n}.png", 3), 255 - left)
    assert "3 pictures each" in capsys.readouterr().out


def test_swap_exchanges_the_halves(tmp_path: Path) -> None:
    make_pairs(tmp_path / "in", train=1, test=0)
    assert split(tmp_path / "in", "-o", tmp_path / "out", "--swap") == 0
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "trainB" / "0.png", 3), picture(0))


def test_a_folder_of_pictures_is_a_training_set_and_subfolders_stay(tmp_path: Path) -> None:
    write(tmp_path / "in" / "x" / "1.bmp", picture(1))
    write(tmp_path / "in" / "y" / "1.bmp", picture(2))
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 0
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "trainA" / "y" / "1.png", 3), picture(2)[:, :6])


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint16, 3), (np.uint8, 1), (np.uint16, 1), (np.uint8, 4)])
def test_bits_greys_and_alpha_stay(tmp_path: Path, dtype: type, channels: int) -> None:
    whole = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (6, 8, channels), dtype).squeeze()
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "0.png"), whole)
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 0
    right = cv2.imread(str(tmp_path / "out" / "trainB" / "0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(right, whole[:, 4:])


@pytest.mark.parametrize("broken", ["odd", "damaged", "twin"])
def test_a_fault_names_the_file_and_leaves_nothing(
    tmp_path: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pairs(tmp_path / "in", train=6, test=1)
    bad = tmp_path / "in" / "train" / "5.png"
    if broken == "odd":
        write(bad, picture(0, width=13))
    elif broken == "damaged":
        bad.write_bytes(bad.read_bytes()[:60])
    else:
        bad = write(tmp_path / "in" / "train" / "5.bmp", picture(0))
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 5
    assert str(bad) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_existing_folders_are_replaced_only_when_asked(tmp_path: Path) -> None:
    make_pairs(tmp_path / "in", train=2, test=0)
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 0
    (tmp_path / "in" / "train" / "0.png").unlink()
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 2
    assert len(list((tmp_path / "out" / "trainA").iterdir())) == 2
    assert split(tmp_path / "in", "-o", tmp_path / "out", "--overwrite") == 0
    assert [path.name for path in (tmp_path / "out" / "trainA").iterdir()] == ["1.png"]


def test_it_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "gantrt_training"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    make_pairs(tmp_path / "in", train=1, test=0)
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 0


def test_no_pictures_is_unreadable_input(tmp_path: Path) -> None:
    assert split(tmp_path, "-o", tmp_path / "out") == 5
    assert split(tmp_path / "nowhere", "-o", tmp_path / "out") == 5


def test_a_split_folder_trains_as_the_pairs_did(tmp_path: Path) -> None:
    make_pairs(tmp_path / "in")
    assert split(tmp_path / "in", "-o", tmp_path / "out") == 0
    how = Preparation(8, 10)
    together, apart = (Data(root, (3, 3), how, paired=True) for root in (tmp_path / "in", tmp_path / "out"))
    for n in range(len(together.a)):
        np.testing.assert_array_equal(together.a[n], apart.a[n])
        np.testing.assert_array_equal(together.b[n], apart.b[n])
