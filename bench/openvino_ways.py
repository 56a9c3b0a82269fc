"""Which way of driving OpenVINO is fastest? Each thing we decided, beside its alternative, in one interleaved run.

    python bench/openvino_ways.py [--family F ...] [--duration 3] [--frame 1080x1920]

Network alone: as the engine does it (tensors bound once, outputs in place, threads free to move), and with one thing
changed at a time. Whole frames: our pixel kernels around the network, and OpenVINO's own preprocessor inside it.
Writes bench/results/openvino_ways.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
from gantrt.engine_file import inlined
from gantrt.engines.openvino import core
from gantrt.measure import Settings, compare
from gantrt.timing import Summary
from gantrt_training.export import Request
from machine import machine
from networks import FAMILIES, TITLES, export
from numpy.typing import NDArray
from openvino import Layout, Model, Tensor, Type, opset13
from openvino.preprocess import ColorFormat, PrePostProcessor, ResizeAlgorithm

RESULTS = Path(__file__).resolve().parent / "results" / "openvino_ways.json"
OURS: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", nargs="+", default=["discogan", "pix2pix"], choices=list(FAMILIES))
    parser.add_argument("--duration", type=float, default=3.0, help="seconds for each way (default: 3)")
    parser.add_argument("--frame", default="1080x1920", metavar="HxW", help="for the whole frames (default: 1080x1920)")
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    height, width = map(int, args.frame.split("x"))
    rows = []
    for family in args.family:
        with tempfile.TemporaryDirectory() as scratch:
            path = export(family, Path(scratch) / "engine.onnx", Request(samples=1))
            rows.append(measure(family, path, (height, width), Settings(duration=args.duration, iterations=5)))
        print(rows[-1]["title"])
        for block in ("network", "frame"):
            for name, each in rows[-1][block].items():
                print(f"  {block:8} {name:28} {each['median_ms']:9.3f} ms   {each['ratio']:.3f}x")
    report = {
        "what": "median ms; ratio: over the first of its block, which is how the engine does it",
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": rows,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def measure(family: str, path: Path, frame: tuple[int, int], settings: Settings) -> dict[str, Any]:
    model = core().read_model(inlined(path))
    height, width = model.inputs[0].shape[2:]
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    free = core().compile_model(model, "CPU", OURS)
    pinned = core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    network: dict[str, Callable[[], Any]] = {
        "as the engine does it": bound(free, x),
        "threads pinned": bound(pinned, x),
        "output copied": lambda: free(x),
        "bound anew each time": bound_anew(free, x),
        "asynchronous, then waited": asynchronous(free, x),
        "pinned and copied": lambda: pinned(x),
    }
    picture = np.random.default_rng(0).integers(0, 256, (*frame, 3), dtype=np.uint8)
    frames = {
        "our pixels": our_pixels(free, picture, x.shape),
        "OpenVINO's preprocessor": their_pixels(model, picture),
    }
    return {
        "title": TITLES[family],
        "size": [int(height), int(width)],
        "frame_size": list(frame),
    } | {block: timed(ways, settings) for block, ways in (("network", network), ("frame", frames))}


def timed(ways: dict[str, Callable[[], Any]], settings: Settings) -> dict[str, dict[str, float]]:
    found = {name: Summary.of(values) for name, values in compare(ways, settings).items()}
    base = next(iter(found.values())).median
    return {
        name: {"median_ms": round(each.median, 4), "min_ms": round(each.min, 4), "ratio": round(each.median / base, 4)}
        for name, each in found.items()
    }


def bound(compiled: Any, x: NDArray[np.float32]) -> Callable[[], Any]:
    y, request = np.empty_like(x), compiled.create_infer_request()
    request.set_input_tensor(Tensor(x, shared_memory=True))
    request.set_output_tensor(Tensor(y, shared_memory=True))
    return lambda: request.infer(share_outputs=True)


def bound_anew(compiled: Any, x: NDArray[np.float32]) -> Callable[[], Any]:
    y, request = np.empty_like(x), compiled.create_infer_request()

    def call() -> None:
        request.set_input_tensor(Tensor(x, shared_memory=True))
        request.set_output_tensor(Tensor(y, shared_memory=True))
        request.infer(share_outputs=True)

    return call


def asynchronous(compiled: Any, x: NDArray[np.float32]) -> Callable[[], Any]:
    y, request = np.empty_like(x), compiled.create_infer_request()
    request.set_input_tensor(Tensor(x, shared_memory=True))
    request.set_output_tensor(Tensor(y, shared_memory=True))

    def call() -> None:
        request.start_async()
        request.wait()

    return call


def our_pixels(compiled: Any, picture: NDArray[np.uint8], shape: tuple[int, ...]) -> Callable[[], Any]:
    """To the network's size, through it, and left at that size: OpenVINO's preprocessor does not resize its output."""
    x, y = np.empty(shape, np.float32), np.empty(shape, np.float32)
    out = np.empty((*shape[2:], 3), np.uint8)
    request = compiled.create_infer_request()
    request.set_input_tensor(Tensor(x, shared_memory=True))
    request.set_output_tensor(Tensor(y, shared_memory=True))

    def call() -> None:
        gantrt.frame_to_tensor(picture, out=x, color="bgr", resize="bilinear")
        request.infer(share_outputs=True)
        gantrt.tensor_to_frame(y, out=out, color="bgr")

    return call


def their_pixels(model: Any, picture: NDArray[np.uint8]) -> Callable[[], Any]:
    made = opset13.transpose(model.outputs[0].get_node().input_value(0), [0, 2, 3, 1])
    levels = opset13.add(opset13.multiply(made, np.float32(127.5)), np.float32(127.5))
    whole = opset13.convert(opset13.clamp(opset13.round(levels, "half_to_even"), 0.0, 255.0), "u8")
    processor = PrePostProcessor(Model([whole], model.get_parameters(), "frame to frame"))
    tensor = processor.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    tensor.set_color_format(ColorFormat.BGR).set_shape([1, *picture.shape])
    processor.input().model().set_layout(Layout("NCHW"))
    steps = processor.input().preprocess().convert_element_type(Type.f32).convert_color(ColorFormat.RGB)
    steps.resize(ResizeAlgorithm.RESIZE_LINEAR).mean(127.5).scale(127.5)
    compiled = core().compile_model(processor.build(), "CPU", OURS)
    frame = np.ascontiguousarray(picture[None])
    out = np.empty(tuple(compiled.outputs[0].shape), np.uint8)
    request = compiled.create_infer_request()
    request.set_input_tensor(Tensor(frame, shared_memory=True))
    request.set_output_tensor(Tensor(out, shared_memory=True))
    return lambda: request.infer(share_outputs=True)


if __name__ == "__main__":
    raise SystemExit(main())
