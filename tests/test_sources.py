"""Lists of pictures: what a line means, what it is relative to, and what is said of those that make no sense."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from gantrt.errors import UnsupportedInput
from gantrt_training.data import Data
from gantrt_training.preparation import Preparation
from gantrt_training.sources import find
from tiny_pictures import make_pairs, make_sides, picture, write

WHOLE = Preparation(size=10, load_size=10)


def names(sources: list) -> list[str]:
    return [f"{source.path.parent.name}/{source.path.name}" for source in sources]


def test_a_list_of_pairs_matches_line_by_line_relative_to_itself(tmp_path: Path) -> None:
    make_sides(tmp_path / "pictures", a=3, b=3)
    rows = ["# what goes with what", "../pictures/trainA/2.png\t../pictures/trainB/0.png", ""]
    rows += [f"../pictures/trainA/0.png\t{tmp_path}/pictures/trainB/1.png"]
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "pairs.txt"
    path.write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")
    found, test = find(path)
    assert (names(found.a), names(found.b), test) == (
        ["trainA/2.png", "trainA/0.png"],
        ["trainB/0.png", "trainB/1.png"],
        None,
    )
    data = Data(path, (3, 3), WHOLE, paired=True)
    assert (data.layout, data.has_test, len(data.test_a)) == ("list of pairs", False, 2)
    np.testing.assert_array_equal(data.b[1], Data(tmp_path / "pictures", (3, 3), WHOLE, paired=False).b[1])


def test_a_list_of_side_by_side_pictures(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    (tmp_path / "some.txt").write_text("train/3.png\ntrain/1.png\n")
    listed, folder = Data(tmp_path / "some.txt", (3, 3), WHOLE, paired=True), Data(tmp_path, (3, 3), WHOLE, paired=True)
    assert (len(listed.a), listed.layout) == (2, "list, side by side")
    np.testing.assert_array_equal(listed.b[0], folder.b[3])


def test_a_folder_of_lists_holds_sides_and_tests(tmp_path: Path) -> None:
    make_sides(tmp_path / "all", a=3, b=5)
    for name, lines in (("trainA", [1, 0]), ("trainB", [4, 2, 3]), ("testA", [0]), ("testB", [1])):
        (tmp_path / f"{name}.txt").write_text("".join(f"all/{name}/{n}.png\n" for n in lines))
    data = Data(tmp_path, (3, 3), WHOLE, paired=False)
    assert (len(data.a), len(data.b), len(data.test_b), data.layout) == (2, 3, 1, "lists")
    with pytest.raises(UnsupportedInput, match=r"the lists have 2 pictures of A and 3 of B"):
        Data(tmp_path, (3, 3), WHOLE, paired=True)
    (tmp_path / "trainB.txt").write_text("all/trainB/4.png\nall/trainB/2.png\n")
    assert names(Data(tmp_path, (3, 3), WHOLE, paired=True).b.sources) == ["trainB/4.png", "trainB/2.png"]


def test_folders_come_before_lists_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_pairs(tmp_path)
    (tmp_path / "train.txt").write_text("train/0.png\n")
    with caplog.at_level(logging.INFO, logger="gantrt"):
        assert len(find(tmp_path)[0].a) == 5
    assert "train.txt is not used" in caplog.text
    assert len(find(tmp_path / "train.txt")[0].a) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "lists no pictures"),
        ("# only words\n", "lists no pictures"),
        ("a\tb\nc\n", "line 2: every line holds A and B"),
        ("a\tb\tc\n", "line 1: every line holds A and B"),
    ],
)
def test_lists_that_make_no_sense_are_refused_with_their_line(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(UnsupportedInput, match=rf"x\.txt.*{fault}"):
        find(tmp_path / "x.txt")


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnsupportedInput, match=r"x\.txt: is no list in UTF-8"):
        find(tmp_path / "x.txt")
    with pytest.raises(UnsupportedInput, match=r"0\.png is neither a folder nor a list"):
        find(write(tmp_path / "0.png", picture(0)))
    (tmp_path / "trainA.txt").write_text("a.png\tb.png\n")
    (tmp_path / "trainB.txt").write_text("a.png\n")
    with pytest.raises(UnsupportedInput, match=r"trainA\.txt, line 1: holds several pictures; pairs belong into train"):
        find(tmp_path)


def test_listed_files_that_are_missing_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.png", picture(0))
    (tmp_path / "pairs.txt").write_text("a.png\ta.png\nnowhere.png\ta.png\n")
    data = Data(tmp_path / "pairs.txt", (3, 3), WHOLE, paired=True)
    with pytest.raises(UnsupportedInput, match=r"nowhere\.png: cannot be read \(No such file"):
        data.pictures(1, 1)
