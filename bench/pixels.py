"""Frame to tensor and back, against what one writes with OpenCV. Writes bench/results/pixels_cpu.json.

Each pair is timed interleaved, so that whatever else the machine does hits both alike; medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import gantrt
import numpy as np
from gantrt import _core
from numpy.typing import NDArray

RESULTS = Path(__file__).resolve().parent / "results" / "pixels_cpu.json"
SIDE = 256
FRAMES = {"1080p": (1080, 1920), "720p": (720, 1280), "256": (256, 256)}
OPENCV = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


@dataclass(frozen=True)
class Pair:
    name: str
    ours: Callable[[], object]
    opencv: Callable[[], object]


def to_tensor(frame: NDArray[np.uint8], how: str, threads: int) -> Pair:
    out = np.empty((1, 3, SIDE, SIDE), np.float32)

    def opencv() -> object:
        small = cv2.resize(frame, (SIDE, SIDE), interpolation=OPENCV[how])
        return cv2.dnn.blobFromImage(small, 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True)

    height, width = frame.shape[:2]
    return Pair(
        f"{width}x{height} to tensor, {how}",
        lambda: gantrt.frame_to_tensor(frame, out, color="bgr", resize=how, threads=threads),
        opencv,
    )


def to_frame(size: tuple[int, int], threads: int) -> Pair:
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, SIDE, SIDE)).astype(np.float32)
    out = np.empty((*size, 3), np.uint8)

    def opencv() -> object:
        small = cv2.convertScaleAbs(cv2.merge([x[0, 2], x[0, 1], x[0, 0]]), alpha=127.5, beta=127.5)
        return cv2.resize(small, (size[1], size[0]), dst=out, interpolation=cv2.INTER_LINEAR)

    return Pair(
        f"tensor to {size[1]}x{size[0]}",
        lambda: gantrt.tensor_to_frame(x, out, color="bgr", resize="bilinear", threads=threads),
        opencv,
    )


def pairs(threads: int) -> list[Pair]:
    rng = np.random.default_rng(0)
    frames = {name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in FRAMES.items()}
    return [
        *(to_tensor(frames[name], how, threads) for name in ("1080p", "720p") for how in ("bilinear", "area")),
        to_tensor(frames["256"], "bilinear", threads),
        *(to_frame(FRAMES[name], threads) for name in ("1080p", "720p", "256")),
    ]


def milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


def measure(pair: Pair, repeats: int) -> dict[str, object]:
    for _ in range(5):
        pair.ours(), pair.opencv()
    times = [(milliseconds(pair.ours), milliseconds(pair.opencv)) for _ in range(repeats)]
    ours, opencv = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "name": pair.name,
        "ours_ms": round(ours, 4),
        "opencv_ms": round(opencv, 4),
        "ours_min_ms": round(min(t for t, _ in times), 4),
        "opencv_min_ms": round(min(t for _, t in times), 4),
        "speedup": round(opencv / ours, 2),
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0, help="for both; 0: all this process may use")
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    threads = args.threads or _core.default_threads()
    cv2.setNumThreads(threads)
    rows = [measure(pair, args.repeats) for pair in pairs(threads)]
    for row in rows:
        print(f"{row['name']:32} {row['ours_ms']:>9} ms   OpenCV {row['opencv_ms']:>9} ms   {row['speedup']:>6}x")
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "instructions": _core.cpu_features(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {"gantrt": gantrt.__version__, "opencv": cv2.__version__, "numpy": np.__version__},
        "threads": threads,
        "repeats": args.repeats,
        "rows": rows,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
