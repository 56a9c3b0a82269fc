"""What a GPU bench says of where it ran, and how it times: a CUDA graph of many calls, replayed."""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import torch


def about() -> dict[str, Any]:
    """Command, date and machine, with the clocks as they are."""
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,temperature.gpu"
    smi = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    facts = dict(zip(query.split(","), (part.strip() for part in smi.stdout.split(",")), strict=False))
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "gpu": facts,
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
    }


def captured(work: Callable[[], object], calls: int) -> torch.cuda.CUDAGraph:
    """`calls` runs of `work` as one graph; it is warmed up first."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            work()
    return graph


def elapsed_ms(work: Callable[[], object]) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def interleaved(contestants: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Microseconds of one call, by contestant. They take turns, so clocks hit all alike; a work is `calls` calls."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for work in contestants.values():
        for _ in range(3):
            work()
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(elapsed_ms(work) * 1e3 / calls)
    return {
        name: {
            "median_us": round(statistics.median(each), 3),
            "min_us": round(min(each), 3),
            "max_us": round(max(each), 3),
        }
        for name, each in times.items()
    }
