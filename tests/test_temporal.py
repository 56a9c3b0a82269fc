"""Smoothing over time and the skip of still frames: off unless asked for, and what they do is measured."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
import pytest
from gantrt.errors import UsageError
from gantrt.translator import Translator
from gantrt.video import Frame
from gantrt.video.still import StillSkip
from gantrt.video.temporal import Smoother
from tiny_networks import write_pointwise


class Given:
    """A FrameSource of pictures in memory."""

    rate, time_base, frames_estimated = Fraction(25), Fraction(1, 25), False

    def __init__(self, images: list[np.ndarray]) -> None:
        self._images, self.frames = images, len(images)
        self.height, self.width = images[0].shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            yield Frame(image, index, index, self.time_base, 1)

    def close(self) -> None: ...


@pytest.fixture
def negative(tmp_path: Path) -> Iterator[Translator]:
    with gantrt.load(write_pointwise(tmp_path / "n.onnx", gain=-1, dynamic=True), device="cpu", cache_dir="") as made:
        yield made


def noisy(picture: np.ndarray, count: int, sigma: float = 3.0) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [np.clip(picture + random.normal(0, sigma, picture.shape), 0, 255).astype(np.uint8) for _ in range(count)]


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([60 + x, 60 + y, 200 - x], -1).astype(float)


def flicker(images: list[np.ndarray]) -> float:
    """Mean absolute difference of neighbours, in levels, after the start."""
    return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairwise(images[5:])]))


@pytest.mark.parametrize(("strength", "left"), [(0.5, 0.65), (0.7, 0.45), (0.9, 0.25)])
def test_smoothing_takes_flicker_of_a_still_noisy_scene(negative: Translator, strength: float, left: float) -> None:
    images = noisy(scene(), 30)
    plain = [item.image for item in negative.stream(Given(images))]
    smooth = [item.image for item in negative.stream(Given(images), temporal=strength)]
    assert flicker(plain) > 2
    assert flicker(smooth) < left * flicker(plain)
    assert abs(float(np.mean(smooth[-1])) - float(np.mean(plain[-1]))) < 0.5  # and no brightness with it


def test_smoothing_leaves_no_ghost_of_what_moves(negative: Translator) -> None:
    images = []
    for index in range(12):
        image = scene()
        image[30:60, 8 * index : 8 * index + 24] = 255
        images.append(image.astype(np.uint8))
    plain = [item.image for item in negative.stream(Given(images))]
    smooth = [item.image for item in negative.stream(Given(images), temporal=0.9)]
    errors = [np.abs(a.astype(int) - b) for a, b in zip(plain, smooth, strict=True)]
    # Where the square is, and where it was: the neighbourhood that a plain average would smear over.
    assert max(float(error[25:65].mean()) for error in errors) < 1.5
    blend = [0.9 * before.astype(float) + 0.1 * after for before, after in pairwise(plain)]
    assert np.abs(blend[-1] - plain[-1])[25:65].mean() > 8  # what it would be without the gate


def test_smoothing_starts_anew_when_the_size_changes() -> None:
    smoother = Smoother(0.9)
    for size in ((16, 16), (24, 32)):
        image = np.full((*size, 3), 77, np.uint8)
        np.testing.assert_array_equal(smoother.apply(image, image), image)


def test_smoothing_and_skipping_are_off_unless_asked_for(negative: Translator) -> None:
    images = noisy(scene(), 4)
    for item, image in zip(negative.stream(Given(images)), images, strict=True):
        np.testing.assert_array_equal(item.image, 255 - image)
    assert negative.stats().frames == 4


def test_still_frames_are_not_translated_again(negative: Translator) -> None:
    still, moved = noisy(scene(), 10), scene()
    moved[40:48, 40:48] += 60  # 8x8 pixels of 96x128
    images = [*still, moved.astype(np.uint8), moved.astype(np.uint8)]
    items = list(negative.stream(Given(images), skip_still=2))
    assert [item.index for item in items] == list(range(12))
    assert negative.stats().frames == 2
    np.testing.assert_array_equal(items[9].image, 255 - images[0])
    np.testing.assert_array_equal(items[11].image, 255 - images[10])


def test_what_is_drawn_on_a_frame_is_not_on_the_next(negative: Translator) -> None:
    images = [scene().astype(np.uint8)] * 3
    for item in negative.stream(Given(images), skip_still=2):
        np.testing.assert_array_equal(item.image, 255 - images[0])
        item.image[:] = 0


def test_slow_change_is_noticed_because_the_last_translation_is_compared() -> None:
    skip = StillSkip(2.0)
    fading = [np.full((64, 64, 3), 100 + index, np.uint8) for index in range(12)]
    assert [skip.matches(image) for image in fading].count(False) == 4  # every third level


def test_a_change_of_size_is_a_change() -> None:
    skip = StillSkip(255)
    assert [skip.matches(np.zeros((*size, 3), np.uint8)) for size in ((8, 8), (8, 8), (64, 64), (1, 1))] == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("options", [{"temporal": 1.0}, {"temporal": -0.1}, {"skip_still": -1}])
def test_strengths_that_make_no_sense_are_refused(negative: Translator, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        next(negative.stream(Given([scene().astype(np.uint8)]), **options))
