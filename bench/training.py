"""How fast a training step is: ours beside the order in which the reference implementations compute it.

    python bench/training.py [--family F ...] [--size 64] [--batch N] [--steps 10] [--device auto]

The reference order makes the pictures anew for every phase, freezes nothing and steps Adam tensor by tensor. Both
sides use our networks, start from the same weights, and take turns within one run, so what else the machine does hits
both alike. Writes bench/results/training_<device>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from gantrt_training.family import list_families
from gantrt_training.recipe import make_recipe
from gantrt_training.trainer import Training, check_size, open_fabric, seed_everything
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
SMALL: dict[str, dict[str, Any]] = {  # widths that let a CPU make many steps in a minute
    "pix2pix": {"ngf": 16, "ndf": 16},
    "cyclegan": {"ngf": 16, "ndf": 16, "n_blocks": 3},
    "discogan": {"ngf": 16, "ndf": 16, "batch": 8, "d_every": 1},
    "ugatit": {"ngf": 16, "ndf": 16, "light": True},
}


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
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, help="default: the family's")
    parser.add_argument("--steps", type=int, default=10, help="of each side, after 3 to warm up")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--full", action="store_true", help="the paper's widths and sizes instead of small ones")
    args = parser.parse_args()
    rows = [measure(family, args) for family in args.family]
    report = {
        "what": "training steps, images/s of one side: ours, and the reference order",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(rows[0]["device"]),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"training_{rows[0]['device'].partition(':')[0]}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    for row in rows:
        print(
            f"{row['family']:<10} {row['ours']:8.2f} images/s, reference order {row['naive']:8.2f}: {row['ratio']:.2f}x"
        )
    print(path)


def measure(family: str, args: argparse.Namespace) -> dict[str, Any]:
    """Images per second of both sides, from the median of their steps."""
    fabric = open_fabric(args.device, "fp32")
    overrides = {} if args.full else SMALL.get(family, {}) | {"size": args.size}
    config = make_recipe(family, "", "paper", overrides | ({"batch": args.batch} if args.batch else {})).config
    ours, naive = (_training(family, config, fabric) for _ in range(2))
    check_size(ours.family, config)
    for optimizer in naive.optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = False
    a = torch.rand(config.batch, config.channels_a, config.size, config.size, device=fabric.device) * 2 - 1
    b = torch.rand(config.batch, config.channels_b, config.size, config.size, device=fabric.device) * 2 - 1
    seconds: dict[str, list[float]] = {"ours": [], "naive": []}
    for n in range(3 + args.steps):
        for name, one in (("ours", lambda: ours.step(a, b)), ("naive", lambda: naive_step(naive, {"a": a, "b": b}))):
            took = _timed(one, fabric.device)
            if n >= 3:
                seconds[name].append(took)
        ours.losses.take()
    rate = {name: config.batch / statistics.median(times) for name, times in seconds.items()}
    return {
        "family": family,
        "size": config.size,
        "batch": config.batch,
        "overrides": overrides,
        "device": str(fabric.device),
        **{name: round(value, 3) for name, value in rate.items()},
        "ratio": round(rate["ours"] / rate["naive"], 3),
        "steps": args.steps,
    }


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


def _training(family: str, config: Any, fabric: Any) -> Training:
    seed_everything(0)
    return Training(make_recipe(family, "").load_family(), config, 1000, fabric)


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
