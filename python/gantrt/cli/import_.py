"""`gantrt import`: a checkpoint of another code-base becomes a RUN folder, as if it had been trained here."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceUnavailable

if TYPE_CHECKING:
    from gantrt_training.importing import Imported

HELP = "take over networks that another code-base trained"
NEEDED = {"torch", "safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help=".pth, .pt or .safetensors; several of one training")
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="folder for what `gantrt export` takes")
    parser.add_argument("--family", metavar="F", help="pix2pix, cyclegan, discogan, ugatit; default: as recognised")
    parser.add_argument(
        "--network", metavar="NAME", help="one of several, such as genA2B; of a single one, its name, such as G_B"
    )
    parser.add_argument("--size", type=_size, metavar="HxW", help="of the pictures, where no tensor says so")
    parser.add_argument(
        "--norm-mode",
        choices=["running", "instance"],
        help="what BatchNorm goes by: the statistics of the training, or each picture's own; default: as it was tested",
    )
    parser.add_argument("--dropout", choices=["off"], default="off", help="an engine has none; default: off")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier import in RUN")


def run(args: argparse.Namespace) -> int:
    try:
        from gantrt_training.importing import Request, import_checkpoint
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise DeviceUnavailable(f'import: {error.name} is not installed; pip install "gantrt[train]"') from error
    request = Request(family=args.family, network=args.network, size=args.size, norm_mode=args.norm_mode)
    imported = import_checkpoint(args.files, args.output, request, overwrite=args.overwrite)
    _report(Path(args.output), imported)
    return 0


def _report(run: Path, imported: Imported) -> None:
    description = imported.description
    print(f"{run}  {imported.path.stat().st_size / 1e6:.1f} MB")
    print(f"{description.family} of {imported.code_base}: {', '.join(description.networks)}")
    print(", ".join(f"{key}={value}" for key, value in imported.deduced.items()))
    if description.config.get("norm", "batch") == "batch" and description.family != "ugatit":
        statistics = {"instance": "each picture's own statistics", "running": "the statistics of the training"}
        print(f"BatchNorm goes by {statistics[description.norm_mode]} (--norm-mode)")
    if imported.left_out:
        print(f"left out: {', '.join(imported.left_out)}")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 256x256")
    return int(match[1]), int(match[2])
