"""How fast a frame is translated on this CPU: gantrt beside what a user would write with each library.

    python bench/engines.py [--family F ...] [--duration 5] [--scale 1.0]

Each family's generator at its paper's size, with random weights, is exported once; then all contestants take a uint8
frame of that size and return one, taking turns within one run, so what else the machine does hits all alike.
Writes bench/results/engines_cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
import onnxruntime
import openvino
import torch
from gantrt.engine_file import inlined
from gantrt.engines.openvino import core
from gantrt.measure import Settings, compare
from gantrt_training.export import Source, export_generator
from gantrt_training.family import load_family
from numpy.typing import NDArray

RESULTS = Path(__file__).parent / "results"
Frame = NDArray[np.uint8]
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "pix2pix U-Net-256": ("pix2pix", {}),
    "CycleGAN ResNet-9": ("cyclegan", {}),
    "DiscoGAN 64": ("discogan", {"bottleneck": 100}),
    "U-GAT-IT light": ("ugatit", {"light": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--duration", type=float, default=5.0, help="seconds for each contestant")
    args = parser.parse_args()
    rows = [measure(name, *NETWORKS[name], args.duration) for name in args.network]
    report = {
        "what": "frame to frame, uint8 to uint8, median ms; ratio: the contestant's median over gantrt's",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "engines_cpu.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    for row in rows:
        print(f"{row['network']} ({row['size']}x{row['size']}, gantrt runs {row['precision']})")
        for contestant in row["contestants"]:
            print(f"  {contestant['name']:<26} {contestant['median_ms']:8.2f} ms   {contestant['ratio']:.2f}x")
    print(path)


def measure(name: str, family_name: str, overrides: dict[str, Any], duration: float) -> dict[str, Any]:
    torch.manual_seed(0)
    family = load_family(family_name)
    config = family.Config(**overrides)
    generator = family.build(config)[family.generators["a2b"]].eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.onnx"
        source = Source(family, config, generator, norm_mode=family.norm_mode(config))
        manifest = export_generator(source, path)
        frame = np.random.default_rng(0).integers(0, 256, (config.size, config.size, 3), dtype=np.uint8)
        with gantrt.load(path) as ours, gantrt.load(path, precision="fp32") as ours_fp32:
            out = np.empty_like(frame)
            contestants: dict[str, Callable[[], Any]] = {
                "gantrt": lambda: ours(frame, out),
                "gantrt fp32": lambda: ours_fp32(frame, out),
                "OpenVINO by hand": with_openvino(path, frame),
                "ONNX Runtime by hand": with_onnxruntime(path, frame),
                "torch eager": with_torch(lambda x: family.image(generator, x), frame),
            }
            precision = ours.info.precision
            summaries = compare(contestants, Settings(duration=duration))
    base = summaries["gantrt"].median
    return {
        "network": name,
        "size": config.size,
        "precision": precision,
        "parity_max_abs": manifest.parity["max_abs"],
        "contestants": [
            {
                "name": each,
                "n": s.n,
                "median_ms": round(s.median, 3),
                "p95_ms": round(s.p95, 3),
                "ratio": round(s.median / base, 3),
            }
            for each, s in summaries.items()
        ],
    }


def before(frame: Frame) -> NDArray[np.float32]:
    """What every tutorial does ahead of the network."""
    return np.ascontiguousarray((frame.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)[None])


def after(y: NDArray[np.float32]) -> Frame:
    return ((y[0].transpose(1, 2, 0) + 1.0) * 127.5).round().clip(0, 255).astype(np.uint8)


def with_openvino(path: Path, frame: Frame) -> Callable[[], Frame]:
    compiled = core().compile_model(core().read_model(inlined(path)), "CPU")
    return lambda: after(compiled(before(frame))[0])


def with_onnxruntime(path: Path, frame: Frame) -> Callable[[], Frame]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda: after(session.run(None, {"input": before(frame)})[0])


def with_torch(generator: Callable[[torch.Tensor], torch.Tensor], frame: Frame) -> Callable[[], Frame]:
    def once() -> Frame:
        with torch.inference_mode():
            return after(generator(torch.from_numpy(before(frame))).numpy())

    return once


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "features": gantrt_features(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "openvino": openvino.__version__,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }


def gantrt_features() -> list[str]:
    from gantrt._core import cpu_features

    return cpu_features()


if __name__ == "__main__":
    main()
