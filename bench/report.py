"""The table and the plot of bench/engines.py's numbers, for the README.

    python bench/report.py [--json bench/results/engines_cpu.json] [--plot docs/images/engines.png]

Prints the table in Markdown and draws two pictures, FILE.png for light pages and FILE-dark.png for dark ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
COLUMNS = {  # heading -> the contestant, the first of these that took part
    "gantrt": ("gantrt",),
    "gantrt fp32": ("gantrt fp32",),
    "gantrt int8": ("gantrt int8",),
    "OpenVINO by hand": ("OpenVINO by hand",),
    "OpenVINO by hand, fp32": ("OpenVINO by hand fp32",),
    "ONNX Runtime": ("ONNX Runtime by hand",),
    "torch eager": ("torch eager",),
    "torch bf16": ("torch channels_last bf16",),
    "torch.compile": ("torch.compile",),
}
THEMES = {
    "": {
        "page": "#ffffff",
        "text": "#1f2328",
        "quiet": "#59636e",
        "line": "#d1d9e0",
        "ours": "#0969da",
        "peer": "#afb8c1",
    },
    "-dark": {
        "page": "#0d1117",
        "text": "#f0f6fc",
        "quiet": "#9198a1",
        "line": "#3d444d",
        "ours": "#4493f8",
        "peer": "#4d5560",
    },
}
OURS = {"gantrt int8": 1.0, "gantrt": 0.8, "gantrt fp32": 0.55}  # opacity


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, default=HERE / "results" / "engines_cpu.json")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs" / "images" / "engines.png")
    args = parser.parse_args()
    report = json.loads(args.json.read_text())
    print(table(report))
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    for suffix, theme in THEMES.items():
        path = args.plot.with_stem(args.plot.stem + suffix)
        draw(report, theme).savefig(path, dpi=160, facecolor=theme["page"])
        print(path)


def table(report: dict[str, Any]) -> str:
    """Median milliseconds of a frame; columns nobody took part in are left out."""
    rows = [{each["name"]: each for each in row["contestants"]} for row in report["rows"]]
    shown = {heading: names for heading, names in COLUMNS.items() if any(name in row for row in rows for name in names)}
    lines = ["| median ms a frame | " + " | ".join(shown) + " |", "|---|" + "--:|" * len(shown)]
    for row, contestants in zip(report["rows"], rows, strict=True):
        found = (next((contestants[name] for name in names if name in contestants), None) for names in shown.values())
        cells = ["–" if each is None else _number(each["median_ms"]) for each in found]
        lines.append(f"| {row['network']}, {row['size']}×{row['size']} | " + " | ".join(cells) + " |")
    peaks = report["rows"][0]["peak_gops"]
    limits = ", ".join(f"{rate:.0f} in {precision}" for precision, rate in peaks.items())
    machine = report["machine"]
    lines += [
        "",
        f"{machine['cores']} × {machine['cpu']}, {report['date'][:10]}; at most {limits} G operations a second.",
    ]
    return "\n".join(lines)


def draw(report: dict[str, Any], theme: dict[str, str]) -> Figure:
    """A panel for each network, a bar for each contestant, the fastest on top."""
    rows = report["rows"]
    most = max(len(row["contestants"]) for row in rows)
    figure = Figure(figsize=(11, 0.34 * most * -(-len(rows) // 2) + 1.5), layout="constrained")
    panels = figure.subplots(-(-len(rows) // 2), min(len(rows), 2), squeeze=False).ravel()
    for axes, row in zip(panels, rows, strict=False):
        _panel(axes, row, theme)
    for axes in panels[len(rows) :]:
        axes.set_axis_off()
    machine = report["machine"]
    figure.suptitle(
        f"One frame, uint8 in to uint8 out: milliseconds, less is better   ({machine['cores']} × {machine['cpu']})",
        color=theme["text"],
        fontsize=11,
    )
    return figure


def _panel(axes: Axes, row: dict[str, Any], theme: dict[str, str]) -> None:
    contestants = sorted(row["contestants"], key=lambda each: -each["median_ms"])
    contestants = [each for each in contestants if each["name"] != "OpenVINO by hand, our int8"]
    times = [each["median_ms"] for each in contestants]
    for at, each in enumerate(contestants):
        ours = each["name"] in OURS
        axes.barh(
            at, each["median_ms"], 0.72, color=theme["ours" if ours else "peer"], alpha=OURS.get(each["name"], 1.0)
        )
        axes.annotate(
            f"{_number(each['median_ms'])}",
            (each["median_ms"], at),
            textcoords="offset points",
            xytext=(4, 0),
            va="center",
            fontsize=8,
            color=theme["text"],
            fontweight="bold" if ours else "normal",
        )
    labels = [f"{each['name'].replace(' by hand', '')}" for each in contestants]
    labels = [
        label if label.endswith(("bf16", "fp32", "int8")) else f"{label} {each['precision']}"
        for label, each in zip(labels, contestants, strict=True)
    ]
    axes.set_yticks(range(len(contestants)), labels, fontsize=8)
    for label, each in zip(axes.get_yticklabels(), contestants, strict=True):
        label.set(color=theme["text"] if each["name"] in OURS else theme["quiet"])
    axes.set_title(f"{row['network']}, {row['size']}×{row['size']}", loc="left", fontsize=10, color=theme["text"])
    axes.set_xlim(0, max(times) * 1.14)
    axes.tick_params(axis="x", colors=theme["quiet"], labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_facecolor(theme["page"])
    axes.grid(axis="x", color=theme["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _number(milliseconds: float) -> str:
    return (
        f"{milliseconds:.0f}"
        if milliseconds >= 100
        else f"{milliseconds:.1f}"
        if milliseconds >= 10
        else f"{milliseconds:.2f}"
    )


if __name__ == "__main__":
    main()
