"""`gantrt demo`: the main job end to end on real digits, a minute or two of training included."""

from __future__ import annotations

import argparse
import shlex
from importlib.util import find_spec
from pathlib import Path

from ..errors import DeviceUnavailable, GantrtError, UsageError
from ..interruption import Interrupted

HELP = "train CycleGAN on real digits, 6 ↔ 9, export it, translate pictures and a clip with it, bench it"
SHOWN = 16  # digits on the contact sheet
WAYS = {"six_to_nine": ("a2b", "testA"), "nine_to_six": ("b2a", "testB")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where everything goes")
    parser.add_argument("--seed", default="0", metavar="N", help="of the training; default: 0")
    parser.add_argument("--overwrite", action="store_true", help="go ahead where DIR holds an earlier demo")
    parser.add_argument("--no-progress", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    if find_spec("torch") is None:  # before anything is written
        raise DeviceUnavailable('demo: torch is not installed; pip install "gantrt[train]"')
    from gantrt_training import digits

    home = Path(args.output)
    if home.exists() and any(home.iterdir()) and not args.overwrite:
        raise UsageError(f"demo: {home} is not empty; give --overwrite or another -o DIR")
    print("Real handwritten digits, 2000 sixes and 2000 nines to learn from, 300 of each held out:", home / "data")
    digits.unpack(home / "data")
    digits.film(home / "sixes.mp4", digits.read_sheet("test_6")[:SHOWN])

    quiet = ["--no-progress"] if args.no_progress else []
    run_folder = home / "run"
    _gantrt(
        *("train", "cyclegan", "--preset", "mnist", "--data", home / "data", "-o", run_folder, "--seed", args.seed),
        *("--overwrite", *quiet),
    )
    for way, (direction, held_out) in WAYS.items():
        engine = home / f"{way}.onnx"
        _gantrt("export", run_folder, "-o", engine, "--direction", direction, "--overwrite")
        _gantrt(*("translate", "--engine", engine, home / "data" / held_out), *_to(home / way), *quiet)
    for way, back in zip(WAYS, reversed(WAYS), strict=True):
        _gantrt(*("translate", "--engine", home / f"{back}.onnx", home / way), *_to(home / f"{way}_and_back"), *quiet)
    clip = home / "nines.mp4"
    _gantrt("translate", "--engine", home / "six_to_nine.onnx", home / "sixes.mp4", *_to(clip), *quiet)
    _gantrt("bench", "--engine", home / "six_to_nine.onnx", "--duration", 2, "--json", home / "bench.json")

    digits.contact_sheet(home / "digits.png", _rows(home), SHOWN)
    print(f"\nLook at  {home / 'digits.png'}   held-out digits, translated, and translated back")
    print(f"         {clip}   {home / 'sixes.mp4'} translated frame by frame")
    print(f"         {run_folder / 'samples'}   what the network made while it learned")
    print(f"         {home / 'bench.json'}   how fast it runs here")
    return 0


def _to(output: Path) -> tuple[str | Path, ...]:
    return "-o", output, "--overwrite"


def _gantrt(*words: object) -> None:
    """Run one command as a user would type it; an error ends the demo with that command's own message."""
    from . import main

    argv = [str(word) for word in words]
    print(f"\n$ gantrt {shlex.join(argv)}", flush=True)
    code = main(argv)
    if code > 128:
        raise Interrupted(code - 128)
    if code:
        raise GantrtError(f"demo: gantrt {argv[0]} ended with exit code {code}")


def _rows(home: Path) -> list[tuple[str, Path]]:
    """Held-out digits, their translations, and these translated back."""
    rows = []
    for way, (_, held_out) in WAYS.items():
        first, second = way.split("_to_")
        rows += [(f"real {first}", home / "data" / held_out), (f"to {second}", home / way)]
        rows += [("and back", home / f"{way}_and_back")]
    return rows
