"""The main job, as `make demo` runs it, graded by a judge that saw real digits only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import digit_classifier
import numpy as np
import pytest
from gantrt_training import digits
from torch import nn

HELD_OUT = 300

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "gantrt", "demo", "-o", str(folder), "--no-progress"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(folder / "digits.png") in done.stdout
    return folder


@pytest.fixture(scope="module")
def judge() -> nn.Module:
    return digit_classifier.train()


def pictures(folder: Path) -> np.ndarray:
    return np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob("*.png"))])


@pytest.mark.parametrize("digit", [6, 9])
def test_judge_knows_held_out_real_digits(judge: nn.Module, digit: int) -> None:
    real = digits.read_sheet(f"test_{digit}")
    assert digit_classifier.share_called(judge, real, digit) >= 0.93
    assert digit_classifier.share_called(judge, real, 15 - digit) <= 0.02


@pytest.mark.parametrize(("folder", "digit"), [("six_to_nine", 9), ("nine_to_six", 6)])
def test_held_out_digits_become_the_other_digit(demo: Path, judge: nn.Module, folder: str, digit: int) -> None:
    made = pictures(demo / folder)
    assert made.shape == (HELD_OUT, digits.SIDE, digits.SIDE)
    assert digit_classifier.share_called(judge, made, digit) >= 0.90


@pytest.mark.parametrize(("folder", "digit"), [("six_to_nine_and_back", 6), ("nine_to_six_and_back", 9)])
def test_digits_translated_there_and_back_stay_what_they_were(
    demo: Path, judge: nn.Module, folder: str, digit: int
) -> None:
    assert digit_classifier.share_called(judge, pictures(demo / folder), digit) >= 0.90


def test_demo_translates_every_frame_of_its_clip(demo: Path) -> None:
    with av.open(str(demo / "sixes.mp4")) as before, av.open(str(demo / "nines.mp4")) as after:
        shown = [
            [(frame.pts * frame.time_base, frame.width) for frame in clip.decode(video=0)] for clip in (before, after)
        ]
    assert len(shown[0]) == 192
    assert shown[0] == shown[1]


def test_demo_leaves_what_it_says(demo: Path) -> None:
    sheet = cv2.imread(str(demo / "digits.png"))
    assert sheet.shape[0] > 6 * digits.SIDE
    assert json.loads((demo / "bench.json").read_text())["schema"] == "gantrt.bench/1"
    assert list((demo / "run" / "samples").glob("*.png"))


def test_demo_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    from gantrt.cli import main

    (tmp_path / "mine.txt").write_text("keep")
    assert main(["demo", "-o", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_demo_without_torch_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gantrt.cli import demo, main

    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo", "-o", str(tmp_path / "new")]) == 4
    assert not (tmp_path / "new").exists()
