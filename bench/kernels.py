"""The norm kernels on a GPU, and networks made of torch's convolutions and them.

    python bench/kernels.py [--quick] [--no-networks] [--rounds 60] [--autotune]

Each row's contestants take turns in one run: our modes, torch eager in both layouts, torch.compile, and a copy of the
same bytes, which nothing that reads and writes them once can beat. A call's time is that of a CUDA graph of many calls
divided by their number; `rotated` rows walk through more memory than the L2 cache holds.
Writes bench/results/kernels_<gpu>.json.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gantrt import _core
from gantrt_training.family import load_family, make_config
from gantrt_training.nets.fused import fused_norms
from gantrt_training.nets.norm import batch_norm_as, norm_act
from gantrt_training.nets.streamlined import streamlined
from gpu_machine import about, captured, interleaved
from torch import Tensor

RESULTS = Path(__file__).resolve().parent / "results"
SHAPES = ((256, 64), (128, 128), (64, 256))  # channels and side, of CycleGAN at 256x256
MODES = ("cluster", "cooperative", "two_kernels")
CALLS = 100  # in a graph


@dataclass(frozen=True)
class Op:
    """One use of NormAct in our networks."""

    name: str
    act: str = "none"
    mixed: bool = False  # LIN, AdaLIN
    residual: bool = False
    pad: int = 0


OPS = (
    Op("IN + ReLU + pad", "relu", pad=1),
    Op("IN + residual + pad", residual=True, pad=1),
    Op("AdaLIN + ReLU + pad", "relu", mixed=True, pad=1),
    Op("AdaLIN + residual + pad", mixed=True, residual=True, pad=1),
    Op("LIN + ReLU", "relu", mixed=True),
    Op("IN + LeakyReLU", "leaky_relu"),
)
COMPILED_OPS = (OPS[0], OPS[2])  # by torch.compile: seconds each
COMPILED_NETWORKS = ("CycleGAN ResNet-9", "U-GAT-IT light")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "pix2pix U-Net-256, instance": ("pix2pix", {"norm": "instance"}),
    "CycleGAN ResNet-9": ("cyclegan", {}),
    "DiscoGAN 64": ("discogan", {}),
    "U-GAT-IT light": ("ugatit", {"light": True}),
}


def inputs(op: Op, channels: int, side: int, dtype: torch.dtype, memory: torch.memory_format) -> dict[str, Any]:
    def picture(border: int) -> Tensor:
        return (torch.randn(1, channels, side + border, side + border, device="cuda", dtype=dtype) + 0.5).contiguous(
            memory_format=memory
        )

    def parameter() -> Tensor:
        return torch.rand(channels, device="cuda")

    given: dict[str, Any] = {"x": picture(0), "scale": parameter(), "shift": parameter()}
    given["rho"] = parameter() if op.mixed else None
    given["residual"] = picture(2) if op.residual else None
    return given


def launcher(op: Op, given: dict[str, Any], layout: str, mode: str) -> Callable[[], object]:
    """Our kernel on what is given, with nothing else in the call."""
    x = given["x"]
    n, c, h, w = x.shape
    memory = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    y = torch.empty((n, c, h + 2 * op.pad, w + 2 * op.pad), device="cuda", dtype=x.dtype, memory_format=memory)
    workspace = torch.empty(_core.norm_act_workspace_bound(n, c), dtype=torch.uint8, device="cuda")
    parts = ("scale", "shift", "rho", "residual")
    addresses = {name: 0 if given[name] is None else given[name].data_ptr() for name in parts}
    options = {
        "shape": (n, c, h, w),
        "per_sample": False,
        "dtype": str(x.dtype).removeprefix("torch."),
        "layout": layout,
        "eps": 1e-5,
        "slope": {"none": 1.0, "relu": 0.0, "leaky_relu": 0.2}[op.act],
        "unbiased": op.mixed,
        "pad": op.pad,
        "rpad": int(op.residual),
        "workspace": workspace.data_ptr(),
        "workspace_bytes": workspace.numel(),
        "mode": mode,
    }

    def work() -> object:
        stream = torch.cuda.current_stream().cuda_stream
        _core.norm_act_launch(x.data_ptr(), **addresses, y=y.data_ptr(), stream=stream, **options)
        return y

    work.keeps = (given, workspace, y)  # type: ignore[attr-defined]
    return work


def torch_op(op: Op, given: dict[str, Any], compiled: bool) -> Callable[[], object]:
    function = torch.compile(norm_act, fullgraph=True) if compiled else norm_act

    def work() -> object:
        return function(**given, unbiased=op.mixed, act=op.act, pad=op.pad, rpad=int(op.residual))

    return work


def copier(op: Op, given: dict[str, Any]) -> Callable[[], object]:
    """As many bytes read and written as the op must."""
    x = given["x"]
    reads = x.numel() + (given["residual"].numel() if op.residual else 0)
    writes = x.shape[1] * (x.shape[2] + 2 * op.pad) ** 2
    source = torch.randn((reads + writes) // 2, device="cuda", dtype=x.dtype)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def op_row(op: Op, channels: int, side: int, dtype: torch.dtype, rounds: int, compiled: bool) -> dict[str, Any]:
    last, first = torch.channels_last, torch.contiguous_format
    given, planes = inputs(op, channels, side, dtype, last), inputs(op, channels, side, dtype, first)
    works: dict[str, Callable[[], object]] = {}
    for mode in MODES:
        works[f"ours {mode}"] = launcher(op, given, "nhwc", mode)
        works[f"ours {mode}, NCHW"] = launcher(op, planes, "nchw", mode)
    works["torch eager, NCHW"] = torch_op(op, planes, compiled=False)
    works["torch eager, channels last"] = torch_op(op, given, compiled=False)
    if compiled:
        works["torch.compile, NCHW"] = torch_op(op, planes, compiled=True)
        works["torch.compile, channels last"] = torch_op(op, given, compiled=True)
    works["copy of the same bytes"] = copier(op, given)
    return run_row({"op": op.name, "shape": [channels, side, side], "dtype": str(dtype)[6:]}, works, rounds)


def rotated_row(op: Op, channels: int, side: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """The same, where each call finds its input in memory and not in the L2 cache."""
    each = 2 * channels * side * side * torch.finfo(dtype).bits // 8
    sets = min(CALLS, 2 + 4 * torch.cuda.get_device_properties(0).L2_cache_size // each)
    works = {}
    for mode in MODES:
        calls = [
            launcher(op, inputs(op, channels, side, dtype, torch.channels_last), "nhwc", mode) for _ in range(sets)
        ]
        works[f"ours {mode}"] = in_turn(calls)
    works["copy of the same bytes"] = in_turn(
        [copier(op, inputs(op, channels, side, dtype, torch.channels_last)) for _ in range(sets)]
    )
    row = {"op": f"{op.name}, rotated", "shape": [channels, side, side], "dtype": str(dtype)[6:]}
    return run_row(row, works, rounds)


def in_turn(calls: list[Callable[[], object]]) -> Callable[[], object]:
    turn = [0]

    def work() -> object:
        turn[0] = (turn[0] + 1) % len(calls)
        return calls[turn[0]]()

    return work


def run_row(row: dict[str, Any], works: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    graphs, refused = {}, {}
    for name, work in works.items():
        try:
            graphs[name] = captured(work, CALLS)
        except ValueError as error:  # a mode that does not take the shape here
            refused[name] = str(error)
    times = interleaved({name: graph.replay for name, graph in graphs.items()}, rounds, CALLS)
    ours = min((each["median_us"], name) for name, each in times.items() if name.startswith("ours"))
    print(
        f"{row['op']:32} {row['shape']!s:16} {row['dtype']:9}",
        *(f"{n}: {t['median_us']}" for n, t in times.items()),
        sep=" | ",
    )
    return row | {"us": times, "refused": refused, "best": {"name": ours[1], "median_us": ours[0]}}


def network_row(name: str, rounds: int, compiled: str) -> dict[str, Any]:
    """One generator, fp16, batch 1: microseconds of a picture, device to device.

    What runs with our norms is the generator's copy with less work (nets/streamlined.py), unless as trained.
    """
    family_name, overrides = NETWORKS[name]
    family = load_family(family_name)
    config = make_config(family, "paper", overrides)
    generator = family.build(config)[family.generators["a2b"]].eval()
    less = streamlined(generator, "instance", family.image).placed("cuda", torch.float16)
    generator = generator.half().cuda()
    x = torch.rand(1, 3, config.size, config.size, device="cuda", dtype=torch.float16) * 2 - 1

    def picture(model: Callable[[Tensor], Any], given: Tensor) -> Callable[[], object]:
        return lambda: family.image(model, given)  # type: ignore[arg-type]

    last = generator_copy(generator).to(memory_format=torch.channels_last)
    x_last = x.contiguous(memory_format=torch.channels_last)
    rows: dict[str, Callable[[], object]] = {}
    with torch.inference_mode(), batch_norm_as("instance"):
        rows["torch eager, NCHW"] = picture(generator, x)
        rows["torch eager, channels last"] = picture(last, x_last)
        rows["torch eager, NCHW, graph"] = captured(picture(generator, x), 1).replay
        rows["torch eager, channels last, graph"] = captured(picture(last, x_last), 1).replay
        with fused_norms():
            rows["torch convolutions + our norms, as trained, graph"] = captured(picture(last, x_last), 1).replay
            rows["torch convolutions + our norms, graph"] = captured(lambda: less(x_last), 1).replay
        if compiled:
            faster: Any = torch.compile(last, mode=compiled, fullgraph=True)
            rows[f"torch.compile {compiled}, graph"] = captured(picture(faster, x_last), 1).replay
        times = interleaved(rows, rounds, 1)
    print(f"{name:32}", *(f"{each}: {t['median_us']}" for each, t in times.items()), sep=" | ")
    return {"network": name, "size": config.size, "dtype": "float16", "us": times}


def generator_copy(generator: torch.nn.Module) -> torch.nn.Module:
    import copy

    return copy.deepcopy(generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fp16 alone, fewer rounds, no torch.compile")
    parser.add_argument("--no-networks", action="store_true")
    parser.add_argument("--rounds", type=int, help="of each contestant; default 60, 20 with --quick")
    parser.add_argument("--autotune", action="store_true", help="torch.compile's slowest mode: minutes a network")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    rounds = args.rounds or (20 if args.quick else 60)
    mode = "max-autotune-no-cudagraphs" if args.autotune else "default"
    dtypes = (torch.float16,) if args.quick else (torch.float16, torch.bfloat16, torch.float32)
    report = about() | {"what": f"microseconds of one call, in a CUDA graph of {CALLS}; networks: of one picture"}
    with torch.inference_mode():
        report["ops"] = [
            op_row(
                op,
                channels,
                side,
                dtype,
                rounds,
                compiled=not args.quick and dtype == torch.float16 and op in COMPILED_OPS,
            )
            for dtype in dtypes
            for op in (OPS if dtype == torch.float16 else OPS[:1])
            for channels, side in SHAPES
        ]
        report["ops"] += [rotated_row(OPS[0], channels, side, torch.float16, rounds) for channels, side in SHAPES]
    if not args.no_networks:
        report["networks"] = [
            network_row(name, rounds, mode if name in COMPILED_NETWORKS and not args.quick else "") for name in NETWORKS
        ]
    gpu = re.sub(r"\W+", "_", torch.cuda.get_device_name()).lower()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"kernels_{gpu}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
