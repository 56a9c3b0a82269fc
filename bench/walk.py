"""The whole way, for every family on real pictures: train, resume, export both ways, compare with torch, translate.

    python bench/walk.py --data DIR [--family F ...] [--small] [--steps 50] [-o FILE.json]

DIR holds facades/ (pairs), selfie2anime/ (trainA, trainB) and the like; see FAMILIES for who learns from what. --small
makes networks and pictures small enough for a test; without it they have their paper's size.
Writes bench/results/walk_cpu.json: losses at the first and the last steps, images/s, and how far from torch's picture
each runtime's is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from gantrt.cli import main as command
from gantrt.video import open_source

RESULTS = Path(__file__).parent / "results"
DIRECTIONS = {"pix2pix": ["a2b"]}
FAMILIES: dict[str, tuple[str, str, list[str]]] = {  # family -> data, preset, keys at its paper's size
    "pix2pix": ("facades", "paper", ["swap=true"]),  # label to photograph
    "cyclegan": ("facades", "paper", []),
    "discogan": ("facades", "book", ["batch=16"]),
    "ugatit": ("selfie2anime", "light", []),
}
SMALL = {
    "pix2pix": ["size=64", "ngf=8", "ndf=8"],
    "cyclegan": ["size=64", "ngf=8", "ndf=8", "n_blocks=2"],
    "discogan": ["ngf=8", "ndf=8", "batch=8"],
    "ugatit": ["size=64", "ngf=8", "ndf=8", "n_blocks=2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--family", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "walk_cpu.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [walk(family, args, Path(folder) / family) for family in args.family]
    report = {
        "what": "train, resume for a tenth more, export, compare with torch, translate a held-out picture",
        "command": " ".join(["python", *("DIR" if word == str(args.data) else word for word in sys.argv)]),
        "date": date.today().isoformat(),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "load_average": os.getloadavg()[0]},
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(args.output)


def walk(family: str, args: argparse.Namespace, home: Path) -> dict[str, Any]:
    data, preset, keys = FAMILIES[family]
    keys = [*keys, *(SMALL[family] if args.small else []), "log_every=5", "sample_every=0", "checkpoint_every=0"]
    run, more = home / "run", args.steps // 10
    train = ["train", family, "--data", args.data / data, "-o", run, "--no-progress", "-q"]
    begin = time.perf_counter()
    gantrt_command([*train, "--preset", preset, "--steps", args.steps, "--set", *keys])
    seconds = time.perf_counter() - begin
    gantrt_command([*train, "--resume", "--steps", args.steps + more])
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    engines = [engine(run, direction, args.data / data) for direction in DIRECTIONS.get(family, ["a2b", "b2a"])]
    row = {"family": family, "preset": preset, "set": keys, "data": data, "steps": args.steps + more}
    print(f"{family}: {args.steps} steps in {seconds:.1f} s")
    return row | {"train_seconds": round(seconds, 2), "first": log[0], "last": log[-1], "engines": engines}


def engine(run: Path, direction: str, data: Path) -> dict[str, Any]:
    """Export one direction and translate a held-out picture with both runtimes; their grey levels must agree."""
    path = run.parent / f"{direction}.onnx"
    manifest = json.loads(gantrt_command(["export", run, "-o", path, "--direction", direction, "--json", "-q"]))
    picture = sorted((data / ("testA" if (data / "testA").is_dir() else "test")).iterdir())[0]
    outputs = []
    for runtime in ("openvino", "onnxruntime"):
        output = run.parent / f"{direction}_{runtime}.png"
        how = ["--runtime", runtime, "--precision", "fp32", "-q"]
        gantrt_command(["translate", "--engine", path, picture, "-o", output, *how])
        outputs.append(_pixels(output))
    return {
        "direction": direction,
        "bytes": path.stat().st_size,
        "parity": manifest["parity"],
        "translated_like_picture": list(outputs[0].shape) == list(_pixels(picture).shape),
        "runtimes_differ_by_grey_levels": int(np.abs(outputs[0].astype(int) - outputs[1]).max()),
        "contrast": round(float(outputs[0].std()), 2),
    }


def gantrt_command(words: Sequence[object]) -> str:
    """What the command prints to stdout; ends this script if it fails."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = command([str(word) for word in words])
    if code:
        sys.exit(f"gantrt {' '.join(map(str, words))}: exit code {code}")
    return printed.getvalue()


def _pixels(path: Path) -> np.ndarray:
    with open_source(path) as source:
        return next(iter(source)).image


if __name__ == "__main__":
    main()
