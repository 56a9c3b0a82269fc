"""`gantrt export`: a training becomes one portable engine file, compared with torch before it is released."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path

from ..errors import DeviceUnavailable, UsageError
from ..manifest import Manifest

HELP = "make an engine of a trained network"
NEEDED = {"torch", "onnx", "onnxscript", "safetensors", "google"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a training, or a .safetensors checkpoint")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.onnx")
    parser.add_argument("--direction", choices=["a2b", "b2a"], help="default: a2b, or the one there is")
    parser.add_argument("--size", type=_size, metavar="HxW", help="of the pictures; default: as trained")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pictures at once; default: 1")
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16", "int8"], default="fp32", help="default: fp32")
    parser.add_argument("--calibration", metavar="DIR", help="pictures to calibrate int8 with")
    parser.add_argument("--dynamic", action="store_true", help="take any height and width the network can")
    parser.add_argument(
        "--norm-mode",
        choices=["running", "instance"],
        help="what BatchNorm goes by: the statistics of the training, or each picture's own; default: as trained",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.onnx if it exists")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(args: argparse.Namespace) -> int:
    output = Path(args.output)
    if output.suffix == ".plan":
        raise DeviceUnavailable(f"export: this gantrt makes no TensorRT plans; give -o {output.with_suffix('.onnx')}")
    if output.suffix != ".onnx":
        raise UsageError(f"export: {output}: an engine's name ends in .onnx")
    if args.calibration and args.precision != "int8":
        raise UsageError(f"export: --calibration is for --precision int8, not {args.precision}")
    try:
        from gantrt_training.export import Request, export
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise DeviceUnavailable(f'export: {error.name} is not installed; pip install "gantrt[train]"') from error
    request = Request(
        direction=args.direction,
        size=args.size,
        batch=args.batch,
        precision=args.precision,
        dynamic=args.dynamic,
        norm_mode=args.norm_mode,
    )
    manifest = export(args.run, output, request, overwrite=args.overwrite)
    if args.json:
        print(json.dumps(dataclasses.asdict(manifest), indent=2))
    else:
        _report(output, manifest)
    return 0


def _report(output: Path, manifest: Manifest) -> None:
    spec, parity = manifest.input, manifest.parity
    size = f"{spec.height}x{spec.width}" + (f" or any multiple of {spec.multiple}" if spec.dynamic else "")
    print(f"{output}  {output.stat().st_size / 1e6:.1f} MB")
    together = f", {manifest.batch} at once" if manifest.batch > 1 else ""
    print(f"{manifest.family} {manifest.direction}, {manifest.color} {size}, {manifest.precision}{together}")
    print(f"\n{'against torch':<14} {'largest error':>14} {'PSNR':>10}   on {parity['samples']:g} pictures")
    for key in parity:
        runtime = key.removesuffix("_max_abs")
        if runtime not in (key, "max"):
            print(f"{runtime:<14} {parity[key]:>14.1e} {parity[f'{runtime}_psnr_db']:>7.1f} dB")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 256x256")
    return int(match[1]), int(match[2])
