"""Metrics that compare two pictures pixel by pixel, (h, w, c) uint8 each, of one shape."""

from __future__ import annotations

import math

import cv2
import numpy as np
from gantrt.errors import UnsupportedInput

from ..pictures import Picture

WHITE = 255.0
WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian window: Wang et al. 2004, section III-B
K1, K2 = 0.01, 0.03


def l1(made: Picture, wanted: Picture) -> float:
    """Mean absolute difference, from 0 to 1 (black against white)."""
    return float(np.abs(made.astype(np.int16) - wanted.astype(np.int16)).mean() / WHITE)


def psnr(made: Picture, wanted: Picture) -> float:
    """10 log10(255² / mean squared difference) in dB; infinite for equal pictures."""
    squared = float(np.square(made.astype(np.int32) - wanted.astype(np.int32)).mean())
    return 10 * math.log10(WHITE**2 / squared) if squared else math.inf


def ssim(made: Picture, wanted: Picture) -> float:
    """Mean structural similarity: Wang et al. 2004, eq. 13, of each channel, then averaged over channels.

    Gaussian window of 11 x 11, sigma 1.5, weighted (biased) variances, only where the window lies inside the picture.
    Raises UnsupportedInput if it fits nowhere.
    """
    if min(made.shape[:2]) < WINDOW:
        raise UnsupportedInput(
            f"ssim: its window needs pictures of at least {WINDOW}x{WINDOW}, got {made.shape[0]}x{made.shape[1]}"
        )
    x, y = made.astype(np.float64), wanted.astype(np.float64)
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x, variance_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = (K1 * WHITE) ** 2, (K2 * WHITE) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((alike / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def _smooth(x: np.ndarray) -> np.ndarray:
    """(h, w, c) → (h - 10, w - 10, c): the weighted mean under each whole window."""
    edge = WINDOW // 2
    blurred = cv2.GaussianBlur(x, (WINDOW, WINDOW), SIGMA)[edge:-edge, edge:-edge]
    return np.asarray(blurred.reshape(*blurred.shape[:2], -1))
