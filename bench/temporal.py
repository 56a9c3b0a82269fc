"""What smoothing over time and the skip of still frames do, and cost.

    python bench/temporal.py

A network that exaggerates noise is imitated by a contrast of 3 on a still, noisy 720p scene: flicker is the mean
difference of neighbouring frames, in levels of 255. A bright square moves over it: the ghost is the mean error where
the square is and was, beside what a plain average of the same strength would leave. Costs are medians on this machine;
the skip's gain is that of a clip of which every second second stands still, through a DiscoGAN of 64x64.
Writes bench/results/temporal.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
from gantrt.video import Frame
from gantrt.video.still import StillSkip
from gantrt.video.temporal import Smoother
from numpy.typing import NDArray
from video import SIZE, machine, make_engine

RESULTS = Path(__file__).resolve().parent / "results" / "temporal.json"
STRENGTHS = (0.0, 0.5, 0.7, 0.9)
SIGMA = 3.0
Image = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    report = {
        "what": "flicker, ghost: levels of 255; times: milliseconds a 720p frame, medians",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(),
        "noise_sigma": SIGMA,
        "smoothing": [smoothing(strength) for strength in STRENGTHS],
        "still_skip": skipping(),
    }
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: report[key] for key in ("smoothing", "still_skip")}, indent=2))


def scene() -> NDArray[np.float64]:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([70 + x / 10, 90 + y / 12, 200 - x / 10], -1)


def noisy(picture: NDArray[np.float64], random: np.random.Generator) -> Image:
    return np.clip(picture + random.normal(0, SIGMA, picture.shape), 0, 255).astype(np.uint8)


def translated(image: Image) -> Image:
    return np.clip((image.astype(np.float32) - 128) * 3 + 128, 0, 255).astype(np.uint8)


def smoothing(strength: float) -> dict[str, float]:
    random, smoother = np.random.default_rng(0), Smoother(strength)
    still, times = [], []
    for _ in range(16):
        image = noisy(scene(), random)
        made = translated(image)
        begin = time.perf_counter()
        still.append(smoother.apply(image, made))
        times.append(time.perf_counter() - begin)
    flicker = statistics.fmean(float(np.abs(a.astype(int) - b).mean()) for a, b in pairwise(still[8:]))
    smoother = Smoother(strength)
    ghosts, plain_ghosts = [], []
    shown = None
    for index in range(10):
        picture = scene()
        picture[200:400, 40 * index : 40 * index + 160] = 250
        image = noisy(picture, random)
        made = translated(image)
        smooth = smoother.apply(image, made)
        shown = made.astype(np.float32) if shown is None else strength * shown + (1 - strength) * made
        region = slice(200, 400), slice(max(0, 40 * index - 80), 40 * index + 160)
        ghosts.append(float(np.abs(smooth[region].astype(int) - made[region]).mean()))
        plain_ghosts.append(float(np.abs(shown[region] - made[region]).mean()))
    return {
        "strength": strength,
        "flicker": round(flicker, 2),
        "ghost": round(statistics.fmean(ghosts[2:]), 2),
        "ghost_of_a_plain_average": round(statistics.fmean(plain_ghosts[2:]), 2),
        "ms": round(statistics.median(times[1:]) * 1e3, 2) if strength else 0.0,
    }


class Given:
    """A FrameSource of pictures in memory."""

    rate, time_base, frames_estimated = Fraction(30), Fraction(1, 30), False
    height, width = SIZE

    def __init__(self, images: list[Image]) -> None:
        self._images, self.frames = images, len(images)

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            yield Frame(image, index, index, self.time_base, 1)

    def close(self) -> None: ...


def skipping() -> dict[str, Any]:
    """30 frames that move, 30 that do not, with noise, twice; with the skip and without, in turn."""
    random = np.random.default_rng(0)
    images = []
    for second in range(4):
        for index in range(30):
            picture = scene()
            picture[200:400, 20 * (index if second % 2 == 0 else 0) :][:, :160] = 250
            images.append(noisy(picture, random))
    skip, times = StillSkip(2.0), []
    for image in images:
        begin = time.perf_counter()
        skip.matches(image)
        times.append(time.perf_counter() - begin)
    ways: tuple[float | None, ...] = (None, 2.0)
    took: dict[float | None, list[float]] = {way: [] for way in ways}
    frames = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        gantrt.load(make_engine(Path(folder) / "e.onnx")) as translator,
    ):
        for _ in range(2):
            for levels in ways:
                translator.stats(reset=True)
                begin = time.perf_counter()
                for _ in translator.stream(Given(images), skip_still=levels):
                    pass
                took[levels].append(time.perf_counter() - begin)
                frames[levels] = translator.stats().frames
    return {
        "frames": len(images),
        "translated": frames[2.0],
        "ms_to_compare": round(statistics.median(times) * 1e3, 2),
        "speed_up": round(statistics.median(a / b for a, b in zip(took[None], took[2.0], strict=True)), 2),
        "load_average": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    main()
