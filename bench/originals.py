"""How fast a training step is in the code-bases that people use, run as they are from your clones, and in gantrt.

    python bench/originals.py --ugatit DIR --cyclegan DIR --discogan DIR [--size N] [--ngf 16] [--full] [--device auto]
                              [--family F ...] [--variant V ...] [--steps N] [--seconds N]

DIR is a clone of UGATIT-pytorch, of pytorch-CycleGAN-and-pix2pix (which gives both families), of DiscoGAN; what is not
given is left out. Timed is their step, unmodified: their networks, losses, optimisers and order, reached as
original_steps.py says, beside gantrt's of preset `paper` at equal widths, sizes and batches. Both sides get random
pictures that lie in memory already; reading, drawing, saving and the text of what is printed are not in it (a wait for
the GPU that printing a loss takes is). Sides take turns within one process, so what else the machine does hits all
alike, and so do settings of the whole process: TF32, which is on, and cudnn.benchmark, which one of the originals turns
on. A ratio is the median over the turns. That both do the same amount of work is checked: the parameters of every
network, the updates of generators and discriminators. Words of a variant are those of training.py; its `reference` is
our networks in the originals' order. Small pictures have 64 pixels, or 128 where the original takes no less; U-GAT-IT
is light, and DiscoGAN's width always 64.
Writes bench/results/originals_<device>[_full].json after each family.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from gantrt_training.devices import has_bf16, open_fabric
from gantrt_training.recipe import make_recipe
from original_steps import CODE_BASES, Before, Job, Parts, commit  # the scripts beside this one
from torch import nn

from training import (
    LEAST_TURNS,
    RESULTS,
    SMALL,
    TURN,
    WARM_UP,
    Row,
    Side,
    free_cached,
    machine,
    make_side,
    median_ratio,
    peak_mib,
    reason_of,
    timed,
)

FAMILIES = {"ugatit": "ugatit", "cyclegan": "cyclegan", "pix2pix": "cyclegan", "discogan": "discogan"}  # → code-base
SIZES = {"ugatit": 128, "cyclegan": 64, "pix2pix": 128, "discogan": 64}
CHANGES: dict[str, dict[str, Any]] = {  # to training.py's small widths: originals have 6 blocks or 9, and one order
    "cyclegan": {"n_blocks": 6},
    "discogan": {"ngf": 64, "ndf": 64, "d_every": 3},
}
VARIANTS = {
    "cpu": ["reference", "plain", "together", "bf16", "together+bf16"],
    "cuda": ["reference", "plain", "together", "together+bf16", "together+graph", "together+bf16+channels_last+graph"],
}
PERIOD = {"discogan": 3}  # steps after which all networks have learned; a turn is as many
MOST_STEPS = 900  # UGATIT.train() saves its weights in each 1000th
ORIGINAL = "original"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, code_base in CODE_BASES.items():
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"a clone of {code_base.url}")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, help="default: all whose clone is given")
    parser.add_argument("--variant", nargs="+", help="of ours; default: reference, plain and what may be turned on")
    parser.add_argument("--size", type=int, help="pixels; default: 64 or 128 as the original takes, or the paper's")
    parser.add_argument("--ngf", type=int, help="width of all networks; default: 16, or the paper's with --full")
    parser.add_argument("--batch", type=int, help="default: the family's; DiscoGAN 8, or the paper's with --full")
    parser.add_argument("--full", action="store_true", help="the paper's widths and sizes instead of small ones")
    parser.add_argument("--steps", type=int, help="of each side, after those that warm up; default: 10, on a GPU 100")
    parser.add_argument("--seconds", type=float, help="of each family; then no turn begins; default: on a GPU 30")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--no-memory", action="store_true", help="without the memory, which takes a process for each side"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--solo", help=argparse.SUPPRESS)  # the memory of one side, in a process of its own
    args = parser.parse_args()
    given = [family for family, of in FAMILIES.items() if getattr(args, of)]
    families = [family for family in args.family or given if family in given]
    if not families or (args.family and len(families) < len(args.family)):
        parser.error("give the clones of what is to be timed: " + ", ".join(f"--{name} DIR" for name in CODE_BASES))
    if args.steps and args.steps > MOST_STEPS:
        parser.error(f"--steps is at most {MOST_STEPS}, since UGATIT-pytorch saves its weights in its 1000th")
    for reason in filter(None, (refusal(family, args) for family in families)):
        parser.error(reason)
    if args.solo:
        print(json.dumps(solo(families[0], args.solo, args)))
        return
    device = open_fabric(args.device, "fp32").device
    used = dict.fromkeys(FAMILIES[family] for family in families)
    report: dict[str, Any] = {
        "what": "training steps, images/s of one side: the original code-bases as they are, and ours",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(str(device)),
        "originals": {name: {"url": CODE_BASES[name].url, "commit": commit(getattr(args, name))} for name in used},
        "rows": [],
    }
    path = args.output / f"originals_{device.type}{'_full' if args.full else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for family in families:
        rows = measure(family, device, args)
        report["rows"] += rows
        path.write_text(json.dumps(report, indent=2) + "\n")
        for row in rows:
            print(_line(row), flush=True)
    print(path)


def refusal(family: str, args: argparse.Namespace) -> str | None:
    """Why this cannot be timed, in a line."""
    config = overrides(family, args)
    size = config.get("size", 256)
    if family == "pix2pix" and size not in (128, 256):
        return f"pix2pix: the original has a U-Net for 128 and one for 256 pixels, none for {size}; give --size 128"
    if family == "ugatit" and (size < 128 or size % 4):
        return f"ugatit: the original takes multiples of 4 from 128 pixels on, got {size}; give --size 128"
    if family == "discogan" and size != 64:
        return f"discogan: the original takes 64 pixels only, got {size}; give --size 64, or leave DiscoGAN out"
    return CODE_BASES[FAMILIES[family]].refusal(getattr(args, FAMILIES[family]))


def overrides(family: str, args: argparse.Namespace) -> dict[str, Any]:
    """What both sides are told; what is not said here are the paper's numbers, on both sides. U-GAT-IT is light."""
    said: dict[str, Any] = {"light": True} if family == "ugatit" else {}
    if not args.full:
        said |= SMALL[family] | CHANGES.get(family, {}) | {"size": SIZES[family]}
    if args.ngf and family != "discogan":
        said |= {"ngf": args.ngf, "ndf": args.ngf}
    if family == "discogan":
        said |= {"size": 64}
    return said | {key: getattr(args, key) for key in ("size", "batch") if getattr(args, key)}


def measure(family: str, device: torch.device, args: argparse.Namespace) -> list[Row]:
    """A row for each side, the original first."""
    names = [ORIGINAL, *variants(family, device, args)]
    facts: dict[str, Row] = {name: {"family": family, "side": name} for name in names}
    sides: dict[str, Side] = {}
    for way in (_memory_elsewhere, _warm):  # small processes first, before this one grows
        for name in names:
            try:
                facts[name] |= {} if "error" in facts[name] else way(family, name, args, sides)
            except Exception as error:  # one that cannot be built says nothing about the others
                facts[name]["error"] = reason_of(error)
    job = _job(family, device, args)
    turns = Turns(job, sides, args)
    try:
        run_original(job, args, turns)
    except Enough:
        for name in (ORIGINAL, *sides):
            facts[name] |= turns.row(name)
    except Exception as error:
        facts[ORIGINAL]["error"] = reason_of(error)
        for name in sides:
            facts[name]["error"] = "was not timed: the original did not run to the end"
    sides.clear()
    free_cached(device)
    return list(facts.values())


def variants(family: str, device: torch.device, args: argparse.Namespace) -> list[str]:
    chosen: list[str] = args.variant or VARIANTS[device.type]
    if not args.variant and device.type == "cpu" and not has_bf16():
        chosen = [name for name in chosen if "bf16" not in name]
    if family not in ("cyclegan", "ugatit"):  # the others have nothing to pass together
        chosen = ["+".join(word for word in name.split("+") if word != "together") or "plain" for name in chosen]
    return list(dict.fromkeys(chosen))


def _job(family: str, device: torch.device, args: argparse.Namespace) -> Job:
    return Job(family, make_recipe(family, "", "paper", overrides(family, args)).config, device)


def run_original(job: Job, args: argparse.Namespace, before: Before) -> None:
    name = FAMILIES[job.family]
    CODE_BASES[name].run(getattr(args, name), job, before)


class Enough(BaseException):
    """Ends the original's steps, and no handler of its own is to take it for an error."""


class Turns:
    """Called ahead of each step of the original: after each of its turns come those of our sides."""

    def __init__(self, job: Job, sides: dict[str, Side], args: argparse.Namespace) -> None:
        self.job, self.sides, self.device, kind = job, sides, job.device, job.device.type
        period = PERIOD.get(job.family, 1)
        self.turn = math.ceil(TURN[kind] / period) * period  # steps
        self.warm_up = WARM_UP[kind]
        self.turns = max(LEAST_TURNS, math.ceil((args.steps or (10 if kind == "cpu" else 100)) / self.turn))
        self.limit = args.seconds or (30.0 if kind == "cuda" else math.inf)
        self.seconds: dict[str, list[float]] = {name: [] for name in (ORIGINAL, *sides)}
        self.errors: dict[str, str] = {}
        self.parts: Parts | None = None
        self.steps = 0  # that the original has made
        self._first = self._begin = 0.0

    def __call__(self, parts: Parts) -> None:
        if self.parts is None:
            self.parts = parts
            for training, _ in self.sides.values():
                refuse_unequal(self.job.family, dict(training.nets.items()), parts.nets)
        beyond, self.steps = self.steps - self.warm_up, self.steps + 1
        if beyond == 0:
            self._first = self._begin = self._now()
        elif beyond > 0 and beyond % self.turn == 0:
            self.seconds[ORIGINAL].append((self._now() - self._begin) / self.turn)
            for name in self.sides:
                self._take(name)
            made = len(self.seconds[ORIGINAL])
            self._begin = self._now()
            if made == self.turns or (made >= LEAST_TURNS and self._begin - self._first > self.limit):
                raise Enough

    def _take(self, name: str) -> None:
        training, step = self.sides[name]
        if name not in self.errors:
            try:
                self.seconds[name].append(timed(step, self.turn, self.device))
                training.losses.take()
            except Exception as error:
                self.errors[name] = reason_of(error)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def row(self, name: str) -> Row:
        """Of a side; an error if it failed, or made other updates than the original."""
        assert self.parts is not None
        if name in self.errors:
            return {"error": self.errors[name]}
        nets, optimizers = self.parts.nets, self.parts.optimizers
        if name != ORIGINAL:
            training = self.sides[name][0]
            nets, optimizers = dict(training.nets.items()), training.optimizers
        made, theirs = updates(optimizers), updates(self.parts.optimizers)
        if made != theirs:
            return {"error": f"made {made} updates, the original {theirs}"}
        seconds, config = self.seconds[name], self.job.config
        median = statistics.median(seconds)
        return {
            "size": config.size,
            "batch": config.batch,
            "ngf": config.ngf,
            "device": str(self.device),
            "images_per_s": round(config.batch / median, 3),
            "ms_per_step": round(median * 1e3, 3),
            "ratio": round(median_ratio(self.seconds[ORIGINAL], seconds), 3),
            "turns": len(seconds),
            "steps": len(seconds) * self.turn,
            "updates": made,
            "parameters": parameters(nets),
        }


def parameters(nets: Mapping[str, nn.Module]) -> dict[str, int]:
    return {name: sum(p.numel() for p in net.parameters()) for name, net in sorted(nets.items())}


def refuse_unequal(family: str, ours: Mapping[str, nn.Module], theirs: Mapping[str, nn.Module]) -> None:
    """Raises SystemExit where a network has other parameters here than there: then there is nothing to compare."""
    here, there = parameters(ours), parameters(theirs)
    if here != there:
        raise SystemExit(f"originals: {family}: networks have {here} parameters in gantrt, {there} in the original")


def updates(optimizers: Mapping[str, Any]) -> dict[str, int]:
    """Steps of each optimiser since it was made, those that warmed up included."""
    return {
        name: max((int(state["step"]) for state in optimizer.state.values()), default=0)
        for name, optimizer in sorted(optimizers.items())
    }


def _warm(family: str, name: str, args: argparse.Namespace, sides: dict[str, Side]) -> Row:
    """Add a side of ours that is ready; the original warms up as it runs."""
    if name != ORIGINAL:
        training, step = make_side(family, name, overrides(family, args), args.device)
        for _ in range(WARM_UP[training.fabric.device.type]):
            step()
        training.losses.take()
        sides[name] = training, step
    return {}


def solo(family: str, name: str, args: argparse.Namespace) -> Row:
    """Memory at the peak of three steps in MiB: on a CPU over what an idle process has."""
    device, idle = open_fabric(args.device, "fp32").device, peak_mib()
    made = 0

    def before(_: Parts) -> None:
        nonlocal made
        if made == 3:
            raise Enough
        made += 1

    if name == ORIGINAL:
        with contextlib.suppress(Enough):
            run_original(_job(family, device, args), args, before)
    else:
        _, step = make_side(family, name, overrides(family, args), args.device)
        for _ in range(3):
            step()
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib() - idle
    return {"memory_mib": round(peak, 1)}


def _memory_elsewhere(family: str, name: str, args: argparse.Namespace, _: dict[str, Side]) -> Row:
    if args.no_memory:
        return {}
    code_base = FAMILIES[family]
    command = [sys.executable, __file__, "--solo", name, "--family", family, "--device", args.device]
    command += [f"--{code_base}", str(getattr(args, code_base)), *(["--full"] if args.full else [])]
    for key in ("size", "ngf", "batch"):
        command += [f"--{key}", str(getattr(args, key))] if getattr(args, key) else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    answer: Row = json.loads(done.stdout.splitlines()[-1])
    return answer


def _line(row: Row) -> str:
    start = f"{row['family']:<10} {row['side']:<36}"
    if "error" in row:
        return f"{start} {row['error']}"
    memory = f"  {row['memory_mib']:7.0f} MiB" if "memory_mib" in row else ""
    count = sum(row["parameters"].values())
    return f"{start} {row['images_per_s']:9.2f} images/s  {row['ratio']:5.2f}x{memory}  {count:,} parameters"


if __name__ == "__main__":
    main()
