"""Small random pictures in the layouts that a training takes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def picture(seed: int, height: int = 10, width: int = 12, channels: int = 3) -> np.ndarray:
    """(height, width, channels) uint8, every pixel at random."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def write(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1] if rgb.shape[-1] == 3 else rgb)
    return path


def make_pairs(root: Path, train: int = 5, test: int = 2) -> Path:
    """Side by side under train/ and test/: right is the negative of left."""
    for part, count in (("train", train), ("test", test)):
        for n in range(count):
            left = picture(n if part == "train" else 100 + n)
            write(root / part / f"{n}.png", np.hstack([left, 255 - left]))
    return root


def make_sides(root: Path, a: int = 5, b: int = 7, test: int = 2) -> Path:
    """trainA, trainB, testA and testB."""
    for name, count, seed in (("trainA", a, 0), ("trainB", b, 50), ("testA", test, 100), ("testB", test, 150)):
        for n in range(count):
            write(root / name / f"{n}.png", picture(seed + n))
    return root
