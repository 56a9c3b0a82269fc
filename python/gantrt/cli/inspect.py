"""`gantrt inspect`: what an engine, a checkpoint or a RUN folder is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..manifest import in_words

HELP = "say what an engine, checkpoint or RUN folder is"

Line = tuple[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help=".onnx, .plan or .safetensors, or the RUN folder of a training")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--html",
        nargs="?",
        const="",
        metavar="F",
        help="of a RUN folder: write its curves, samples and metrics as one page to F; default: RUN/report.html",
    )


def run(args: argparse.Namespace) -> int:
    from ..summary import summary

    if args.html is not None:
        return _page(Path(args.file), args.html)
    found = summary(args.file)
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    lines = list(_SHOWN[found["kind"]](found))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        print(f"{label:<{width}}  {text}".rstrip())
    return 0


def _page(run: Path, target: str) -> int:
    from ..errors import UsageError
    from ..run_page import write_page

    if not run.is_dir():
        raise UsageError(f"inspect: {run} is no RUN folder; --html shows a training")
    print(write_page(run, Path(target) if target else None))
    return 0


def _engine(found: dict[str, Any]) -> Iterator[Line]:
    manifest = found["manifest"]
    yield "engine", f"{found['path']}, {_megabytes(found['bytes'])}"
    yield from _what_it_does(manifest)
    for kind in ("inputs", "outputs"):
        for port in found[kind]:
            yield kind[:-1], f"{port['name']}, {port['type']} {'×'.join(str(size) for size in port['shape'])}"
    yield "nodes", ", ".join(f"{count} {op}" for op, count in found["nodes"].items())
    yield "bodies", ", ".join(found["bodies"]) or "none"
    yield "weights", _megabytes(found["weight_bytes"])
    yield "opset", ", ".join(f"{domain} {version}" for domain, version in found["opset"].items())
    if manifest is None:
        yield "made by", found["producer"] or "unknown"
    else:
        yield from _where_it_is_from(manifest)


def _plan(found: dict[str, Any]) -> Iterator[Line]:
    manifest = found["manifest"]
    yield "plan", f"{found['path']}, {_megabytes(found['bytes'])}"
    if manifest:
        target = manifest["target"]
        yield "runs on", f"{target.get('runtime')} {target.get('version')}"
        yield "GPUs", f"compute capability {target.get('compute_capability', 'unknown').replace(',', ', ')}"
    yield from _what_it_does(manifest)
    if manifest:
        yield "built from", f"{target.get('source', 'unknown')} {target.get('options', '')}"
        yield from _where_it_is_from(manifest)


def _what_it_does(manifest: dict[str, Any] | None) -> Iterator[Line]:
    if manifest is None:
        yield "manifest", "none; a caller must know its range and colours"
        return
    low, high = manifest["range"]
    yield "family", f"{manifest['family']}, {manifest['direction']}, {manifest['network']}"
    channels = manifest["input"]["channels"]
    kinds = in_words(channels, manifest.get("output_channels") or channels, manifest["color"])
    yield "pictures", f"{kinds} in [{low:g}, {high:g}], {_sizes(manifest)}"
    yield "precision", manifest["precision"] + _int8(manifest.get("int8"))
    yield "norms", _NORM_MODES.get(manifest["norm_mode"], manifest["norm_mode"])


def _where_it_is_from(manifest: dict[str, Any]) -> Iterator[Line]:
    yield "plugins", ", ".join(f"{plugin['name']} {plugin['version']}" for plugin in manifest["plugins"]) or "none"
    if manifest["parity"]:
        parity = manifest["parity"]
        yield (
            "parity",
            ", ".join(_PARITY[key].format(parity[key]) for key in _PARITY if key in parity),
        )
    yield "made by", _made_by(manifest["made_by"])
    yield "made from", f"sha256 {manifest['source_sha256']}" if manifest["source_sha256"] else "unknown"


def _checkpoint(found: dict[str, Any]) -> Iterator[Line]:
    yield "checkpoint", f"{found['path']}, {_megabytes(found['bytes'])}"
    description = found["description"]
    if description is None:
        yield "made by", "another program; `gantrt import` may know it"
    else:
        yield "family", f"{description.get('family')}, preset {description.get('preset')}"
        yield "trained", f"{description.get('step')} steps, {description.get('epoch')} epochs"
        norms = str(description.get("norm_mode"))
        yield "norms", _NORM_MODES.get(norms, norms)
        yield "made by", _made_by(description.get("made_by", {}))
    for name, network in found["networks"].items():
        yield name, f"{network['values'] / 1e6:.2f} M values in {network['tensors']} tensors"
    for key, value in (description or {}).get("config", {}).items():
        yield f"  {key}", str(value)


def _run(found: dict[str, Any]) -> Iterator[Line]:
    yield "run", found["path"]
    yield "checkpoints", ", ".join(found["checkpoints"]) or "none yet"
    recipe = found["recipe"] or {}
    if "data" in recipe:
        yield "data", str(recipe["data"])
    if found["newest"]:
        yield from _checkpoint(found["newest"])
    elif recipe:
        yield "family", f"{recipe.get('family')}, preset {recipe.get('preset')}"


_SHOWN = {"engine": _engine, "plan": _plan, "checkpoint": _checkpoint, "run": _run}
_PARITY = {"max_abs": "off torch by at most {:.1e}", "psnr_db": "{:.1f} dB", "samples": "{:g} pictures"}
_NORM_MODES = {"instance": "each picture's own statistics", "running": "statistics of the training", "none": "none"}


def _int8(how: dict[str, str] | None) -> str:
    if not how:
        return ""
    kept = f"; in floating point: {how['kept_fp']}" if how.get("kept_fp") else ""
    return f", calibrated on {how.get('calibrated_on')} pictures, judged on {how.get('judged_on')} others{kept}"


def _sizes(manifest: dict[str, Any]) -> str:
    spec = manifest["input"]
    if spec["dynamic"]:
        return f"any multiple of {spec['multiple']}, {spec['height']}x{spec['width']} preferred"
    return f"{spec['height']}x{spec['width']}" + (f", {manifest['batch']} at once" if manifest["batch"] > 1 else "")


def _made_by(made_by: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in made_by.items()) or "unknown"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
