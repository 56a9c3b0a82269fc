"""How fast a frame is translated on this CPU: gantrt beside what a user would write with each library.

    python bench/engines.py [--family F ...] [--duration 5] [--calibration DIR] [--quick]

Each family's generator at its paper's size, with random weights. All contestants take a uint8 frame of that size and
return one, taking turns within one run, so what else the machine does hits all alike; the processor's own limit takes
its turns among them. By hand means without anything of ours: the ONNX file is torch.onnx.export's, pixels are NumPy's.
Writes bench/results/engines_cpu.json; bench/report.py makes the table and the plot of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import gantrt
import numpy as np
import onnxruntime
from gantrt.engines.openvino import core
from gantrt.errors import GantrtError
from gantrt.measure import Settings, compare
from gantrt.timing import Summary
from gantrt_training.export import Request
from gantrt_training.peers import Network, torch_peer
from goals import judged
from machine import machine
from networks import FAMILIES, TITLES, export, export_int8, export_plain, generator, multiplications
from numpy.typing import NDArray
from peak import Peak

RESULTS = Path(__file__).resolve().parent / "results"
Frame = NDArray[np.uint8]
Tensor = NDArray[np.float32]


@dataclass(frozen=True)
class Contestant:
    name: str
    precision: str  # what most of its multiplications are made in
    call: Callable[[], Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument(
        "--duration", type=float, default=5.0, help="seconds for each contestant, at least (default: 5)"
    )
    parser.add_argument("--iterations", type=int, default=6, help="frames for each contestant, at least (default: 6)")
    parser.add_argument("--calibration", type=Path, help="folder of pictures for int8 (default: drawn ones)")
    parser.add_argument(
        "--compile-limit", type=float, default=120.0, help="seconds torch.compile may take; 0: left out"
    )
    parser.add_argument("--quick", action="store_true", help="half a second each, without torch.compile: a first look")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="cuda: plans, beside the tutorials' loop"
    )
    parser.add_argument("--json", type=Path, help="default: bench/results/engines_<device>.json")
    parser.add_argument("--only-compile", choices=list(FAMILIES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_compile:
        return only_compile(args.only_compile)
    if args.quick:
        args.duration, args.iterations, args.compile_limit = 0.5, 3, 0.0
    args.json = args.json or RESULTS / f"engines_{args.device}.json"
    if args.device == "cuda":
        return on_cuda(args)
    begin, here, peak = time.perf_counter(), machine(), Peak()
    rows = []
    for family in args.family:
        rows.append(measure(family, args, peak))
        print("\n".join(lines(rows[-1])), flush=True)
    report = {
        "what": "frame to frame, uint8 to uint8, median ms; ratio: the contestant's median over gantrt's",
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - begin),
        "machine": here,
        "rows": rows,
        "goals": judged(rows),
    }
    for goal in report["goals"]:
        print(f"{'met   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['got']:.3g}, wanted {goal['wanted']}")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{args.json}, {report['seconds']} s")
    return 0


def on_cuda(args: argparse.Namespace) -> int:
    """The same frames through a GPU."""
    from engines_cuda import contestants
    from gpu_machine import about

    rows = []
    for family in args.family:
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            calls, missing = contestants(family, stack, scratch)
            settings = Settings(duration=args.duration, iterations=args.iterations)
            times = {name: Summary.of(values) for name, values in compare(calls, settings).items()}
        rows.append({"family": family, "missing": missing, "ms": {k: round(v.median, 4) for k, v in times.items()}})
        print(json.dumps(rows[-1]), flush=True)
    report = {"what": "frame to frame, host to host, median ms, fp16", **about(), "rows": rows}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(args.json)
    return 0


def measure(family: str, args: argparse.Namespace, peak: Peak) -> dict[str, Any]:
    source = generator(family)
    network = Network(source.family, source.generator, source.norm_mode)
    size = source.config.size
    frame = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = export(family, scratch / "engine.onnx", Request(samples=1))
        plain = export_plain(network, size, scratch / "plain.onnx")
        contestants = list(ours(stack, engine, frame))
        try:
            int8 = export_int8(family, scratch / "int8.onnx", args.calibration, scratch)
            contestants += ours_int8(stack, int8, frame)
        except GantrtError as error:  # NNCF is not installed, for one
            missing["gantrt int8"] = str(error)
        contestants += by_hand(plain, frame, contestants[0].precision)
        contestants += in_torch(network, frame)
        if why := compiled_before(family, args.compile_limit):
            missing["torch.compile"] = why
        else:
            contestants.append(Contestant("torch.compile", "fp32", torch_frames("torch-compile", network, frame)))
        calls = {contestant.name: contestant.call for contestant in contestants}
        calls |= {f"peak {precision}": call for precision, call in peak.calls.items()}
        times = {
            name: Summary.of(values)
            for name, values in compare(calls, Settings(duration=args.duration, iterations=args.iterations)).items()
        }
        start = {} if args.quick else started(engine, size, scratch)
    multiplied = multiplications(network, size)
    peaks = {precision: peak.rate(precision, times[f"peak {precision}"].median) for precision in peak.calls}
    base = times["gantrt"].median
    return {
        "family": family,
        "network": TITLES[family],
        "size": size,
        "gmac": round(multiplied / 1e9, 3),
        "peak_gops": {precision: round(rate / 1e9, 1) for precision, rate in peaks.items()},
        "floor_ms": {precision: round(2e3 * multiplied / rate, 3) for precision, rate in peaks.items()},
        "start": start,
        "missing": missing,
        "contestants": [
            {
                "name": contestant.name,
                "precision": contestant.precision,
                "n": (summary := times[contestant.name]).n,
                "median_ms": round(summary.median, 3),
                "min_ms": round(summary.min, 3),
                "p95_ms": round(summary.p95, 3),
                "ratio": round(summary.median / base, 3),
                "of_peak": share(multiplied, summary.median, peaks.get(contestant.precision)),
            }
            for contestant in contestants
        ],
    }


def share(multiplied: int, milliseconds: float, peak: float | None) -> float | None:
    """Of the peak, counting what the paper's layers multiply: rewrites that multiply less can come out above it."""
    return None if peak is None else round(2e3 * multiplied / milliseconds / peak, 3)


def ours(stack: ExitStack, engine: Path, frame: Frame) -> Iterator[Contestant]:
    default = stack.enter_context(gantrt.load(engine, device="cpu", cache_dir=""))
    yield Contestant("gantrt", default.info.precision, frames(default, frame))
    if default.info.precision != "fp32":
        fp32 = stack.enter_context(gantrt.load(engine, device="cpu", cache_dir="", precision="fp32"))
        yield Contestant("gantrt fp32", "fp32", frames(fp32, frame))


def ours_int8(stack: ExitStack, engine: Path, frame: Frame) -> Iterator[Contestant]:
    int8 = stack.enter_context(gantrt.load(engine, device="cpu", cache_dir=""))
    yield Contestant("gantrt int8", "int8", frames(int8, frame))
    yield Contestant("OpenVINO by hand, our int8", "int8", with_openvino(engine, frame))


def frames(translator: gantrt.Translator, frame: Frame) -> Callable[[], Any]:
    out = np.empty_like(frame)
    return lambda: translator(frame, out)


# What a user would write: pixels with OpenCV and NumPy, as every tutorial has it.


def before(frame: Frame, size: int) -> Tensor:
    if frame.shape[:2] != (size, size):
        frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray((frame.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)[None])


def after(y: Tensor, frame: Frame) -> Frame:
    made = ((y[0].transpose(1, 2, 0) + 1.0) * 127.5).round().clip(0, 255).astype(np.uint8)
    return made if made.shape == frame.shape else cv2.resize(made, frame.shape[1::-1])


def by_hand(plain: Path, frame: Frame, default: str) -> Iterator[Contestant]:
    yield Contestant("OpenVINO by hand", default, with_openvino(plain, frame))
    if default != "fp32":
        yield Contestant("OpenVINO by hand fp32", "fp32", with_openvino(plain, frame, INFERENCE_PRECISION_HINT="f32"))
    yield Contestant("ONNX Runtime by hand", "fp32", with_onnxruntime(plain, frame))


def with_openvino(path: Path, frame: Frame, **settings: str) -> Callable[[], Frame]:
    from gantrt.engine_file import inlined

    model = core().read_model(inlined(path))  # of a file without our op: the file itself
    compiled = core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **settings})
    size = model.inputs[0].shape[2]
    return lambda: after(compiled(before(frame, size))[0], frame)


def with_onnxruntime(path: Path, frame: Frame) -> Callable[[], Frame]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[2]
    return lambda: after(session.run(None, {"input": before(frame, size)})[0], frame)


def in_torch(network: Network, frame: Frame) -> Iterator[Contestant]:
    yield Contestant("torch eager", "fp32", torch_frames("torch", network, frame))
    yield Contestant("torch channels_last bf16", "bf16", torch_frames("torch-bf16", network, frame))


def torch_frames(name: str, network: Network, frame: Frame) -> Callable[[], Frame]:
    size = frame.shape[0]
    x = np.empty((1, 3, size, size), np.float32)
    once = torch_peer(name, network, x)

    def call() -> Frame:
        x[:] = before(frame, size)
        return after(once(), frame)

    return call


def compiled_before(family: str, limit: float) -> str | None:
    """Why torch.compile takes no part; None if it does. Another process compiles first, and its kernels are found."""
    if limit <= 0:
        return "left out"
    words = [sys.executable, __file__, "--only-compile", family]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"compiling takes more than {limit:g} s"
    return None if done.returncode == 0 else next(reversed(done.stderr.strip().splitlines()), "it failed")


def only_compile(family: str) -> int:
    source = generator(family)
    network = Network(source.family, source.generator, source.norm_mode)
    size = source.config.size
    torch_frames("torch-compile", network, np.zeros((size, size, 3), np.uint8))()
    return 0


def started(engine: Path, size: int, scratch: Path) -> dict[str, Any]:
    """What a start costs, in a process of its own with an empty cache."""
    words = [sys.executable, "-m", "gantrt", "bench", "--engine", str(engine), "--json", "-", "-q"]
    words += ["--frame-size", f"{size}x{size}", "--duration", "0.1", "--iterations", "2", "--warmup-ms", "0"]
    environment = os.environ | {"GANTRT_CACHE": str(scratch / "cache")}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    frame, memory = found["metrics"]["frame"], found["memory"]
    names = ("load_ms", "load_again_ms", "first_frame_ms")
    return {name: round(frame[name], 1) for name in names} | {
        "loaded_mb": round(memory["loaded_mb"]),
        "before_load_mb": round(memory["before_load_mb"]),
        "arithmetic": found["engine"]["arithmetic"],
    }


def lines(row: dict[str, Any]) -> Iterator[str]:
    yield f"{row['network']}, {row['size']}x{row['size']}, {row['gmac']} GMAC; peak, GOP/s: {row['peak_gops']}"
    for each in row["contestants"]:
        of_peak = f"{each['of_peak']:6.1%} of peak" if each["of_peak"] is not None else ""
        times = f"{each['median_ms']:9.2f} ms {each['ratio']:6.2f}x"
        yield f"  {each['name']:<27}{each['precision']:<5}{times}   {of_peak}"
    for name, why in row["missing"].items():
        yield f"  {name:<27}{why}"
    if row["start"]:
        yield f"  start: {row['start']}"


if __name__ == "__main__":
    raise SystemExit(main())
