"""Whole jobs: a folder of photographs through the network, and a clip, with decoding and encoding. Is it the network
that takes the time?

    python bench/throughput.py [--engine FILE] [--pictures 100] [--clip FILE] [--streams N]

Without --engine the generators are exported with random weights: CycleGAN's for the folder, DiscoGAN's 64x64 for the
clip. The photographs are drawn, 1280x960 and full of detail; the clip is ten seconds of them moving, 1280x720 at 25
frames a second, in H.264, unless one is given. Writes bench/results/throughput_cpu.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from gantrt.cli import main as gantrt
from gantrt.video import Frame, SinkOptions, open_sink, open_source
from machine import machine
from networks import export
from numpy.typing import NDArray

RESULTS = Path(__file__).resolve().parent / "results" / "throughput_cpu.json"
SECONDS, RATE, CLIP_SIZE, PHOTO_SIZE = 10, 25, (720, 1280), (960, 1280)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", type=Path, help="for the folder (default: CycleGAN's, random weights)")
    parser.add_argument("--clip-engine", type=Path, help="for the clip (default: DiscoGAN's 64x64, random weights)")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--clip", type=Path, help="a clip of your own; its first ten seconds are translated")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rows = [folder(args, scratch), clip(args, scratch)]
    for row in rows:
        share = f", network busy {row['network_busy']:.0%}"
        print(f"{row['what']}: {row['fps']:.1f} a second{share}, {row.get('times_real_time', '')}")
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": rows,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def folder(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    engine = args.engine or export("cyclegan", scratch / "cyclegan.onnx")
    source = scratch / "photographs"
    source.mkdir()
    for i, photograph in zip(range(args.pictures), photographs(PHOTO_SIZE), strict=False):
        cv2.imwrite(str(source / f"{i:03}.jpg"), photograph)
    done = translate(engine, source, scratch / "translated", args.streams)
    return {"what": f"{args.pictures} photographs of {PHOTO_SIZE[1]}x{PHOTO_SIZE[0]}, JPEG to JPEG", **done}


def clip(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    engine = args.clip_engine or export("discogan", scratch / "discogan.onnx")
    source = args.clip or write_clip(scratch / "clip.mp4")
    with open_source(source) as opened:
        rate = float(opened.rate or RATE)
        size = f"{opened.width}x{opened.height}"
    frames = int(rate * SECONDS)
    done = translate(engine, source, scratch / "translated.mp4", args.streams, "--max-frames", str(frames))
    real_time = done["fps"] / rate
    return {"what": f"{done['frames'] / rate:.0f} s of {size} at {rate:g}", **done, "times_real_time": real_time}


def translate(engine: Path, source: Path, output: Path, streams: int, *more: str) -> dict[str, Any]:
    """What `gantrt translate --json` says of it."""
    words = ["translate", "--engine", str(engine), str(source), "-o", str(output), "--streams", str(streams)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        if gantrt([*words, "--json", "-q", *more]):
            raise SystemExit(f"gantrt {shlex.join(words)} failed")
    done: dict[str, Any] = json.loads(said.getvalue())
    return {key: done[key] for key in ("frames", "seconds", "fps", "p50_ms", "p95_ms", "network_busy")}


def photographs(size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Pictures as hard to compress as photographs: shapes of all scales, and grain. Each is the last one, moved on."""
    random = np.random.default_rng(0)
    height, width = size
    canvas = np.zeros((height * 2, width * 2, 3), np.float32)
    for scale in (4, 16, 64, 256):
        shape = (canvas.shape[0] // scale, canvas.shape[1] // scale, 3)
        canvas += cv2.resize(random.normal(0, scale**0.5, shape).astype(np.float32), canvas.shape[1::-1])
    canvas = np.clip(canvas * (60 / canvas.std()) + 128, 0, 255).astype(np.uint8)
    while True:
        for step in range(0, height, 4):
            yield np.ascontiguousarray(canvas[step : step + height, step : step + width])


def write_clip(path: Path) -> Path:
    class Like:
        width, height, rate, time_base = CLIP_SIZE[1], CLIP_SIZE[0], Fraction(RATE), Fraction(1, RATE)
        frames, frames_estimated = SECONDS * RATE, False

    sink = open_sink(path, Like(), SinkOptions(overwrite=True))  # type: ignore[arg-type]
    for index, picture in zip(range(Like.frames), photographs(CLIP_SIZE), strict=False):
        sink.write(Frame(picture, index, index, Like.time_base, 1))
    sink.close()
    return path


if __name__ == "__main__":
    raise SystemExit(main())
