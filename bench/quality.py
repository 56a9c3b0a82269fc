"""How good a training's pictures are, on its whole test split, and beside what such numbers can be at all.

    python bench/quality.py facades RUN     pix2pix, label map → photograph
    python bench/quality.py digits DEMO     CycleGAN 6 ↔ 9: what `gantrt demo -o DEMO` left
    python bench/quality.py facades --grade OUT --data DIR
                                            what `bench/paper_training.py facades -o OUT` left; selfie2anime alike

Writes bench/results/quality_<name>.json and, of the photographs, a grid of translations to docs/images. All rows are
graded alike, over equally many pictures:

    last, best    translations by the exported engine of these checkpoints; with --grade those in OUT, by torch in fp32
    jpeg 95, 75   the last one's translations, compressed and read again: what saved JPEGs would be graded (photographs)
    input         the pictures given, untranslated: what doing nothing is graded
    real          other real pictures of the wanted domain, from the training split: what the best one can hope for
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import gantrt
import numpy as np
import torch
from gantrt.cli import main as gantrt_command
from gantrt_training import checkpoint
from gantrt_training.data import Data, Side
from gantrt_training.family import load_family
from gantrt_training.metrics import choose
from gantrt_training.metrics.feature_cache import FeatureCache, default_cache_file
from gantrt_training.metrics.grader import Grader
from gantrt_training.pictures import Picture
from gantrt_training.recipe import Recipe, config_from
from paper_training import read_zips  # the script beside this one

HERE = Path(__file__).parent
COLUMNS, ROWS, TILE = 6, 3, 192  # of the grid of photographs
SETS = ("fid", "kid")

Pictures = list[Picture]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["facades", "digits", "selfie2anime"])
    parser.add_argument("run", type=Path, nargs="?", help="RUN of the training, or DEMO")
    parser.add_argument("--grade", type=Path, metavar="OUT", help="pictures that were translated elsewhere, instead")
    parser.add_argument("--data", help="of the training, where it lies elsewhere now")
    parser.add_argument("--pictures", type=int, default=0, help="at most so many; default: the whole split")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results", help="folder of the JSON")
    parser.add_argument("--images", type=Path, default=HERE.parent / "docs" / "images", help="folder of the grid")
    args = parser.parse_args()
    if (args.run is None) == (args.grade is None):
        parser.error("give either RUN or --grade OUT")
    begin = time.perf_counter()
    made_by = Elsewhere(args.grade) if args.grade else Saved(args.run / "run" if args.name == "digits" else args.run)
    recipe = made_by.recipe
    if args.grade and not args.data:
        parser.error("--grade needs --data: the folder that OUT was trained on")
    family, config = recipe.load_family(), recipe.config
    channels = (config.channels_a, config.channels_b)
    folder = Path(args.data or recipe.data)
    data = Data(folder, channels, recipe.preparation(), paired=family.paired, swap=recipe.swap)
    bench = Bench(data, args.pictures)
    for direction in family.generators:
        shown = bench.grade_direction(made_by, direction)
        if args.name != "digits":
            way = "" if family.paired else f"_{direction}"
            write_grid(args.images / f"{args.name}{way}_generated.jpg", shown)
    report = {
        "what": f"metrics of translations on {f'{args.pictures} pictures of ' if args.pictures else ''}the test split",
        "command": f"python bench/quality.py {args.name} {made_by.argument(args.name)}",
        "date": date.today().isoformat(),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "torch": torch.__version__},
        "seconds": round(time.perf_counter() - begin),
        "training": {
            **{key: getattr(recipe, key) for key in ("family", "preset", "seed", "swap")},
            **made_by.reached(config),
            "pictures": data.summary(),
        },
        "protocol": bench.protocol,
        "rows": bench.rows,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"quality_{args.name}.json").write_text(json.dumps(report, indent=2) + "\n")


class Saved:
    """A RUN folder here: its checkpoints translate, exported."""

    def __init__(self, run: Path) -> None:
        self.run, self.recipe = run, Recipe.load(run / "recipe.json")

    def argument(self, name: str) -> str:
        return "DEMO" if name == "digits" else "RUN"

    def reached(self, config: Any) -> dict[str, Any]:
        last = checkpoint.read_description(checkpoint.weights_in(self.run)[-1])
        return {"step": last.step, "epoch": last.epoch, "of_epochs": config.epochs, "size": config.size}

    def translations(self, direction: str, given: Pictures) -> dict[str, tuple[Pictures, dict[str, Any]]]:
        """By the name of their row: pictures, and which checkpoint at what precision made them."""
        saved = {"last": checkpoint.weights_in(self.run)[-1]}
        if liked := checkpoint.best(self.run):
            saved["best"] = checkpoint.weights_path(self.run, liked.step)
        return {row: translations(weights, direction, given) for row, weights in saved.items()}


class Elsewhere:
    """What bench/paper_training.py left: translations of the whole test split, and what they come from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.about = folder, json.loads((folder / "training.json").read_text())
        raw = self.about["recipe"]
        config = config_from(load_family(raw["family"]), raw["config"], folder)
        keys = {field.name for field in dataclasses.fields(Recipe)} - {"config"}
        self.recipe = Recipe(config=config, **{key: raw[key] for key in keys if key in raw})

    def argument(self, name: str) -> str:
        return "--grade OUT"

    def reached(self, config: Any) -> dict[str, Any]:
        keys = ("step", "length", "preset_length", "ended_early", "training_seconds", "machine", "command", "date")
        return {key: self.about[key] for key in keys} | {"size": config.size}

    def translations(self, direction: str, given: Pictures) -> dict[str, tuple[Pictures, dict[str, Any]]]:
        made = read_zips(self.folder, direction)
        if len(made) < len(given):
            raise SystemExit(f"bench: {self.folder} has {len(made)} pictures {direction}, the test split {len(given)}")
        made = [made[n] for n in evenly(len(made), len(given))]
        return {"last": (made, {"step": self.about["step"], "precision": "fp32"})}


class Bench:
    """Grades sets of pictures and keeps one row of each."""

    def __init__(self, data: Data, count: int) -> None:
        self.data, self.count, self.rows = data, count, []
        smallest = min(data.test_a.whole(0).shape[:2])
        cache = FeatureCache(default_cache_file())
        possible = choose(None, paired=data.paired)
        self._grader = Grader([name for name in possible if name != "lpips" or smallest > 30], cache=cache)
        self._of_sets = Grader(SETS, cache=cache)
        self._photographs = smallest > 64  # what is published is about such
        self._as_published = Grader(["fid"] if self._photographs else [], resize="pytorch-fid", cache=cache)
        self._columns = (*self._grader.metrics, *(["fid_pytorch_fid"] if self._photographs else []))
        self.protocol = self._grader.protocol()

    def grade_direction(self, made_by: Saved | Elsewhere, direction: str) -> Pictures:
        """Some translations of the last checkpoint."""
        test_a, test_b = self.data.test_a, self.data.test_b
        given_side, wanted_side, more = (
            (test_a, test_b, self.data.b) if direction == "a2b" else (test_b, test_a, self.data.a)
        )
        count = self.count or len(given_side)
        given, wanted, real = (some(side, count) for side in (given_side, wanted_side, more))
        print(f"{direction:<12}" + "".join(f"{name:>18}" for name in self._columns))
        made = {}
        for row, (pictures, facts) in made_by.translations(direction, given).items():
            made[row] = pictures
            self.grade(direction, row, pictures, wanted, **facts)
        for quality in (95, 75) if self._photographs else ():
            self.grade(direction, f"jpeg {quality}", [as_jpeg(picture, quality) for picture in made["last"]], wanted)
        self.grade(direction, "input", given, wanted)
        self.grade(direction, "real", real[: len(wanted)], wanted, pairs=False)
        return [made["last"][n] for n in np.linspace(0, len(given) - 1, min(COLUMNS * ROWS, len(given))).astype(int)]

    def grade(
        self, direction: str, row: str, made: Pictures, wanted: Pictures, pairs: bool = True, **facts: Any
    ) -> None:
        pairs = pairs and self.data.paired
        tally, published = (self._grader if pairs else self._of_sets).tally(), self._as_published.tally()
        for each in (tally, published):
            each.add_made(made)
            each.add_wanted(wanted)
        if pairs:
            tally.compare(made, wanted)
        grades = tally.grades()
        metrics = {name: {k: round(v, 5) for k, v in grade.items()} for name, grade in grades.metrics.items()}
        if self._photographs:
            metrics["fid_pytorch_fid"] = {"value": round(published.grades().values()["fid"], 3)}
        counts = {"translated": grades.made, "wanted": grades.wanted}
        self.rows.append({"direction": direction, "row": row, **facts, "pictures": counts, "metrics": metrics})
        print(f"{row:<12}" + "".join(f"{cell(metrics.get(name)):>18}" for name in self._columns), flush=True)


def translations(weights: Path, direction: str, given: Pictures) -> tuple[Pictures, dict[str, Any]]:
    """By the exported engine, and which checkpoint at what precision it was."""
    with exported(weights, direction) as engine, gantrt.load(engine) as translator:
        facts = {"step": checkpoint.read_description(weights).step, "precision": translator.info.precision}
        return translator.translate(given), facts


@contextlib.contextmanager
def exported(weights: Path, direction: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "engine.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            code = gantrt_command(["export", str(weights), "-o", str(engine), "--direction", direction])
        assert code == 0, f"gantrt export {weights} ended with {code}"
        yield engine


def some(side: Side, count: int) -> Pictures:
    """At most `count` pictures, evenly chosen, as they are tested."""
    return [side.whole(n) for n in evenly(len(side), count)]


def evenly(length: int, count: int) -> list[int]:
    chosen: list[int] = np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
    return chosen


def as_jpeg(picture: Picture, quality: int) -> Picture:
    """Compressed with the encoder's usual 4:2:0 colours, and read again."""
    _, coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]).reshape(*picture.shape[:2], -1)


def write_grid(path: Path, pictures: Pictures) -> None:
    tiles = [cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA) for picture in pictures]
    whole = len(tiles) // COLUMNS * COLUMNS
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, whole, COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def cell(grade: dict[str, float] | None) -> str:
    if grade is None:
        return "–"
    return f"{grade['value']:.4g}" + (f" ± {grade['spread']:.2g}" if "spread" in grade else "")


if __name__ == "__main__":
    main()
