"""What int8 costs in likeness and gains in time on this CPU, beside float32 and bfloat16.

    python bench/int8.py --run RUN [RUN ...] [--pictures DIR]          likeness: trained networks, held-out pictures
    python bench/int8.py --network N [N ...] --pictures DIR            time: networks at their papers' size

Likeness: each RUN is exported in fp32 and in int8 (--keep-fp auto), and compared with torch on pictures neither was
made with. Time: weights are random, as times do not depend on them, and so is the likeness, which is not told; all
contestants take turns within one run. Both renew their rows of bench/results/int8_cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import Counter
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
import openvino
import torch
from gantrt.engine_file import inlined
from gantrt.engines.openvino import core
from gantrt.measure import Settings, compare
from gantrt.timing import Summary
from gantrt_training import fidelity
from gantrt_training.checkpoint import load_run
from gantrt_training.export import Request, export, export_generator
from gantrt_training.family import load_family
from gantrt_training.tracing import Source

RESULTS = Path(__file__).parent / "results" / "int8_cpu.json"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "pix2pix U-Net-256": ("pix2pix", {}),
    "CycleGAN ResNet-9": ("cyclegan", {}),
    "DiscoGAN 64": ("discogan", {"bottleneck": 100}),
    "U-GAT-IT light": ("ugatit", {"light": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", nargs="+", default=[], metavar="RUN", help="trainings to judge int8 by")
    parser.add_argument("--network", nargs="+", default=[], choices=list(NETWORKS), help="networks to time")
    parser.add_argument("--pictures", metavar="DIR", help="to calibrate with; of a RUN: default: those of its training")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds for each contestant")
    args = parser.parse_args()
    if not (args.run or args.network) or (args.network and not args.pictures):
        parser.error("give --run RUN, or --network N and --pictures DIR")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"likeness": [], "time": []}
    about = {"command": " ".join(["python", "bench/int8.py", *sys.argv[1:]]), "date": date.today().isoformat()}
    about |= {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        for run in args.run:
            keep(found, "likeness", "run", likeness(Path(run), args.pictures, Path(folder)) | about)
        for name in args.network:
            keep(found, "time", "network", timed(name, args.pictures, args.duration, Path(folder)) | about)
    print(RESULTS)


def keep(found: dict[str, Any], block: str, key: str, row: dict[str, Any]) -> None:
    """Write `row` in the place of the one it renews."""
    found[block] = [old for old in found[block] if old[key] != row[key]] + [row]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({k: v for k, v in row.items() if k not in ("machine", "command")}), flush=True)


def likeness(run: Path, pictures: str | None, folder: Path) -> dict[str, Any]:
    """PSNR in dB from torch's fp32, on held-out pictures, and what the files weigh."""
    checkpoint = load_run(run)
    plain = export(run, folder / "fp32.onnx", Request(samples=16), overwrite=True)
    request = Request(precision="int8", calibration=pictures, keep_fp=("auto",))
    made = export(run, folder / "int8.onnx", request, overwrite=True)
    return {
        "run": run.name,
        "family": plain.family,
        "size": [plain.input.height, plain.input.width],
        "trained_steps": checkpoint.description.step,
        "ngf": checkpoint.config.ngf,
        "bf16_psnr_db": plain.parity.get("openvino_bf16_psnr_db"),
        "int8_psnr_db": made.parity["openvino_psnr_db"],
        "int8_and_bf16_psnr_db": made.parity.get("openvino_bf16_psnr_db"),
        "int8_in_onnxruntime_psnr_db": made.parity.get("onnxruntime_psnr_db"),
        "int8": made.int8,
        "kernels": convolutions(folder / "int8.onnx"),
        "fp32_megabytes": round((folder / "fp32.onnx").stat().st_size / 1e6, 2),
        "int8_megabytes": round((folder / "int8.onnx").stat().st_size / 1e6, 2),
    }


def timed(name: str, pictures: str, duration: float, folder: Path) -> dict[str, Any]:
    """Frame to frame, uint8 to uint8, median ms of each contestant."""
    family_name, overrides = NETWORKS[name]
    family = load_family(family_name)
    config = family.Config(**overrides)
    torch.manual_seed(0)
    generator = family.build(config)[family.generators["a2b"]].eval()
    source = Source(family, config, generator, norm_mode=family.norm_mode(config))
    export_generator(source, folder / "fp32.onnx", Request(samples=1), overwrite=True)
    fidelity.LEAST_DB["int8"] = 1.0  # random weights: only the time counts
    export_generator(source, folder / "int8.onnx", Request(precision="int8", calibration=pictures), overwrite=True)
    frame = np.random.default_rng(0).integers(0, 256, (config.size, config.size, 3), dtype=np.uint8)
    engines = {
        "ONNX Runtime fp32": gantrt.load(folder / "fp32.onnx", runtime="onnxruntime"),
        "fp32": gantrt.load(folder / "fp32.onnx", precision="fp32", cache_dir=""),
        "bf16": gantrt.load(folder / "fp32.onnx", cache_dir=""),
        "int8": gantrt.load(folder / "int8.onnx", cache_dir=""),
    }
    if engines["bf16"].info.precision != "bf16":
        engines.pop("bf16").close()
    times = compare({key: partial(t, frame) for key, t in engines.items()}, Settings(duration=duration))
    summaries = {key: Summary.of(each) for key, each in times.items()}
    for translator in engines.values():
        translator.close()
    base = summaries["ONNX Runtime fp32"]
    return {
        "network": name,
        "size": config.size,
        "kernels": convolutions(folder / "int8.onnx"),
        "fp32_megabytes": round((folder / "fp32.onnx").stat().st_size / 1e6, 2),
        "int8_megabytes": round((folder / "int8.onnx").stat().st_size / 1e6, 2),
        "contestants": [
            {
                "name": each,
                "n": s.n,
                "median_ms": round(s.median, 3),
                "min_ms": round(s.min, 3),
                "times_onnxruntime_fp32": round(base.median / s.median, 3),
            }
            for each, s in summaries.items()
        ],
    }


def convolutions(path: Path) -> dict[str, int]:
    """How many convolutions OpenVINO runs in which type."""
    compiled = core().compile_model(core().read_model(inlined(path)), "CPU")
    infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    convolution = [info for info in infos if info["layerType"].astype(str) in ("Convolution", "Deconvolution")]
    return dict(Counter(info["primitiveType"].astype(str).rpartition("_")[2].lower() for info in convolution))


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "types": list(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "openvino": openvino.__version__.partition("-")[0],
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
