"""The report of `gantrt bench`, as one JSON object; bench.schema.json describes it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import resource
import sys
from collections.abc import Mapping
from typing import Any

from .measure import EngineTimes, FrameTimes, Source, Start
from .threads import usable_cpus
from .translator import Translator

SCHEMA = "gantrt.bench/1"

_UNSTABLE = 0.025  # coefficient of variance above which trtexec warns
_GPU_FACTS = ("gpu", "cc", "driver", "cuda", "trt_build", "trt_runtime", "clocks", "power")


def report(
    translator: Translator,
    engine: EngineTimes,
    frame: FrameTimes,
    start: Start,
    source: Source,
    settings: Mapping[str, Any],
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
            "arithmetic": translator.engine.arithmetic(),
            "manifest": dataclasses.asdict(info.manifest),
        },
        "settings": dict(settings),
        "metrics": {
            "engine": {"latency": engine.compute.to_json(), "compute": engine.compute.to_json(), **not_here},
            "frame": {
                "e2e": frame.e2e.to_json(),
                **stages,
                "decode": source.decode.to_json() if source.decode else None,
                "jitter_ms": frame.jitter_ms,
                "first_frame_ms": frame.first_frame_ms,
                "load_ms": start.load_ms,
                "load_from_cache": start.from_cache,
                "load_again_ms": start.again_ms,
                "source_fps": source.fps,
                "deadline_misses": frame.misses(source.fps) if source.fps else None,
            },
        },
        "throughput": {"engine_qps": engine.throughput, "frame_fps": frame.fps},
        "memory": {
            "host_rss_mb": peak_mb(),
            "before_load_mb": start.rss_before_mb,
            "loaded_mb": start.rss_loaded_mb,
            "device_peak_mb": None,
        },
        "warnings": warnings(translator, engine, frame),
    }


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


def warnings(translator: Translator, engine: EngineTimes, frame: FrameTimes) -> list[str]:
    """What makes these numbers less than they seem, in trtexec's spirit and with its thresholds."""
    found = []
    if engine.compute.cv > _UNSTABLE:
        found.append(
            f"compute time is unstable, with coefficient of variance = {engine.compute.cv:.1%}: something else runs "
            "here, or the clock changes; close it, or measure longer with --duration"
        )
    if os.getloadavg()[0] > 1.5 * usable_cpus():
        found.append(f"the machine is busy: {os.getloadavg()[0]:.1f} threads want its {usable_cpus()} cores")
    around = frame.stages.pre.median + frame.stages.post.median
    if around >= frame.stages.engine.median:
        found.append(f"reading and writing pixels ({around:.2f} ms) takes as long as the network: use smaller frames")
    if translator.info.streams > 1:
        found.append(f"{translator.info.streams} streams share the CPU: latency suffers, see the throughput")
    precision, layers = translator.info.precision, translator.engine.arithmetic()
    others = {name: count for name, count in layers.items() if name != precision}
    if others:
        listed = ", ".join(f"{count} in {name}" for name, count in others.items())
        found.append(f"of {sum(layers.values())} layers that multiply not all compute in {precision}: {listed}")
    return found


def trace(engine: EngineTimes) -> list[dict[str, float | None]]:
    """One dict per run with the keys of trtexec's --exportTimes."""
    absent = ("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startD2hMs", "endD2hMs", "h2dMs", "d2hMs")
    return [
        dict.fromkeys(absent)
        | {"startComputeMs": start, "endComputeMs": end, "computeMs": end - start, "latencyMs": end - start}
        for start, end in engine.runs.tolist()
    ]


def peak_mb() -> float:
    """The most memory this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
