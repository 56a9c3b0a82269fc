"""Whole frames on a GPU with torch alone: latency of one, rate of many, and where the time goes.

    python bench/pipeline.py [--frames 500]

Random weights in the generators at their papers' sizes, uint8 frames of 720p and 1080p from and to host memory, and
from and to the GPU's. Beside it the loop that one writes with torch: upload, resize, normalise, network, and back.

    latency, latency_on_gpu  of one frame at a time, from the call to the result
    host_adds_ms             the difference of their medians: what a frame that lies on the host costs
    stages_ms                of one frame without the graph, by events; copies in one piece. What copies between
                             the caller's memory and pinned memory add is host_adds_ms - copy_in - copy_out
    without_graph_ms         the network among these stages, bound by the CPU that launches it: the pipeline has no such
    network_ms               latency_on_gpu - to_tensor - to_frame: the network in the graph, with the launch of
                             the graph, two copies on the GPU and the wait

Writes bench/results/pipeline_<gpu>.json.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gantrt_training.family import load_family, make_config
from gantrt_training.realtime import Realtime
from gpu_machine import about
from kernels import NETWORKS, RESULTS
from numpy.typing import NDArray

FRAMES = {"720p": (720, 1280), "1080p": (1080, 1920)}
Frame = NDArray[np.uint8]


@contextmanager
def realtimes(name: str) -> Iterator[dict[int, Realtime]]:
    """By number of slots: one generator for all."""
    family_name, overrides = NETWORKS[name]
    family = load_family(family_name)
    config = make_config(family, "paper", overrides)
    torch.manual_seed(0)
    generator = family.build(config)[family.generators["a2b"]]
    size = (3, config.size, config.size)
    with ExitStack() as stack:
        yield {
            slots: stack.enter_context(Realtime(family, generator, size, "fp16", "instance", 0, slots, "bgr"))
            for slots in (1, 3)
        }


def milliseconds_each(work: Any, frames: list[Frame], count: int) -> list[float]:
    times = []
    for i in range(count):
        begin = time.perf_counter()
        work(frames[i % len(frames)])
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def quantiles(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": round(cuts[49], 4), "p90_ms": round(cuts[89], 4), "p99_ms": round(cuts[98], 4)}


def frames_per_second(t: Realtime, frames: list[Frame], slots: int, count: int) -> float:
    outs = [np.empty_like(frames[0]) for _ in range(slots)]
    flying: deque[Any] = deque()
    begin = time.perf_counter()
    for i in range(count):
        if len(flying) == slots:
            flying.popleft().result(outs[i % slots])
        flying.append(t.submit(frames[i % len(frames)]))
    while flying:
        flying.popleft().result(outs[0])
    return round(count / (time.perf_counter() - begin), 1)


def by_hand(t: Realtime) -> Any:
    """What one writes with torch: synchronous, every step a call."""
    _, height, width = t._input

    def work(frame: Frame) -> Frame:
        x = torch.from_numpy(frame).cuda().flip(2).permute(2, 0, 1)[None].half() / 127.5 - 1
        with torch.inference_mode():
            y = t.network(F.interpolate(x, (height, width), mode="bilinear", antialias=True))
        y = F.interpolate(y, frame.shape[:2], mode="bilinear")
        y = ((y + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return y[0].permute(1, 2, 0).flip(2).contiguous().cpu().numpy()

    return work


def measure(name: str, size: tuple[int, int], by_slots: dict[int, Realtime], count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(8)]
    out = np.empty_like(frames[0])
    t = by_slots[1]
    pipeline = t.frames.pipeline(frames[0])
    row: dict[str, Any] = {"network": name, "frame": list(size)}
    row["graph"] = pipeline.graph_active or pipeline.why_no_graph
    milliseconds_each(lambda frame: t(frame, out), frames, 20)
    row["latency"] = quantiles(milliseconds_each(lambda frame: t(frame, out), frames, count))
    on_gpu = [torch.from_numpy(frame).cuda() for frame in frames]
    target = torch.empty_like(on_gpu[0])

    def on_device(frame: torch.Tensor) -> None:
        t(frame, target)
        torch.cuda.current_stream().synchronize()

    milliseconds_each(on_device, on_gpu, 20)  # type: ignore[arg-type]
    row["latency_on_gpu"] = quantiles(milliseconds_each(on_device, on_gpu, count))  # type: ignore[arg-type]
    row["host_adds_ms"] = round(row["latency"]["p50_ms"] - row["latency_on_gpu"]["p50_ms"], 4)
    stages = [pipeline.time_stages(frames[i % 8]) for i in range(50)]
    medians = {key: round(statistics.median(s[key] for s in stages), 4) for key in stages[0]}
    row["without_graph_ms"] = medians.pop("network")
    row["stages_ms"] = medians
    pixels = medians["to_tensor"] + medians["to_frame"]
    row["network_ms"] = round(row["latency_on_gpu"]["p50_ms"] - pixels, 4)
    hand = by_hand(t)
    milliseconds_each(hand, frames, 10)
    row["latency_by_hand"] = quantiles(milliseconds_each(hand, frames, count // 5))
    for slots, each in by_slots.items():
        frames_per_second(each, frames, slots, 50)
        row[f"fps_{slots}_slots"] = frames_per_second(each, frames, slots, count)
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=500)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    rows = []
    for name in NETWORKS:
        with realtimes(name) as by_slots:
            rows += [measure(name, size, by_slots, args.frames) for size in FRAMES.values()]
    gpu = re.sub(r"\W+", "_", torch.cuda.get_device_name()).lower()
    RESULTS.mkdir(exist_ok=True)
    path = Path(RESULTS / f"pipeline_{gpu}.json")
    path.write_text(json.dumps(about() | {"what": "host to host unless it says on_gpu", "rows": rows}, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
