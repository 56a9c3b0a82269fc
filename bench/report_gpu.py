"""The tables and the plot of what was measured on a GPU, for docs/performance.md.

    python bench/report_gpu.py [--gpu nvidia_h100_80gb_hbm3] [--plot docs/images/gpu.png]

Prints the tables in Markdown, from bench/results/{kernels,pixels,pipeline}_<gpu>.json and training_cuda_full.json, and
draws two pictures of the networks, FILE.png for light pages and FILE-dark.png for dark ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from report import HERE, THEMES

OURS = "torch convolutions + our norms, graph"
COLUMNS = {  # heading -> contestant of bench/kernels.py
    "ours": OURS,
    "its layers as trained": "torch convolutions + our norms, as trained, graph",
    "torch.compile, graph": "torch.compile default, graph",
    "eager NCHW, graph": "torch eager, NCHW, graph",
    "eager channels last, graph": "torch eager, channels last, graph",
    "eager": "torch eager, NCHW",
    "eager channels last": "torch eager, channels last",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpu", default="nvidia_h100_80gb_hbm3")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs" / "images" / "gpu.png")
    args = parser.parse_args()
    reports = {name: load(f"{name}_{args.gpu}") for name in ("kernels", "pixels", "pipeline")}
    print(networks(reports["kernels"]), ops(reports["kernels"]), sep="\n\n", end="\n\n")
    print(pixels(reports["pixels"]), frames(reports["pipeline"]), training(load("training_cuda_full")), sep="\n\n")
    for suffix, theme in THEMES.items():
        path = args.plot.with_stem(args.plot.stem + suffix)
        draw(reports["kernels"], theme).savefig(path, dpi=160, facecolor=theme["page"])
        print(path)


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "results" / f"{name}.json").read_text())
    return found


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def networks(report: dict[str, Any]) -> str:
    """Microseconds of a picture, device to device."""
    rows = []
    for row in report["networks"]:
        times = {heading: row["us"].get(name, {}).get("median_us") for heading, name in COLUMNS.items()}
        rows.append([row["network"], *("–" if us is None else f"{us:.0f}" for us in times.values())])
    return table(["µs a picture, fp16", *COLUMNS], rows)


def ops(report: dict[str, Any]) -> str:
    """Microseconds of a call: our fastest way with channels last, by mode, and the others."""
    rows = []
    for row in report["ops"]:
        if row["dtype"] != "float16" or "rotated" in row["op"]:
            continue
        us = {name: each["median_us"] for name, each in row["us"].items()}
        best = min(us, key=lambda name: us[name] if name.startswith("ours") and "NCHW" not in name else float("inf"))
        copy = us["copy of the same bytes"]
        cells = [f"{us[best]:.1f}", best.removeprefix("ours "), _least(us, "torch.compile"), _least(us, "torch eager")]
        shape = "×".join(map(str, row["shape"]))
        rows.append([f"{row['op']}, {shape}", *cells, f"{copy:.1f}", f"{copy / us[best]:.0%}"])
    return table(
        ["µs a call, fp16", "ours", "mode", "torch.compile", "torch eager", "copy", "of the copy's speed"], rows
    )


def _least(us: dict[str, float], start: str) -> str:
    found = [value for name, value in us.items() if name.startswith(start)]
    return f"{min(found):.1f}" if found else "–"


def pixels(report: dict[str, Any]) -> str:
    rows = []
    for row in report["rows"]:
        us = {name: each["median_us"] for name, each in row["us"].items()}
        for name, value in us.items():
            if name.startswith("ours"):
                peer = us["torch, antialiased" if "area" in name else "torch, bilinear"]
                what = f"{row['frame']} {row['way']}, {name.removeprefix('ours, ')}"
                rows.append([what, f"{value:.1f}", f"{peer:.0f}", f"{us['copy']:.1f}"])
    return table(["µs a call, 256×256 fp16", "ours", "torch", "copy of the frame"], rows)


def frames(report: dict[str, Any]) -> str:
    rows = []
    for row in report["rows"]:
        height = row["frame"][0]
        ways = (row["latency"], row["latency_on_gpu"], row["latency_by_hand"])
        cells = [f"{way['p50_ms']:.2f}" for way in ways]
        cells.insert(1, f"{row['latency']['p99_ms']:.2f}")
        rates = [f"{row['fps_1_slots']:.0f}", f"{row['fps_3_slots']:.0f}"]
        rows.append([f"{row['network']}, {height}p", *cells, *rates])
    head = ["frame in to frame out", "ms p50", "p99", "on the GPU", "torch by hand", "fps, 1 slot", "fps, 3 slots"]
    return table(head, rows)


def training(report: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['family']}, {row['variant']}",
            f"{row['images_per_s']:.1f}",
            f"{row['ratio']:.2f}×",
            f"{row['memory_mib']:.0f}",
            "–" if row["gpu_busy"] is None else f"{row['gpu_busy']:.0%}",
        ]
        for row in report["rows"]
        if "images_per_s" in row
    ]
    return table(["256×256, batch 1", "images/s", "over the reference", "MiB at the peak", "GPU busy"], rows)


def draw(report: dict[str, Any], theme: dict[str, str]) -> Figure:
    """A panel for each network, a bar for each way to run it, the fastest on top; eager without a graph in words."""
    rows = report["networks"]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, row in zip(figure.subplots(2, 2).ravel(), rows, strict=True):
        shown = {name: row["us"][key]["median_us"] for name, key in COLUMNS.items() if key in row["us"]}
        eager = min(shown.pop("eager"), shown.pop("eager channels last"))
        for at, (name, us) in enumerate(sorted(shown.items(), key=lambda item: -item[1])):
            color = theme["ours" if name == "ours" else "peer"]
            axes.barh(at, us, 0.7, color=color)
            axes.annotate(
                f"{us:.0f}", (us, at), (4, 0), textcoords="offset points", va="center", fontsize=8, color=theme["text"]
            )
        axes.set_yticks(range(len(shown)), sorted(shown, key=lambda name: -shown[name]), fontsize=8)
        axes.set_title(f"{row['network']}   (torch eager: {eager:.0f})", loc="left", fontsize=10, color=theme["text"])
        axes.set_xlim(0, max(shown.values()) * 1.12)
        axes.tick_params(axis="x", colors=theme["quiet"], labelsize=8)
        axes.tick_params(axis="y", colors=theme["quiet"], length=0)
        axes.set_facecolor(theme["page"])
        axes.grid(axis="x", color=theme["line"], linewidth=0.6)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
    gpu = report["gpu"]["name"]
    figure.suptitle(
        f"One picture, fp16, batch 1: microseconds, less is better   ({gpu})", color=theme["text"], fontsize=11
    )
    return figure


if __name__ == "__main__":
    main()
