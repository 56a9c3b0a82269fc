"""What a whole training makes of its test pictures, within a time: the pictures come back, the networks need not.

    python bench/paper_training.py facades --data DIR -o OUT [--seconds 400]        pix2pix `paper`, label map → photo
    python bench/paper_training.py selfie2anime --data DIR -o OUT [--seconds 400]   U-GAT-IT `fast`, both ways

Where the time does not suffice for the preset's own length, the training is a shorter one: its rate is measured first,
and the whole schedule, the half at the base learning rate and the half in which that falls, is made to end in time. OUT
then says so: `epochs` (or `iterations`) beside `preset_epochs`. Without --seconds it is as long as the preset says.

OUT gets training.json, log.jsonl, sheet.jpg (given, made, wanted) and pictures_<direction>[_n].zip: all test pictures
translated, as PNG, each zip at most 15 MiB. `python bench/quality.py facades --grade OUT` grades them.
Needs torch, lightning-fabric, OpenCV and tensorboard: neither PyAV nor OpenVINO.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from gantrt_training import checkpoint
from gantrt_training.data import Batches, Data, Side, to_float, to_pictures
from gantrt_training.devices import open_fabric
from gantrt_training.nets.norm import batch_norm_as
from gantrt_training.pictures import Picture
from gantrt_training.recipe import Recipe, make_recipe
from gantrt_training.trainer import train

from training import machine  # the script beside this one

TRAININGS: dict[str, tuple[str, str, dict[str, Any], int]] = {  # family, preset, what differs, steps that are timed
    "facades": ("pix2pix", "paper", {"swap": True}, 600),  # photographs lie left, label maps right
    "selfie2anime": ("ugatit", "fast", {"together": True}, 180),
}
QUIET = {"sample_every": 0, "checkpoint_every": 0, "log_every": 100}
RESERVE = 15.0  # seconds for saving, translating and writing
MARGIN = 0.9  # of the rate is counted on
PART = 15 << 20  # bytes of a zip
COLUMNS, EXAMPLES, TILE = 8, 16, 192  # of the sheet


def main() -> None:
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TRAININGS)
    parser.add_argument("--data", required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, help="all in all; default: the preset's whole length")
    parser.add_argument("--steps", type=int, help="stop there, whatever the schedule")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-graph", action="store_true", help="steps one by one, not as CUDA graphs")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of the recipe or its config")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    family, preset, changes, probe = TRAININGS[args.name]
    overrides = changes | QUIET | {"device": args.device, "steps": args.steps}
    overrides |= {"cuda_graph": not args.no_graph and args.device != "cpu"}
    overrides |= dict(pair.split("=", 1) for pair in args.set)
    recipe = make_recipe(family, args.data, preset, overrides)
    data, per_epoch = _data(recipe)
    facts: dict[str, Any] = {"steps_per_epoch": per_epoch, "preset_length": length(recipe)}
    with tempfile.TemporaryDirectory() as folder:
        if args.seconds:
            rate = measured_rate(recipe, min(probe, args.steps or probe), Path(folder) / "probe")
            left = args.seconds - RESERVE - (time.perf_counter() - begin)
            recipe = shortened(recipe, int(max(1.0, left) * rate * MARGIN), per_epoch)
            facts |= {"probed_steps_per_s": round(rate, 2)}
        run, started = Path(folder) / "run", time.perf_counter()
        with _ended_after(args.seconds - RESERVE - (started - begin) if args.seconds else None):
            facts["ended_early"] = trained(recipe, run)
        facts["training_seconds"] = round(time.perf_counter() - started, 1)
        shutil.copy(run / "log.jsonl", args.output)
        facts |= leave(recipe, data, checkpoint.weights_in(run)[-1], args.output)
    facts["seconds"] = round(time.perf_counter() - begin, 1)
    report = {
        "what": f"{args.name}: a {family} training and its translations of the test split",
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(str(open_fabric(args.device, "fp32").device)),
        "length": length(recipe),
        **facts,
        "recipe": dataclasses.asdict(recipe) | {"data": Path(args.data).name},
    }
    (args.output / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: report[key] for key in ("length", *facts)}), flush=True)


def _data(recipe: Recipe) -> tuple[Data, int]:
    family, config = recipe.load_family(), recipe.config
    channels = (config.channels_a, config.channels_b)
    data = Data(Path(recipe.data), channels, recipe.preparation(), paired=family.paired, swap=recipe.swap)
    batches = Batches(data, config.batch * recipe.accumulate, recipe.seed, recipe.pictures_per_epoch())
    return data, batches.steps_per_epoch


def length(recipe: Recipe) -> dict[str, int]:
    """What says how long a training of this recipe takes."""
    keys = ("epochs", "constant_epochs") if recipe.config.epochs else ("iterations",)
    return {key: getattr(recipe.config, key) for key in keys if hasattr(recipe.config, key)}


def measured_rate(recipe: Recipe, steps: int, folder: Path) -> float:
    """Steps per second once all is captured, by a training of so many that is thrown away."""
    probe = dataclasses.replace(recipe, steps=steps, log_every=max(1, steps // 6))
    train(probe, folder, progress=False)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return float(lines[-1]["images_per_s"]) / (recipe.config.batch * recipe.accumulate)


def shortened(recipe: Recipe, steps: int, per_epoch: int) -> Recipe:
    """The recipe, or where it is longer than so many steps one whose whole schedule fits into them."""
    config = recipe.config
    if config.epochs:
        epochs = min(config.epochs, max(1, steps // per_epoch))
        constant = round(config.constant_epochs * epochs / config.epochs)
        config = dataclasses.replace(config, epochs=epochs, constant_epochs=constant)
    else:
        config = dataclasses.replace(config, iterations=min(config.iterations, max(2, steps)))
    return dataclasses.replace(recipe, config=config)


def trained(recipe: Recipe, run: Path) -> bool:
    """Train; whether it was interrupted, and saved the step that it had come to."""
    try:
        train(recipe, run, progress=sys.stderr.isatty())
    except KeyboardInterrupt:
        return True
    return False


@contextlib.contextmanager
def _ended_after(seconds: float | None) -> Iterator[None]:
    """Ctrl-C by a clock: what a training answers by saving the running step."""
    timer = threading.Timer(seconds or 0.0, os.kill, (os.getpid(), signal.SIGINT))
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def leave(recipe: Recipe, data: Data, weights: Path, folder: Path) -> dict[str, Any]:
    """Translate the test split in all directions and write it down: files by direction, and the step."""
    loaded, device = checkpoint.load_run(weights), open_fabric(recipe.device, "fp32").device
    files: dict[str, list[str]] = {}
    rows: list[list[Picture]] = []
    for direction, name in loaded.family.generators.items():
        given, wanted = (data.test_a, data.test_b) if direction == "a2b" else (data.test_b, data.test_a)
        net = loaded.nets[name].to(device)
        with torch.no_grad(), batch_norm_as(loaded.description.norm_mode):
            made = [_translated(loaded.family, net, picture, device) for picture in _whole(given)]
        files[direction] = write_zips(folder, direction, made)
        shown = np.linspace(0, len(made) - 1, min(EXAMPLES, len(made))).astype(int).tolist()
        for start in range(0, len(shown), COLUMNS):
            part = shown[start : start + COLUMNS]
            rows.append([given.whole(n) for n in part])
            rows.append([made[n] for n in part])
            if data.paired:
                rows.append([wanted.whole(n) for n in part])
    write_sheet(folder / "sheet.jpg", rows)
    return {"step": loaded.step, "files": files}


def _whole(side: Side) -> Iterator[Picture]:
    return (side.whole(n) for n in range(len(side)))


def _translated(family: Any, net: torch.nn.Module, picture: Picture, device: torch.device) -> Picture:
    x = to_float(torch.from_numpy(np.ascontiguousarray(picture))[None].to(device))
    made: Picture = to_pictures(family.image(net, x))[0]
    return made


def write_zips(folder: Path, direction: str, pictures: list[Picture]) -> list[str]:
    """0000.png, 0001.png, ... in as many zips as it takes; their names."""
    parts: list[list[tuple[int, bytes]]] = [[]]
    room = PART
    for n, picture in enumerate(pictures):
        _, coded = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        if len(coded) + 256 > room:
            parts.append([])
            room = PART
        parts[-1].append((n, coded.tobytes()))
        room -= len(coded) + 256  # and its entries in the zip
    names = [f"pictures_{direction}{f'_{n + 1}' if len(parts) > 1 else ''}.zip" for n in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as file:
            for n, coded_png in part:
                file.writestr(f"{n:04d}.png", coded_png)
    return names


def read_zips(folder: Path, direction: str) -> list[Picture]:
    """What `write_zips` wrote, in order."""
    found: dict[str, Picture] = {}
    for path in sorted(folder.glob(f"pictures_{direction}*.zip")):
        with zipfile.ZipFile(path) as file:
            for name in file.namelist():
                data = np.frombuffer(file.read(name), np.uint8)
                found[name] = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    return [found[name] for name in sorted(found)]


def write_sheet(path: Path, rows: list[list[Picture]]) -> None:
    """Rows of pictures; those of grey ones in grey."""
    wide = max(map(len, rows))
    sheet = np.full((len(rows) * TILE, wide * TILE, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            tile = cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA)
            sheet[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] = tile.reshape(TILE, TILE, -1)
    cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
