"""How many kernels a TensorRT-RTX plan launches, with our plugin and without, for each family, GPU and precision.

    python bench/plans.py [--network N ...] [--precision P ...] [--gpu C ...] [-o FILE.json]

The kernels are counted in the plans (gantrt.plans.census), which are built here: no GPU is needed, and none was asked
what they cost. Weights are random: a plan's kernels go by shapes. Writes bench/results/plans_rtx.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from gantrt import __version__
from gantrt.engine_file import write_engine
from gantrt.manifest import InputSpec, Manifest
from gantrt.plans.build import Request, build_plan
from gantrt.plans.census import census
from gantrt.plans.targets import TENSORRT_RTX
from gantrt_training.family import load_family
from gantrt_training.half import retype
from gantrt_training.tracing import Source, graph_of
from onnx import ModelProto

RESULTS = Path(__file__).parent / "results"
GPUS = {"7.5": 75, "8.6": 86, "8.9": 89, "12.0": 120}
PLUGIN = ({"name": "gantrt::NormAct", "version": "1"},)
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name -> family, norm mode, config
    "resnet9": ("cyclegan", "instance", {}),
    "resnet6": ("cyclegan", "instance", {"n_blocks": 6}),
    "ugatit_light": ("ugatit", "instance", {"light": True}),
    "unet_batch_norm": ("pix2pix", "running", {}),
    "unet_instance_norm": ("pix2pix", "instance", {}),
    "discogan": ("discogan", "running", {}),
    "discogan_bottleneck": ("discogan", "running", {"bottleneck": 100}),
    "ugatit_full": ("ugatit", "instance", {}),
}
LARGE = {"ugatit_full"}  # 280 M parameters: 8 GB of memory, and only when asked for


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", nargs="+", default=[n for n in NETWORKS if n not in LARGE], choices=list(NETWORKS))
    parser.add_argument("--precision", nargs="+", default=["fp16", "fp32"], choices=["fp16", "fp32"])
    parser.add_argument("--gpu", nargs="+", default=list(GPUS), choices=list(GPUS), help="compute capabilities")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "plans_rtx.json")
    args = parser.parse_args()
    trt = TENSORRT_RTX.load()
    rows = []
    for name in args.network:
        with tempfile.TemporaryDirectory() as folder:
            for row in counted(name, args.precision, args.gpu, Path(folder)):
                print(json.dumps(row), flush=True)
                rows.append(row)
    report = {
        "what": "kernel launches in TensorRT-RTX plans, batch 1, counted in the plan",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": {"platform": platform.platform(), "gpu": "none: built for the GPUs named"},
        "versions": {"gantrt": __version__, "tensorrt-rtx": trt.__version__},
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(args.output)


def counted(name: str, precisions: list[str], gpus: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each precision, GPU, and with plugins and without."""
    files = engines(name, folder)
    for precision in precisions:
        for gpu in gpus:
            for plugins in (False, True):
                plan = folder / "network.plan"
                begin = time.perf_counter()
                request = Request(TENSORRT_RTX.name, (GPUS[gpu],), plugins, progress=False)
                manifest = build_plan(files[precision], plan, request, overwrite=True)
                seconds = time.perf_counter() - begin
                launches = census(plan)
                yield {
                    "network": name,
                    "size": f"{manifest.input.height}x{manifest.input.width}",
                    "precision": precision,
                    "compute_capability": gpu,
                    "plugins": plugins,
                    "launches": len(launches),
                    "kinds": dict(Counter(launch.kind for launch in launches)),
                    "that_transpose": sum(launch.transposes for launch in launches),
                    "plan_mb": round(plan.stat().st_size / 1e6, 1),
                    "build_s": round(seconds, 1),
                }


def engines(name: str, folder: Path) -> dict[str, Path]:
    """Precision -> engine file, of a family's a2b generator as `gantrt export` makes it, untrained."""
    family_name, norm_mode, config = NETWORKS[name]
    family = load_family(family_name)
    settings = family.Config(**config)
    nets = family.build(settings)
    source = Source(family, settings, nets[family.generators["a2b"]])
    spec = InputSpec(3, settings.size, settings.size)
    manifest = Manifest(family=family_name, network=source.network, input=spec, norm_mode=norm_mode, plugins=PLUGIN)
    model = graph_of(source, manifest)
    half = ModelProto()
    half.CopyFrom(model)
    retype(half, "fp16")
    files = {"fp16": folder / "fp16.onnx", "fp32": folder / "fp32.onnx"}
    write_engine(half, files["fp16"], replace(manifest, precision="fp16"))
    write_engine(model, files["fp32"], manifest)
    return files


if __name__ == "__main__":
    main()
