"""How fast a training step is: ours, and ours with what can be turned on, beside the reference order.

    python bench/training.py [--family F ...] [--variant V ...] [--size 64] [--batch N] [--steps 10] [--device auto]
    python bench/training.py --full --device cuda --family cyclegan ugatit     # the papers' widths, batch 1, 256x256

The reference order is that of the reference implementations: pictures are made anew for every phase, nothing is frozen,
passes are single and in fp32, Adam steps tensor by tensor. All sides use our networks, start from the same weights and
take turns within one run, so what else the machine does hits all alike; a ratio is the median over these turns.
A variant is words joined by +: plain, together, bf16, fp16, channels_last, compile, graphs, ema.
Writes bench/results/training_<device>[_full].json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from gantrt_training.compilation import Compile
from gantrt_training.devices import open_fabric
from gantrt_training.family import list_families
from gantrt_training.randomness import seed_everything
from gantrt_training.recipe import make_recipe
from gantrt_training.step import Training
from gantrt_training.trainer import check_size
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
SMALL: dict[str, dict[str, Any]] = {  # widths that let a CPU make many steps in a minute
    "pix2pix": {"ngf": 16, "ndf": 16},
    "cyclegan": {"ngf": 16, "ndf": 16, "n_blocks": 3},
    "discogan": {"ngf": 16, "ndf": 16, "batch": 8, "d_every": 1},
    "ugatit": {"ngf": 16, "ndf": 16, "light": True},
}
CPU_VARIANTS = ["plain", "together", "bf16", "together+bf16"]
GPU_VARIANTS = [
    "plain",
    "together",
    "together+bf16",
    "together+bf16+channels_last",
    "together+bf16+compile",
    "together+bf16+channels_last+compile",
    "together+bf16+graphs",
]


def naive_step(training: Training, batch: Mapping[str, Tensor]) -> None:
    """The slow twin of `Training.step`: for each phase the pictures are made anew, and nothing is frozen."""
    factor = training.family.lr_factor(training.config, training.done, training.steps_per_epoch)
    for phase in training.phases:
        if phase.due(training.done):
            optimizer = training.optimizers[phase.name]
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            made = training.family.forward(training.nets, batch, training.config)
            terms = phase.terms(training.nets, batch, made)
            training.nets.zero_grad()
            sum(terms.values(), start=torch.zeros((), device=training.fabric.device)).backward()
            optimizer.step()
            phase.after(training.nets)
    training.done += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", nargs="+", default=list_families(), choices=list_families())
    parser.add_argument("--variant", nargs="+", help="default: what a CPU or a GPU may gain by")
    parser.add_argument("--size", type=int, help="pixels; default: 64, or the paper's with --full")
    parser.add_argument("--batch", type=int, help="default: the family's")
    parser.add_argument("--steps", type=int, default=10, help="of each side, after 3 to warm up")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--full", action="store_true", help="the paper's widths and sizes instead of small ones")
    parser.add_argument("--solo", help=argparse.SUPPRESS)  # the memory of one side, in a process of its own
    args = parser.parse_args()
    if args.solo:
        print(json.dumps(solo(args.family[0], args.solo, args)))
        return
    rows = [row for family in args.family for row in measure(family, args)]
    device = rows[0]["device"].partition(":")[0]
    report = {
        "what": "training steps, images/s of one side: variants of ours, and the reference order",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(rows[0]["device"]),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"training_{device}{'_full' if args.full else ''}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    for row in rows:
        busy = "" if row["gpu_busy"] is None else f", GPU busy {row['gpu_busy']:4.0%}"
        print(
            f"{row['family']:<10} {row['variant']:<32} {row['images_per_s']:9.2f} images/s  {row['ratio']:5.2f}x"
            f"  {row['memory_mib']:7.0f} MiB{busy}"
        )
    print(path)


def measure(family: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each side, from steps that take turns."""
    on_gpu = open_fabric(args.device, "fp32").device.type == "cuda"
    names = ["reference", *(args.variant or (GPU_VARIANTS if on_gpu else CPU_VARIANTS))]
    if family not in ("cyclegan", "ugatit"):  # the others have nothing to pass together
        names = list(
            dict.fromkeys("+".join(w for w in name.split("+") if w != "together") or "plain" for name in names)
        )
    alone = {name: _solo_elsewhere(family, name, args) for name in names}
    sides = {name: _side(family, name, args) for name in names}
    config, device = sides["reference"][0].config, sides["reference"][0].fabric.device
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for n in range(3 + args.steps):
        for name, (training, step) in sides.items():
            took = _timed(step, device)
            if n >= 3:
                seconds[name].append(took)
            training.losses.take()
    return [
        {
            "family": family,
            "variant": name,
            "size": config.size,
            "batch": config.batch,
            "overrides": _overrides(family, args),
            "device": str(device),
            "images_per_s": round(config.batch / statistics.median(seconds[name]), 3),
            "ratio": round(_ratio(seconds["reference"], seconds[name]), 3),
            "steps": args.steps,
            **alone[name],
        }
        for name in names
    ]


def solo(family: str, variant: str, args: argparse.Namespace) -> dict[str, Any]:
    """Memory at the peak of a step in MiB, over what an idle process has; the share of time in which a GPU computes."""
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    training, step = _side(family, variant, args)
    for _ in range(3):
        step()
    if training.fabric.device.type != "cuda":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"memory_mib": round(peak - idle, 1), "gpu_busy": None}
    torch.cuda.reset_peak_memory_stats()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        begin = time.perf_counter()
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        wall = time.perf_counter() - begin
    busy = sum(event.device_time_total for event in profile.events()) / 1e6
    return {
        "memory_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1),
        "gpu_busy": round(min(1.0, busy / wall), 3),
    }


def _solo_elsewhere(family: str, variant: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--solo", variant, "--family", family, "--device", args.device]
    command += [*(["--full"] if args.full else [])]
    for key in ("size", "batch"):
        command += [f"--{key}", str(getattr(args, key))] if getattr(args, key) else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _side(family: str, variant: str, args: argparse.Namespace) -> tuple[Training, Callable[[], None]]:
    """A fresh training, and its step on random pictures."""
    words = set(variant.split("+")) - {"plain", "reference"}
    unknown = words - {"together", "bf16", "fp16", "channels_last", "compile", "graphs", "ema"}
    if unknown:
        raise SystemExit(f"bench: there is no variant {unknown.pop()!r}")
    overrides = _overrides(family, args) | ({"together": True} if "together" in words else {})
    recipe = make_recipe(family, "", "paper", overrides)
    config = recipe.config
    precision = next(iter(words & {"bf16", "fp16"}), "fp32")
    mode: Compile = "reduce-overhead" if "graphs" in words else "default" if "compile" in words else "none"
    check_size(recipe.load_family(), config)
    seed_everything(0)
    training = Training(
        recipe.load_family(),
        config,
        1000,
        open_fabric(args.device, precision),
        ema=0.999 if "ema" in words else 0.0,
        channels_last="channels_last" in words,
        compile=mode,
    )
    device = training.fabric.device
    shapes = [(config.batch, channels, config.size, config.size) for channels in (config.channels_a, config.channels_b)]
    a, b = (torch.rand(shape, device=device) * 2 - 1 for shape in shapes)
    if variant != "reference":
        return training, lambda: training.step(a, b)
    for optimizer in training.optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = group["foreach"] = False
    return training, lambda: naive_step(training, {"a": a, "b": b})


def _overrides(family: str, args: argparse.Namespace) -> dict[str, Any]:
    """What makes the family small, or leaves it at its paper's size; U-GAT-IT is light in both."""
    chosen = {"light": True} if args.full and family == "ugatit" else {} if args.full else dict(SMALL.get(family, {}))
    if args.size or not args.full:
        chosen["size"] = args.size or 64
    return chosen | ({"batch": args.batch} if args.batch else {})


def _ratio(reference: list[float], ours: list[float]) -> float:
    return statistics.median(slow / fast for slow, fast in zip(reference, ours, strict=True))


def machine(device: str) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _timed(step: Callable[[], None], device: torch.device) -> float:
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main()
