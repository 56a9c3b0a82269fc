"""The report of `gantrt bench` as text: trtexec's names in trtexec's order, then what an application feels."""

from __future__ import annotations

from typing import Any

from .measure import EngineTimes, FrameTimes
from .timing import Summary


def report_lines(report: dict[str, Any], engine: EngineTimes, frame: FrameTimes) -> list[str]:
    """The report as text: trtexec's names and order, then the frame's."""
    built, settings = report["engine"], report["settings"]
    frame_size, network_size = ("x".join(map(str, settings[key])) for key in ("frame_size", "network_size"))
    device = "GPU" if built["device"] == "cuda" else "CPU"
    compute = engine.compute
    lines = [
        f"=== Engine: the network alone, {network_size}, batch {engine.batch}, {built['precision']} {built['runtime']}",
        f"Throughput: {engine.throughput:.6g} qps",
        f"Latency: {_trtexec(compute)}",
        f"Enqueue Time: n/a ({built['device']})",
        f"H2D Latency: n/a ({built['device']})",
        f"{device} Compute Time: {_trtexec(compute)}",
        f"D2H Latency: n/a ({built['device']})",
        f"Total Host Walltime: {engine.walltime:.6g} s",
        f"Total {device} Compute Time: {compute.mean * compute.n / 1e3:.6g} s",
        f"=== Frame: what an application feels, {frame_size} in and out",
        f"{'':12}{'median':>10}{'p90':>10}{'p95':>10}{'p99':>10}  ms",
    ]
    stages = frame.stages
    rows = {"end to end": frame.e2e, "  pre": stages.pre, "  engine": stages.engine, "  post": stages.post}
    lines += [f"{name:12}{_columns(summary)}" for name, summary in rows.items()]
    numbers, memory = report["metrics"]["frame"], report["memory"]
    load = f"Load: {numbers['load_ms']:.4g} ms" + (" from the cache" if numbers["load_from_cache"] else "")
    again = numbers["load_again_ms"]
    lines += [
        f"Jitter: {frame.jitter_ms:.4g} ms    First frame: {frame.first_frame_ms:.4g} ms    {load}"
        + (f", again {again:.4g} ms" if again is not None else ""),
        f"Throughput: {frame.fps:.6g} fps",
        f"Memory: {_megabytes(memory['before_load_mb'])} before loading, {_megabytes(memory['loaded_mb'])} loaded, "
        f"{_megabytes(memory['host_rss_mb'])} at most",
    ]
    if numbers["source_fps"]:
        lines.append(
            f"Source: {numbers['source_fps']:.4g} fps, {numbers['deadline_misses']} of {frame.e2e.n} frames took longer"
            f" than that allows; decoding takes {numbers['decode']['median']:.4g} ms a frame"
        )
    if "against" in report:
        lines += [
            "=== Against: the network alone, taking turns",
            f"{'':16}{'median ms':>10}{'ours = 1':>10}{'differs':>12}",
        ]
        lines += [
            f"{name:16}{entry['latency']['median']:10.4g}{entry['times_ours']:10.3f}{entry['max_abs_difference']:12.2e}"
            for name, entry in report["against"].items()
        ]
    return lines + [f"warning: {text}" for text in report["warnings"]]


def _megabytes(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f} MB"


def _trtexec(summary: Summary) -> str:
    parts = [f"{name} = {getattr(summary, name):.6g} ms" for name in ("min", "max", "mean", "median")]
    parts += [f"percentile({rank}%) = {getattr(summary, f'p{rank}'):.6g} ms" for rank in (90, 95, 99)]
    return ", ".join(parts)


def _columns(summary: Summary) -> str:
    return "".join(f"{value:10.4g}" for value in (summary.median, summary.p90, summary.p95, summary.p99))
