"""Measuring a Translator: its network alone by trtexec's conventions, and frames as an application feels them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import platform
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Frame
from .engines import output_like
from .timing import Summary
from .translator import Stats, Translator

SCHEMA = "gantrt.bench/1"

_UNSTABLE = 0.025  # coefficient of variance above which trtexec warns
_TURN = 0.1  # seconds one contestant runs before the next has its turn
_GPU_FACTS = ("gpu", "cc", "driver", "cuda", "trt_build", "trt_runtime", "clocks", "power")


@dataclass(frozen=True)
class Settings:
    """How long to measure: after the warm-up, at least `iterations` and at least `duration` seconds."""

    warmup_ms: float = 200.0
    duration: float = 3.0
    iterations: int = 10


@dataclass(frozen=True)
class EngineTimes:
    """The network alone, one batch after the other, its tensors in memory. On a CPU latency is compute time."""

    runs: NDArray[np.float64]  # (n, 2): start and end in milliseconds since the first start
    batch: int

    @property
    def compute(self) -> Summary:
        return Summary.of(self.runs[:, 1] - self.runs[:, 0])

    @property
    def walltime(self) -> float:
        """Seconds from the first start to the last end."""
        return float(self.runs[-1, 1] - self.runs[0, 0]) / 1e3

    @property
    def throughput(self) -> float:
        """Pictures per second."""
        return len(self.runs) * self.batch / self.walltime


@dataclass(frozen=True)
class FrameTimes:
    """Whole frames: one at a time, and then as fast as the queue takes them."""

    runs: NDArray[np.float64]  # (n, 2): call and return in milliseconds, one frame at a time
    stages: Stats  # of the same frames
    first_frame_ms: float  # the very first one, with nothing warmed up
    load_ms: float
    fps: float  # with two frames in flight per stream, or in batches

    @property
    def e2e(self) -> Summary:
        return Summary.of(self.runs[:, 1] - self.runs[:, 0])

    @property
    def jitter_ms(self) -> float:
        """Standard deviation of the interval between results."""
        return float(np.diff(self.runs[:, 1]).std()) if len(self.runs) > 1 else 0.0


def repeat(once: Callable[[], Any], settings: Settings) -> NDArray[np.float64]:
    """Call `once` as long as the settings say; (n, 2) start and end in milliseconds since the first start."""
    runs: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while len(runs) < settings.iterations or time.perf_counter() - begin < settings.duration:
        start = time.perf_counter()
        once()
        runs.append((start, time.perf_counter()))
    return (np.array(runs) - runs[0][0]) * 1e3


def warm_up(once: Callable[[], Any], settings: Settings) -> None:
    """trtexec warms up by time, not by count; at least once."""
    end = time.perf_counter() + settings.warmup_ms / 1e3
    once()
    while time.perf_counter() < end:
        once()


def network_input(translator: Translator, frame: Frame) -> NDArray[np.float32]:
    """Seeded noise in the shape and value range the network gets for a frame of this size."""
    manifest = translator.engine.manifest
    size = translator.engine.fit(*frame.shape[:2])
    shape = (manifest.batch, manifest.input.channels, *size)
    return np.random.default_rng(0).uniform(*manifest.range, shape).astype(np.float32)


def measure_engine(translator: Translator, x: NDArray[np.float32], settings: Settings) -> EngineTimes:
    y = output_like(translator.engine.manifest, x)
    warm_up(lambda: translator.engine.run(x, y), settings)
    return EngineTimes(repeat(lambda: translator.engine.run(x, y), settings), len(x))


def measure_frames(translator: Translator, frames: Sequence[Frame], settings: Settings) -> FrameTimes:
    """`translator` must be fresh, and loaded without warm-up: its first frame is one of the results."""
    outs = [np.empty_like(frame) for frame in frames]
    turns = itertools.cycle(zip(frames, outs, strict=True))
    translator(*next(turns))
    first = translator.stats().first_frame_ms or 0.0
    warm_up(lambda: translator(*next(turns)), settings)
    translator.stats(reset=True)
    runs = repeat(lambda: translator(*next(turns)), settings)
    stages = translator.stats(reset=True)
    return FrameTimes(runs, stages, first, translator.load_ms, _throughput(translator, frames, settings))


def _throughput(translator: Translator, frames: Sequence[Frame], settings: Settings) -> float:
    """Frames per second when the caller always has more to do."""
    batch, depth = translator.engine.manifest.batch, 2 * translator.info.streams
    turns = itertools.cycle(frames)
    done = 0
    begin = time.perf_counter()
    pending: deque[Any] = deque()
    while done < settings.iterations or time.perf_counter() - begin < settings.duration:
        if batch > 1:
            done += len(translator.translate(list(itertools.islice(turns, batch))))
            continue
        pending.append(translator.submit(next(turns)))
        if len(pending) >= depth:
            pending.popleft().result()
            done += 1
    elapsed = time.perf_counter() - begin  # those still in flight are not counted
    for future in pending:
        future.result()
    return done / elapsed


def compare(contestants: Mapping[str, Callable[[], Any]], settings: Settings) -> dict[str, Summary]:
    """Let the contestants take turns until each has had its time, so that a busy moment hits all of them.

    The first run of each turn is not counted: it finds the other's data in the caches and its threads still spinning.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    spent = dict.fromkeys(contestants, 0.0)
    for once in contestants.values():
        once()
    while any(len(times[name]) < settings.iterations or spent[name] < settings.duration for name in contestants):
        for name, once in contestants.items():
            once()
            begin = start = time.perf_counter()
            while start - begin < _TURN:
                once()
                end = time.perf_counter()
                times[name].append((end - start) * 1e3)
                start = end
            spent[name] += start - begin
    return {name: Summary.of(values) for name, values in times.items()}


def warnings(engine: EngineTimes, frame: FrameTimes, streams: int) -> list[str]:
    """What makes these numbers less than they seem, in trtexec's spirit and with its thresholds."""
    found = []
    if engine.compute.cv > _UNSTABLE:
        found.append(
            f"compute time is unstable, with coefficient of variance = {engine.compute.cv:.1%}: something else runs "
            "here, or the clock changes; close it, or measure longer with --duration"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if os.getloadavg()[0] > 1.5 * cores:
        found.append(f"the machine is busy: {os.getloadavg()[0]:.1f} threads want its {cores} cores")
    around = frame.stages.pre.median + frame.stages.post.median
    if around >= frame.stages.engine.median:
        found.append(f"reading and writing pixels ({around:.2f} ms) takes as long as the network: use smaller frames")
    if streams > 1:
        found.append(f"{streams} streams share the CPU: latency suffers, see the throughput")
    return found


def environment(libraries: Mapping[str, str]) -> dict[str, Any]:
    from . import __version__

    return dict.fromkeys(_GPU_FACTS) | {
        "os": platform.platform(),
        "cpu": libraries.get("cpu") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "gantrt": __version__,
        "libraries": dict(libraries),
        "load_average": os.getloadavg()[0],
    }


def report(
    translator: Translator, engine: EngineTimes, frame: FrameTimes, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, as one JSON object. What a CPU does not have is null, not 0."""
    info = translator.info
    not_here = dict.fromkeys(("enqueue", "h2d", "d2h"))
    stages = {name: getattr(frame.stages, name).to_json() for name in ("wait", "pre", "engine", "post")}
    return {
        "schema": SCHEMA,
        "environment": environment(info.versions),
        "engine": {
            "path": str(info.path),
            "sha256": hashlib.sha256(info.path.read_bytes()).hexdigest(),
            "runtime": info.runtime,
            "device": info.device,
            "precision": info.precision,
            "manifest": dataclasses.asdict(info.manifest),
        },
        "settings": dict(settings),
        "metrics": {
            "engine": {"latency": engine.compute.to_json(), "compute": engine.compute.to_json(), **not_here},
            "frame": {
                "e2e": frame.e2e.to_json(),
                **stages,
                "jitter_ms": frame.jitter_ms,
                "first_frame_ms": frame.first_frame_ms,
                "load_ms": frame.load_ms,
            },
        },
        "throughput": {"engine_qps": engine.throughput, "frame_fps": frame.fps},
        "memory": {"host_rss_mb": _peak_mb(), "device_peak_mb": None},
        "warnings": warnings(engine, frame, info.streams),
    }


def trace(engine: EngineTimes) -> list[dict[str, float | None]]:
    """One dict per run with the keys of trtexec's --exportTimes."""
    absent = ("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startD2hMs", "endD2hMs", "h2dMs", "d2hMs")
    return [
        dict.fromkeys(absent)
        | {"startComputeMs": start, "endComputeMs": end, "computeMs": end - start, "latencyMs": end - start}
        for start, end in engine.runs.tolist()
    ]


def _peak_mb() -> float:
    """The most memory this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
