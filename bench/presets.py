"""What the fast presets are worth: steps of `paper` and of `fast`, and how long either takes for all of its training.

    python bench/presets.py [--family F ...] [--steps 3] [--size N] [--max-batch N] [--device auto]

Both presets train on the same made-up pictures, and take turns within one run, step by step. Full U-GAT-IT wants 11 GB
and is left to machines that have them (--full-ugatit); its `light` stands in for `paper` elsewhere. The hours are those
of the preset's own number of steps at the rate measured, for a set of --pictures on each side. Writes
bench/results/presets_<device>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import statistics
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from gantrt_training.devices import open_fabric
from gantrt_training.family import list_families
from gantrt_training.recipe import Recipe, make_recipe
from gantrt_training.sizes import height_width
from gantrt_training.step import Training

from training import machine  # the script beside this one

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", nargs="+", default=list_families(), choices=list_families())
    parser.add_argument("--steps", type=int, default=3, help="of each preset, after 1 to warm up")
    parser.add_argument("--size", type=int, help="default: the preset's")
    parser.add_argument("--max-batch", type=int, default=8, help="a larger one is measured at this and scaled")
    parser.add_argument("--pictures", type=int, default=1000, help="of each side, for the hours")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--full-ugatit", action="store_true")
    args = parser.parse_args()
    device = open_fabric(args.device, "fp32").device
    report: dict[str, Any] = {
        "what": "images/s of one side while training at the presets' own sizes, and hours for all of their steps",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(str(device)),
        "pictures": args.pictures,
        "rows": [],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"presets_{device.type}.json"
    for family in args.family:  # written as it goes: large ones may want more memory than there is
        rows = measure(family, args)
        report["rows"] += rows
        path.write_text(json.dumps(report, indent=2) + "\n")
        for row in rows:
            print(
                f"{row['family']:<9} {row['preset']:<6} batch {row['batch']:<3} {row['precision']}  "
                f"{row['images_per_s']:8.2f} images/s  {row['steps']:>8} steps  {row['hours']:10.1f} h",
                flush=True,
            )
        gc.collect()
    print(path)


def measure(family: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    usual = "light" if family == "ugatit" and not args.full_ugatit else "paper"
    overrides = {"size": args.size} if args.size else {}
    recipes = [make_recipe(family, "", preset, overrides) for preset in (usual, "fast")]
    trainings = [_training(recipe, args) for recipe in recipes]
    seconds: list[list[float]] = [[] for _ in recipes]
    for n in range(1 + args.steps):
        for recipe, training, times in zip(recipes, trainings, seconds, strict=True):
            a, b = _pictures(recipe, training, args.max_batch)
            begin = time.perf_counter()
            training.step(a, b)
            if a.is_cuda:
                torch.cuda.synchronize(a.device)
            if n:
                times.append(time.perf_counter() - begin)
            training.losses.take()
    return [
        _row(recipe, training, statistics.median(times), args)
        for recipe, training, times in zip(recipes, trainings, seconds, strict=True)
    ]


def _training(recipe: Recipe, args: argparse.Namespace) -> Training:
    torch.manual_seed(0)
    fabric = open_fabric(args.device, recipe.precision)
    return Training(recipe.load_family(), recipe.config, 1000, fabric)


def _pictures(recipe: Recipe, training: Training, most: int) -> list[torch.Tensor]:
    config, size = recipe.config, height_width(recipe.config.size)
    device, n = training.fabric.device, min(recipe.config.batch, most)
    return [torch.rand(n, c, *size, device=device) * 2 - 1 for c in (config.channels_a, config.channels_b)]


def _row(recipe: Recipe, training: Training, seconds: float, args: argparse.Namespace) -> dict[str, Any]:
    family, config = training.family, recipe.config
    measured = min(config.batch, args.max_batch)
    pictures = min(args.pictures, recipe.pictures_per_epoch() or args.pictures)
    steps = family.total_steps(config, max(1, pictures // config.batch))
    rate = measured / seconds
    return {
        "family": recipe.family,
        "preset": recipe.preset,
        "size": str(config.size),
        "batch": config.batch,
        "measured_batch": measured,
        "precision": recipe.precision,
        "device": str(training.fabric.device),
        "images_per_s": round(rate, 3),
        "steps": steps,
        "hours": round(steps * config.batch / rate / 3600, 2),
        "config": {
            key: value for key, value in dataclasses.asdict(config).items() if value != getattr(family.Config(), key)
        },
    }


if __name__ == "__main__":
    main()
