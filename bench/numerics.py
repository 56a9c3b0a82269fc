"""How far each CPU engine is from the same network in float64, on pictures chosen to be unkind; and whether it repeats.

    python bench/numerics.py [--network N ...] [--width 16] [--size 64] [-o FILE.json]

Every network has random weights in which nothing fades away and every bias counts. torch in float32 is measured too:
what it is off by is the network's own ill condition on a picture, not an engine's fault. The judge's norms take for
zero what is less than 1e-9 of a plane's largest value: on a picture of one colour InstanceNorm divides rounding by
sqrt(eps), norm after norm, and even float64 would be noise in the end. Numbers are of outputs in [-1, 1], where a
grey level is 7.8e-3. Engines are opened as `gantrt.load` opens them; int8 is calibrated on drawn pictures, with as
many layers kept in floating point as the gate asks for. Then every engine is asked for the same picture again, in
the same and in other threads and streams: bit for bit, or within what. Writes bench/results/numerics.json.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gantrt.engines import Engine, Options, open_engine
from gantrt.errors import DeviceUnavailable, GantrtError
from gantrt_training.export import Request, export_generator
from gantrt_training.family import load_family
from gantrt_training.nets import norm
from gantrt_training.parity import openvino_has_bf16
from gantrt_training.tracing import Source, as_tested
from machine import machine
from networks import _drawn
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results"
NETWORKS: dict[str, tuple[str, dict[str, Any], str | None]] = {  # name -> family, config, norm mode
    "pix2pix, BatchNorm of the training": ("pix2pix", {}, "running"),
    "pix2pix, BatchNorm of each picture": ("pix2pix", {}, "instance"),
    "pix2pix, InstanceNorm": ("pix2pix", {"norm": "instance"}, None),
    "CycleGAN": ("cyclegan", {"n_blocks": 3}, None),
    "DiscoGAN": ("discogan", {}, None),
    "U-GAT-IT light": ("ugatit", {"light": True, "n_blocks": 2}, None),
    "U-GAT-IT full": ("ugatit", {"light": False, "n_blocks": 2}, None),
}
# Contender -> precision of the file, runtime, what the engine is asked to compute in (None: its own choice)
CONTENDERS: dict[str, tuple[Any, str, str | None]] = {
    "fp32, OpenVINO": ("fp32", "openvino", "fp32"),
    "fp32, ONNX Runtime": ("fp32", "onnxruntime", None),
    "fp32 computed in bf16, OpenVINO": ("fp32", "openvino", "bf16"),
    "fp16, OpenVINO": ("fp16", "openvino", "fp32"),
    "fp16, ONNX Runtime": ("fp16", "onnxruntime", None),
    "bf16, OpenVINO": ("bf16", "openvino", None),
    "int8, OpenVINO": ("int8", "openvino", None),
    "int8, ONNX Runtime": ("int8", "onnxruntime", None),
}
THREADS, STREAMS, REPEATS = (1, 2, 4), (1, 2), 5
ALMOST_FLAT = "mean 400 times the deviation"
Array = np.ndarray


def pictures(size: int) -> dict[str, Array]:
    """Name -> (size, size, 3) uint8."""
    random = np.random.default_rng(0)
    across = np.broadcast_to(np.linspace(0, 255, size).astype(np.uint8)[None, :, None], (size, size, 3))
    black = np.zeros((size, size, 3), np.uint8)
    one_lit, one_dark = black.copy(), black + 255
    one_lit[size // 2, size // 3], one_dark[size // 2, size // 3] = 255, 0
    almost = black + 255
    almost[random.random((size, size)) < 0.1] = 254
    checks = np.indices((size, size)).sum(0)[..., None] % 2 * np.full(3, 255, np.uint8)
    return {
        "noise": random.integers(0, 256, (size, size, 3), np.uint8),
        "gradient across": across.copy(),
        "gradient down": across.transpose(1, 0, 2).copy(),
        "checkers of one pixel": checks.astype(np.uint8),
        "one lit pixel": one_lit,
        "one dark pixel": one_dark,
        ALMOST_FLAT: almost,
        "black": black,
        "white": black + 255,
        "grey": black + 128,
        "red": black + np.array([255, 0, 0], np.uint8),
    }


# Of one colour, the checkers once a layer has halved them: nothing varies, and a norm divides rounding by sqrt(eps).
FLAT = ("black", "white", "grey", "red", "checkers of one pixel")


def to_network(picture: Array) -> Array:
    """(1, 3, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray((picture.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])


def a_source(name: str, width: int, size: int) -> tuple[Source, str | None]:
    family_name, overrides, norm_mode = NETWORKS[name]
    family = load_family(family_name)
    config = family.Config(**{"size": size, "ngf": width, "ndf": 4} | overrides)
    torch.manual_seed(0)
    generator = family.build(config)[family.generators["a2b"]].eval()
    lively(generator)
    return Source(family, config, generator, norm_mode=family.norm_mode(config)), norm_mode


@torch.no_grad()
def lively(network: nn.Module) -> None:
    """Weights as after a training: biases and statistics that are not zero and one, and nothing that fades away."""
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if not value.is_floating_point():
            continue
        if "rho" in name or "running_var" in name:
            value.uniform_(0.1, 1)
        elif value.dim() > 1:
            nn.init.kaiming_normal_(value, a=1.0)
        else:
            value.add_(torch.randn_like(value) * 0.1)


def judge(source: Source, norm_mode: str, dtype: torch.dtype) -> Callable[[Array], Array]:
    """The network in torch, in `dtype`, as a function of what `to_network` makes."""
    network = copy.deepcopy(source.generator).to(dtype)
    norms = _exact_norms if dtype == torch.float64 else contextlib.nullcontext

    def run(x: Array) -> Array:
        with norms(), as_tested(network, norm_mode), torch.no_grad():
            return source.family.image(network, torch.from_numpy(x).to(dtype)).double().numpy()

    return run


@contextlib.contextmanager
def _exact_norms() -> Iterator[None]:
    standardise = norm._standardise

    def cleaned(x: Tensor, dims: tuple[int, ...], eps: float, unbiased: bool) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        constant = centred.abs() < 1e-9 * x.abs().amax((2, 3), keepdim=True)
        return standardise(torch.where(constant, x.mean((2, 3), keepdim=True), x), dims, eps, unbiased)

    def instance_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, eps: float = 1e-5) -> Tensor:
        y = cleaned(x, (2, 3), eps, False)
        return y if scale is None or shift is None else y * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    with patch.object(norm, "_standardise", cleaned), patch.object(norm, "instance_norm", instance_norm):
        yield


def opened(path: Path, runtime: str, precision: str | None, threads: int | None = None, streams: int = 1) -> Engine:
    options = Options(precision=precision, threads=threads, streams=streams, cache_dir="")
    return open_engine(path, options, runtime)


def made_by(engine: Engine, x: Array) -> Array:
    y = np.full((*x.shape[:1], engine.manifest.made_channels, *x.shape[2:]), np.nan, np.float32)
    engine.run(x, y)
    return y


def error(made: Array, wanted: Array) -> dict[str, Any]:
    """Of one picture."""
    difference = np.abs(made.astype(np.float64) - wanted)
    finite = bool(np.isfinite(made).all())
    square = float(np.square(difference).mean()) if finite else math.inf
    return {
        "finite": finite,
        "max_abs": float(f"{difference.max():.2e}") if finite else None,
        "psnr_db": None if not finite else 200.0 if square == 0 else round(min(200.0, 10 * math.log10(4 / square)), 1),
    }


def exported(source: Source, norm_mode: str | None, folder: Path) -> dict[str, Path | str]:
    """Precision -> the engine file, or why there is none."""
    files: dict[str, Path | str] = {}
    for precision in sorted({contender[0] for contender in CONTENDERS.values()}):
        request = Request(precision=precision, norm_mode=norm_mode)  # type: ignore[arg-type]
        if precision == "int8":
            drawn = _drawn(folder / "calibration", size=64)
            request = Request(precision="int8", norm_mode=request.norm_mode, calibration=drawn, keep_fp=("auto",))
        path = folder / f"{precision}.onnx"
        try:
            export_generator(source, path, request)
            files[precision] = path
        except GantrtError as why:
            files[precision] = str(why)
    return files


def contenders(files: dict[str, Path | str]) -> Iterator[tuple[str, Path, str, str | None]]:
    """Those that are possible here."""
    for name, (precision, runtime, computed_in) in CONTENDERS.items():
        path = files[precision]
        if isinstance(path, Path) and not (computed_in == "bf16" and not openvino_has_bf16()):
            yield name, path, runtime, computed_in


def measured(name: str, width: int, size: int) -> dict[str, Any]:
    source, norm_mode = a_source(name, width, size)
    mode = norm_mode or source.norm_mode
    exact, single = judge(source, mode, torch.float64), judge(source, mode, torch.float32)
    shown = {kind: to_network(picture) for kind, picture in pictures(size).items()}
    wanted = {kind: exact(x) for kind, x in shown.items()}
    rows: dict[str, Any] = {"torch fp32": {kind: error(single(x), wanted[kind]) for kind, x in shown.items()}}
    rows["torch fp32"]["worst"] = worst(rows["torch fp32"])
    repeats: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = exported(source, norm_mode, Path(folder))
        for contender, path, runtime, computed_in in contenders(files):
            try:
                engine = opened(path, runtime, computed_in)
            except (DeviceUnavailable, GantrtError) as why:
                files[contender] = str(why)
                continue
            rows[contender] = {kind: error(made_by(engine, x), wanted[kind]) for kind, x in shown.items()}
            engine.close()
            repeats[contender] = repeated(path, runtime, computed_in, shown["noise"])
            rows[contender]["worst"] = worst(rows[contender])
            print(name, contender, rows[contender]["worst"], repeats[contender]["summary"], flush=True)
    refused = {key: why for key, why in files.items() if isinstance(why, str)}
    return {"network": name, "width": width, "size": size, "errors": rows, "repeats": repeats, "refused": refused}


def worst(row: dict[str, Any]) -> dict[str, Any]:
    """The largest error on pictures with something in them, on those of one colour, and on the one between."""
    apart = {"almost flat": [ALMOST_FLAT], "flat": list(FLAT)}
    parts = {"pictures": [kind for kind in row if kind not in (ALMOST_FLAT, *FLAT)]} | apart
    return {
        part: max(math.inf if row[kind]["max_abs"] is None else row[kind]["max_abs"] for kind in kinds)
        for part, kinds in parts.items()
    }


def repeated(path: Path, runtime: str, computed_in: str | None, x: Array) -> dict[str, Any]:
    """The same picture again: in a row, loaded anew, from two threads at once; with other threads and streams."""
    reference: Array | None = None
    settings = []
    for streams in STREAMS:
        for threads in THREADS:
            runs = []
            for _ in range(2):  # loaded anew
                engine = opened(path, runtime, computed_in, threads, streams)
                runs += [made_by(engine, x) for _ in range(REPEATS)]
                with ThreadPoolExecutor(2) as pool:
                    runs += list(pool.map(lambda _, engine=engine: made_by(engine, x), range(2)))
                engine.close()
            reference = runs[0] if reference is None else reference
            settings.append(
                {
                    "threads": threads,
                    "streams": streams,
                    "runs": len(runs),
                    "repeats_bit_for_bit": all(np.array_equal(run, runs[0]) for run in runs),
                    "off_by_from_one_thread": float(f"{np.abs(runs[0].astype(np.float64) - reference).max():.2e}"),
                }
            )
    always = all(setting["repeats_bit_for_bit"] for setting in settings)
    off = max(setting["off_by_from_one_thread"] for setting in settings)
    return {"summary": {"repeats_bit_for_bit": always, "threads_and_streams_change_it_by": off}, "settings": settings}


def one_line_each(report: dict[str, Any]) -> str:
    """JSON with a line for each contender of each network."""
    shown = [
        row
        | {"errors": {name: json.dumps(value) for name, value in row["errors"].items()}}
        | {"repeats": {name: json.dumps(value) for name, value in row["repeats"].items()}}
        for row in report["rows"]
    ]
    return (
        re.sub(
            r'"(\{.*\})"', lambda found: found[1].replace('\\"', '"'), json.dumps(report | {"rows": shown}, indent=1)
        )
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--width", type=int, default=16, help="ngf")
    parser.add_argument("--size", type=int, default=64, help="of pictures")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "numerics.json")
    args = parser.parse_args()
    about = machine()
    rows = [measured(name, args.width, args.size) for name in args.network]
    report = {
        "what": "largest error in [-1, 1] against the same network in float64, and whether it repeats",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": about,
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(one_line_each(report))
    print(args.output)


if __name__ == "__main__":
    main()
