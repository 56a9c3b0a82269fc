"""`gantrt export`: a training becomes one portable engine file, compared with torch before it is released; or, of a
training or of such a file, a TensorRT plan."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ..atomic import scratch_folder
from ..errors import DeviceUnavailable, UsageError
from ..manifest import Manifest, in_words

if TYPE_CHECKING:
    from ..plans.build import Request as PlanRequest

log = logging.getLogger("gantrt")

HELP = "make an engine of a trained network"
NEEDED = {"torch", "onnx", "onnxscript", "safetensors", "google"}

Size = tuple[int, int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a training, a .safetensors checkpoint, or an .onnx")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="OUT.onnx, or OUT.plan for TensorRT")
    parser.add_argument("--direction", choices=["a2b", "b2a"], help="default: a2b, or the one there is")
    parser.add_argument(
        "--size",
        type=_size,
        nargs="+",
        metavar="HxW",
        help="of the pictures; default: as trained; several for a plan",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="pictures at once; default: 1")
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16", "int8"], help="default: fp32")
    parser.add_argument(
        "--calibration", metavar="DIR", help="pictures for int8 to go by; default: those of the training"
    )
    parser.add_argument(
        "--keep-fp",
        nargs="+",
        metavar="NAME",
        help="convolutions that int8 leaves in floating point, by name or pattern; auto: those it must",
    )
    parser.add_argument(
        "--dynamic",
        nargs="?",
        const=True,
        type=_sizes,
        metavar="MIN:OPT:MAX",
        help="take any height and width the network can; a plan is told which, such as 128x128:256x256:512x512",
    )
    parser.add_argument(
        "--norm-mode",
        choices=["running", "instance"],
        help="what BatchNorm goes by: the statistics of the training, or each picture's own; default: as trained",
    )
    parser.add_argument("--triton", metavar="DIR", help="also write it into a model repository of Triton")
    parser.add_argument("--no-rewrites", action="store_true", help="the network as it was written, to compare")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    plan = parser.add_argument_group("of OUT.plan")
    plan.add_argument(
        "--target",
        choices=["tensorrt", "tensorrt-rtx"],
        help="what is to run it; default: tensorrt where there is a GPU and it is installed, else tensorrt-rtx",
    )
    plan.add_argument(
        "--compute-capability", nargs="+", metavar="C", help="GPUs it is for, such as 8.6 8.9; default: the one here"
    )
    plan.add_argument("--no-plugins", action="store_true", help="standard operations only, for trtexec and Triton")
    plan.add_argument("--timing-cache", metavar="FILE", help='what TensorRT measured before; default: kept; "": none')
    plan.add_argument("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    output = Path(args.output)
    if output.suffix not in (".onnx", ".plan"):
        raise UsageError(f"export: {output}: an engine's name ends in .onnx, or .plan for TensorRT")
    for flag, given in (("--calibration", args.calibration), ("--keep-fp", args.keep_fp)):
        if given and args.precision != "int8":
            raise UsageError(f"export: {flag} is for --precision int8, not {args.precision or 'fp32'}")
    manifest = _plan(args, output) if output.suffix == ".plan" else _engine(args, output)
    if args.triton:
        from ..triton import write_repository

        model = write_repository(output, manifest, Path(args.triton), overwrite=args.overwrite)
        log.info("export: %s is ready for tritonserver --model-repository %s", model, args.triton)
    if args.json:
        print(json.dumps(dataclasses.asdict(manifest), indent=2))
    else:
        _report(output, manifest)
    return 0


def _engine(args: argparse.Namespace, output: Path) -> Manifest:
    if Path(args.run).suffix == ".onnx":
        raise UsageError(f"export: {args.run} is an engine already; give -o OUT.plan to compile it for a GPU")
    for flag in ("target", "compute_capability", "no_plugins", "timing_cache"):
        if getattr(args, flag):
            raise UsageError(f"export: --{flag.replace('_', '-')} is for a plan; give -o {output.with_suffix('.plan')}")
    if isinstance(args.dynamic, tuple):
        raise UsageError("export: an .onnx takes any size its network can; leave out MIN:OPT:MAX")
    if args.size and len(args.size) > 1:
        raise UsageError("export: an .onnx has one size, or with --dynamic any; several are for a plan")
    return _export(args, output, overwrite=args.overwrite)


def _export(args: argparse.Namespace, output: Path, *, overwrite: bool) -> Manifest:
    try:
        from gantrt_training.export import Request, export
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise DeviceUnavailable(f'export: {error.name} is not installed; pip install "gantrt[train]"') from error
    request = Request(
        direction=args.direction,
        size=args.size[0] if args.size and len(args.size) == 1 else None,
        batch=1 if args.batch is None else args.batch,
        precision=args.precision or "fp32",
        dynamic=bool(args.dynamic) or len(args.size or ()) > 1,
        norm_mode=args.norm_mode,
        calibration=args.calibration,
        keep_fp=tuple(args.keep_fp or ()),
        rewrites=not args.no_rewrites,
    )
    return export(args.run, output, request, overwrite=overwrite)


def _plan(args: argparse.Namespace, output: Path) -> Manifest:
    from ..plans.build import Request, build_plan, check_request
    from ..plans.targets import default_target, parse_capability

    if args.dynamic is True:
        raise UsageError("export: a plan is told its sizes; give --dynamic MIN:OPT:MAX, as in 128x128:256x256:512x512")
    request = Request(
        target=args.target or default_target(),
        capabilities=tuple(map(parse_capability, args.compute_capability or ())),
        plugins=not args.no_plugins,
        span=args.dynamic,
        sizes=tuple(args.size or ()),
        timing_cache=args.timing_cache,
        progress=not (args.no_progress or args.quiet),
    )
    check_request(request)  # before a network is traced for it
    if args.triton and (request.target != "tensorrt" or request.plugins):
        raise UsageError("export: Triton runs plans of TensorRT without plugins; give --target tensorrt --no-plugins")
    if output.exists() and not args.overwrite:
        raise UsageError(f"{output}: exists already; give --overwrite to replace it")
    if Path(args.run).suffix == ".onnx":
        if args.calibration or args.keep_fp:
            raise UsageError(f"export: {args.run} is an engine already; --calibration and --keep-fp are for a RUN")
        return build_plan(args.run, output, _of_engine(args, request), overwrite=args.overwrite)
    with scratch_folder("gantrt-export-") as folder:
        engine = folder / "engine.onnx"
        _export(args, engine, overwrite=False)
        sizes = request.sizes if len(request.sizes) > 1 else ()  # the engine was made of the one
        request = dataclasses.replace(request, sizes=sizes, source=_words(args))
        return build_plan(engine, output, request, overwrite=args.overwrite)


def _of_engine(args: argparse.Namespace, request: PlanRequest) -> PlanRequest:
    """Of an .onnx only the size may still be open: all else was settled when it was exported."""
    from ..engine_file import read_manifest

    manifest = read_manifest(args.run)
    settled = {
        "direction": manifest.direction if manifest else None,
        "batch": manifest.batch if manifest else 1,
        "precision": manifest.precision if manifest else None,
        "norm_mode": manifest.norm_mode if manifest else None,
    }
    for flag, value in settled.items():
        asked = getattr(args, flag)
        if asked not in (None, value):
            raise UsageError(
                f"export: {args.run} is an engine of {flag.replace('_', ' ')} {value}, and so is its plan; "
                f"export the RUN it came from with --{flag.replace('_', '-')} {asked}"
            )
    if args.no_rewrites:
        raise UsageError(f"export: {args.run} is an engine already; export the RUN it came from with --no-rewrites")
    return dataclasses.replace(request, source=shlex.quote(args.run))


def _words(args: argparse.Namespace) -> str:
    """The RUN and what was asked of it, as typed."""
    words = [shlex.quote(args.run)]
    for flag in ("direction", "batch", "precision", "norm_mode"):
        value = getattr(args, flag)
        words += [f"--{flag.replace('_', '-')}", str(value)] if value is not None else []
    words += [f"--size {args.size[0][0]}x{args.size[0][1]}"] if args.size and len(args.size) == 1 else []
    words += ["--calibration", shlex.quote(args.calibration)] if args.calibration else []
    words += ["--no-rewrites"] * args.no_rewrites
    return " ".join(words + (["--keep-fp", *map(shlex.quote, args.keep_fp)] if args.keep_fp else []))


def _report(output: Path, manifest: Manifest) -> None:
    spec, parity, target = manifest.input, manifest.parity, manifest.target
    size = f"{spec.height}x{spec.width}" + (f" or any multiple of {spec.multiple}" if spec.dynamic else "")
    size = target.get("sizes", size).replace(",", ", ")
    print(f"{output}  {output.stat().st_size / 1e6:.1f} MB")
    together = f", {manifest.batch} at once" if manifest.batch > 1 else ""
    pictures = in_words(spec.channels, manifest.made_channels, manifest.color)
    print(f"{manifest.family} {manifest.direction}, {pictures} {size}, {manifest.precision}{together}")
    if target:
        plugins = ", ".join(plugin["name"] for plugin in manifest.plugins) or "none"
        print(f"{target['runtime']} {target['version']}, compute capability {target['compute_capability']}")
        print(f"plugins: {plugins}")
    if not parity:
        return
    print(f"\n{'against torch':<14} {'largest error':>14} {'PSNR':>10}   on {parity['samples']:g} pictures")
    for key in parity:
        runtime = key.removesuffix("_max_abs")
        if runtime not in (key, "max"):
            print(f"{runtime:<14} {parity[key]:>14.1e} {parity[f'{runtime}_psnr_db']:>7.1f} dB")
    if manifest.int8:
        print(
            f"(calibrated on {manifest.int8['calibrated_on']} pictures, judged on {manifest.int8['judged_on']} others; "
            f"in floating point: {manifest.int8['kept_fp'] or 'no convolution'})"
        )
    if target:
        print("(of the graph the plan was built from)")


def _size(text: str) -> Size:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 256x256")
    return int(match[1]), int(match[2])


def _sizes(text: str) -> tuple[Size, Size, Size]:
    parts = text.split(":")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN:OPT:MAX, such as 128x128:256x256:512x512")
    least, best, most = map(_size, parts)
    return least, best, most
