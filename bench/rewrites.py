"""What the exact rewrites gain, for each family and CPU engine: the graph with them, without, and without each one.

    python bench/rewrites.py [--network N ...] [--seconds 3] [--rounds 3] [--threads 1] [-o FILE.json]

The variants take turns in one process. With one thread the clock is the process's own CPU time, which other work on the
machine hardly touches; with more it is the wall's. Each round compiles anew, as where memory comes to lie is worth some
per cent. The ratio is the median round's: as written over the variant, above 1 is a gain; of `without X`, X is worth
what is missing from `all`. Writes bench/results/rewrites_cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from gantrt.engine_file import attach_bodies, inlined
from gantrt.engines.openvino import core
from gantrt_training.export import Request, manifest_of
from gantrt_training.family import load_family
from gantrt_training.rewrites import list_rewrites, rewrite
from gantrt_training.tracing import Source, graph_of
from onnx import ModelProto

RESULTS = Path(__file__).parent / "results"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "pix2pix U-Net-256": ("pix2pix", {}),
    "CycleGAN ResNet-9": ("cyclegan", {}),
    "DiscoGAN 64": ("discogan", {"bottleneck": 100}),
    "U-GAT-IT light": ("ugatit", {"light": True}),
}
Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--engine", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each variant, in all rounds together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "rewrites_cpu.json")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    for network in args.network:
        variants, x = variants_of(*NETWORKS[network])
        for engine in args.engine:
            for row in compared(variants, x, ENGINES[engine], args):
                rows.append({"network": network, "engine": engine} | row)
                print(json.dumps(rows[-1]), flush=True)
    report = {
        "what": "ms for one picture and as-written's over it; CPU time with one thread, wall time with more",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load_average": load},
        "versions": {"openvino": openvino.__version__, "onnxruntime": onnxruntime.__version__},
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(args.output)


def variants_of(family_name: str, overrides: dict[str, Any]) -> tuple[dict[str, bytes], np.ndarray]:
    """Name -> graph: as written, with all rewrites, and without each one that does something here."""
    torch.manual_seed(0)
    family = load_family(family_name)
    config = family.Config(**overrides)
    generator = family.build(config)[family.generators["a2b"]].eval()
    lively(generator)
    source = Source(family, config, generator, norm_mode=family.norm_mode(config))
    manifest = manifest_of(source, Request())
    written = graph_of(source, manifest, rewrites=False)
    probe = ModelProto.FromString(written.SerializeToString())
    fired = rewrite(probe)
    chosen = {"as written": [], "all": list(fired)}
    if len(fired) > 1:
        chosen |= {f"without {name}": [each for each in list_rewrites() if each != name] for name in fired}
    graphs = {}
    for variant, names in chosen.items():
        model = ModelProto.FromString(written.SerializeToString())
        rewrite(model, names)
        attach_bodies(model)
        graphs[variant] = inlined(model)
    size = (1, manifest.input.channels, manifest.input.height, manifest.input.width)
    return graphs, np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)


@torch.no_grad()
def lively(network: torch.nn.Module) -> None:
    """Weights as after a training: biases that are not zero, and nothing that fades away."""
    for name, value in network.named_parameters():
        if value.dim() > 1:
            torch.nn.init.kaiming_normal_(value, a=1.0)
        elif "rho" not in name:
            value.add_(torch.randn_like(value) * 0.1)


def with_openvino(precision: str) -> Callable[[bytes, np.ndarray, int], Run]:
    def prepare(graph: bytes, x: np.ndarray, threads: int) -> Run:
        properties = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
        request = core().compile_model(core().read_model(graph), "CPU", properties).create_infer_request()
        return lambda: request.infer([x])

    return prepare


def with_onnxruntime(graph: bytes, x: np.ndarray, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: x})


ENGINES = {
    "OpenVINO f32": with_openvino("f32"),
    "OpenVINO bf16": with_openvino("bf16"),
    "ONNX Runtime f32": with_onnxruntime,
}


def compared(
    graphs: dict[str, bytes], x: np.ndarray, prepare: Callable[[bytes, np.ndarray, int], Run], args: argparse.Namespace
) -> list[dict[str, Any]]:
    clock = time.process_time if args.threads == 1 else time.perf_counter
    rounds: dict[str, list[list[float]]] = {variant: [] for variant in graphs}
    for _ in range(args.rounds):
        runs = {variant: prepare(graph, x, args.threads) for variant, graph in graphs.items()}
        samples: dict[str, list[float]] = {variant: [] for variant in graphs}
        for run in runs.values():
            run()
        end = time.perf_counter() + args.seconds * len(graphs) / args.rounds
        while time.perf_counter() < end or len(samples["as written"]) < 3:
            for variant, run in runs.items():
                begin = clock()
                run()
                samples[variant].append((clock() - begin) * 1e3)
        for variant in graphs:
            rounds[variant].append(samples[variant])
    written = [statistics.median(samples) for samples in rounds["as written"]]
    rows = []
    for variant, each in rounds.items():
        medians = [statistics.median(samples) for samples in each]
        ratios = [base / median for base, median in zip(written, medians, strict=True)]
        rows.append(
            {
                "variant": variant,
                "ms_median": round(statistics.median(medians), 3),
                "ms_min": round(min(min(samples) for samples in each), 3),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                "n": sum(map(len, each)),
            }
        )
    return rows


if __name__ == "__main__":
    main()
