"""How fast a training step is: ours, and ours with what can be turned on, beside the reference order.

    python bench/training.py [--family F ...] [--variant V ...] [--size 64] [--batch N] [--steps N] [--device auto]
    python bench/training.py --full --device cuda [--no-compile]     # the papers' widths and sizes

In the reference order pictures are made anew for every phase and nothing is frozen, passes are single and in fp32 (on a
GPU with TF32, as all sides are), Adam steps as torch's default does. It is that of U-GAT-IT's code, and slower than
that of pix2pix's and CycleGAN's, which make pictures once and freeze their judges; originals.py times the code itself.
All sides use our networks, start from the same weights and take turns within one run, so what else the machine does
hits all alike; a ratio is the median over these turns. A variant is words joined by +: plain, together, bf16, fp16,
channels_last, compile, reduce_overhead (compiled, its passes CUDA graphs), graph (the whole step one CUDA graph), ema.
Writes bench/results/training_<device>[_full].json after each family; a variant that fails is a row with its error.
"""

from __future__ import annotations

import argparse
import gc
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
    "together+bf16+channels_last",
    "together+graph",
    "together+bf16+graph",
    "together+bf16+channels_last+graph",
    "together+bf16+channels_last+compile+graph",
]
COMPILED = {"compile", "reduce_overhead"}
WORDS = {"together", "bf16", "fp16", "channels_last", "graph", "ema"} | COMPILED
WARM_UP = {"cpu": 3, "cuda": 12}  # steps of each side; on a GPU until DiscoGAN's phases have been captured too
TURN = {"cpu": 1, "cuda": 10}  # steps of each side in a turn; a GPU is waited for at its end
LEAST_TURNS = 3

Row = dict[str, Any]


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
    parser.add_argument("--no-compile", action="store_true", help="without the default variants that are compiled")
    parser.add_argument("--size", type=int, help="pixels; default: 64, or the paper's with --full")
    parser.add_argument("--batch", type=int, help="default: the family's")
    parser.add_argument("--steps", type=int, help="of each side, after those that warm up; default: 10, on a GPU 100")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each family on a GPU; then no turn begins")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--full", action="store_true", help="the paper's widths and sizes instead of small ones")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--solo", help=argparse.SUPPRESS)  # the memory of one side, in a process of its own
    parser.add_argument("--no-busy", action="store_true", help="without the share of time that a GPU computes")
    args = parser.parse_args()
    unknown = {word for name in args.variant or [] for word in name.split("+")} - WORDS - {"plain"}
    if unknown:
        parser.error(f"there is no variant {unknown.pop()!r}; words are plain, {', '.join(sorted(WORDS))}")
    if args.solo:
        print(json.dumps(solo(args.family[0], args.solo, args)))
        return
    device = open_fabric(args.device, "fp32").device
    report = {
        "what": "training steps, images/s of one side: variants of ours, and the reference order",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(str(device)),
        "rows": [],
    }
    path = args.output / f"training_{device.type}{'_full' if args.full else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for family in args.family:
        begin = time.perf_counter()
        rows = measure(family, device, args)
        report["rows"] += rows
        path.write_text(json.dumps(report, indent=2) + "\n")
        for row in rows:
            print(_line(row))
        print(f"{family:<10} took {time.perf_counter() - begin:.0f} s", flush=True)
    print(path)


def _line(row: Row) -> str:
    start = f"{row['family']:<10} {row['variant']:<44}"
    if "error" in row:
        return f"{start} {row['error']}"
    busy = "" if row["gpu_busy"] is None else f", GPU busy {row['gpu_busy']:4.0%}"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:5.2f}x"
    return f"{start} {row['images_per_s']:9.2f} images/s  {ratio}  {row['memory_mib']:7.0f} MiB{busy}"


def measure(family: str, device: torch.device, args: argparse.Namespace) -> list[Row]:
    """A row for each side, from steps that take turns."""
    sides: dict[str, Side] = {}
    facts: dict[str, Row] = {name: {"family": family, "variant": name} for name in variants(family, device, args)}
    ways = [lambda name: _warm(family, name, device, args, sides)]
    if device.type == "cpu":  # in small processes, so before this one grows
        ways.insert(0, lambda name: _solo_elsewhere(family, name, args))
    for way in ways:
        for name, known in facts.items():
            try:
                known |= {} if "error" in known else way(name)
            except Exception as error:  # one that cannot be built says nothing about the others
                known["error"] = reason_of(error)
    seconds = _take_turns(sides, device, args, facts)
    for name, (training, step) in sides.items():
        if "error" not in facts[name]:
            busy = None if device.type == "cpu" or args.no_busy else _busy(step, device)
            facts[name] |= _row(training, seconds[name], seconds.get("reference"), busy)
    sides.clear()
    free_cached(device)
    return list(facts.values())


def variants(family: str, device: torch.device, args: argparse.Namespace) -> list[str]:
    chosen = args.variant or (GPU_VARIANTS if device.type == "cuda" else CPU_VARIANTS)
    if args.no_compile:
        chosen = [name for name in chosen if not COMPILED & set(name.split("+"))]
    if family not in ("cyclegan", "ugatit"):  # the others have nothing to pass together
        chosen = ["+".join(word for word in name.split("+") if word != "together") or "plain" for name in chosen]
    return list(dict.fromkeys(["reference", *chosen]))


Side = tuple[Training, Callable[[], None]]


def _warm(family: str, name: str, device: torch.device, args: argparse.Namespace, sides: dict[str, Side]) -> Row:
    """Add a side that is ready; on a GPU also what it needs: MiB at the peak, and those that it keeps between steps."""
    free_cached(device)
    on_gpu = device.type == "cuda"
    before = (torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)) if on_gpu else (0, 0)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    training, step = _side(family, name, args)
    for _ in range(WARM_UP[device.type]):
        step()
    training.losses.take()
    if not on_gpu:
        sides[name] = training, step
        return {}
    peak = torch.cuda.max_memory_allocated(device) - before[0]
    free_cached(device)
    held = torch.cuda.memory_reserved(device) - before[1]
    sides[name] = training, step
    return {"memory_mib": round(max(peak, held) / 2**20, 1), "held_mib": round(held / 2**20, 1)}


def _take_turns(
    sides: dict[str, Side], device: torch.device, args: argparse.Namespace, facts: dict[str, Row]
) -> dict[str, list[float]]:
    """Seconds of a step, by side and turn."""
    turn = TURN[device.type]
    turns = max(1, (args.steps or (10 if turn == 1 else 100)) // turn)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    begin = time.perf_counter()
    for n in range(turns):
        if device.type == "cuda" and n >= LEAST_TURNS and time.perf_counter() - begin > args.seconds:
            break
        for name, (training, step) in sides.items():
            if "error" in facts[name]:
                continue
            try:
                seconds[name].append(timed(step, turn, device))
                training.losses.take()
            except Exception as error:
                facts[name]["error"] = reason_of(error)
    return seconds


def _row(training: Training, seconds: list[float], reference: list[float] | None, busy: float | None) -> Row:
    """busy  seconds of a step in which the GPU computes"""
    config, step = training.config, statistics.median(seconds)
    comparable = reference is not None and len(reference) == len(seconds)
    return {
        "size": config.size,
        "batch": config.batch,
        "device": str(training.fabric.device),
        "images_per_s": round(config.batch / step, 3),
        "ms_per_step": round(step * 1e3, 3),
        "ratio": round(median_ratio(reference or [], seconds), 3) if comparable else None,
        "turns": len(seconds),
        "steps": len(seconds) * TURN[training.fabric.device.type],
        "gpu_busy": round(min(1.0, busy / step), 3) if busy else None,
    }


def _busy(step: Callable[[], None], device: torch.device, steps: int = 3) -> float:
    """Seconds of a step in which the GPU computes: the sum over its kernels."""
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize(device)
    return sum(event.device_time_total for event in profile.events()) / 1e6 / steps


def free_cached(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reason_of(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]


def solo(family: str, variant: str, args: argparse.Namespace) -> Row:
    """Memory at the peak of a step on a CPU in MiB, over what an idle process has."""
    idle = peak_mib()
    _, step = _side(family, variant, args)
    for _ in range(3):
        step()
    return {"memory_mib": round(peak_mib() - idle, 1)}


def peak_mib() -> float:
    """Of this process. Linux counts a parent's peak as its children's, but for VmHWM."""
    line = next((line for line in _lines("/proc/self/status") if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) / 1024 if line else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _solo_elsewhere(family: str, variant: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--solo", variant, "--family", family, "--device", args.device]
    command += [*(["--full"] if args.full else [])]
    for key in ("size", "batch"):
        command += [f"--{key}", str(getattr(args, key))] if getattr(args, key) else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _side(family: str, variant: str, args: argparse.Namespace) -> Side:
    return make_side(family, variant, _overrides(family, args), args.device)


def make_side(family: str, variant: str, overrides: Mapping[str, Any], device: str) -> Side:
    """A fresh training of preset `paper` with these keys set, and its step on random pictures."""
    words = set(variant.split("+")) - {"plain", "reference"}
    recipe = make_recipe(family, "", "paper", {**overrides, **({"together": True} if "together" in words else {})})
    config = recipe.config
    precision = next(iter(words & {"bf16", "fp16"}), "fp32")
    mode: Compile = "reduce-overhead" if "reduce_overhead" in words else "default" if "compile" in words else "none"
    check_size(recipe.load_family(), config)
    seed_everything(0)
    training = Training(
        recipe.load_family(),
        config,
        1000,
        open_fabric(device, precision),
        ema=0.999 if "ema" in words else 0.0,
        channels_last="channels_last" in words,
        compile=mode,
        cuda_graph="graph" in words,
    )
    shapes = [(config.batch, channels, config.size, config.size) for channels in (config.channels_a, config.channels_b)]
    a, b = (torch.rand(shape, device=training.fabric.device) * 2 - 1 for shape in shapes)
    if variant != "reference":
        return training, lambda: training.step(a, b)
    for optimizer in training.optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = group["foreach"] = None
    return training, lambda: naive_step(training, {"a": a, "b": b})


def _overrides(family: str, args: argparse.Namespace) -> dict[str, Any]:
    """What makes the family small, or leaves it at its paper's size; U-GAT-IT is light in both."""
    chosen = {"light": True} if args.full and family == "ugatit" else {} if args.full else dict(SMALL.get(family, {}))
    if args.size or not args.full:
        chosen["size"] = args.size or 64
    return chosen | ({"batch": args.batch} if args.batch else {})


def median_ratio(reference: list[float], ours: list[float]) -> float:
    return statistics.median(slow / fast for slow, fast in zip(reference, ours, strict=True))


def machine(device: str) -> dict[str, Any]:
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    facts = {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if not device.startswith("cuda"):
        return facts
    from gpu_machine import about  # the script beside this one

    gpu = about()
    name, tf32 = torch.cuda.get_device_name(device), torch.backends.cudnn.allow_tf32
    return facts | {"gpu": name, "clocks": gpu["gpu"], "versions": gpu["versions"], "tf32": tf32}


def timed(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Seconds of each of so many steps."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begin) / steps


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main()
