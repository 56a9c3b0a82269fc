"""The times of all frames of a `gantrt bench`, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .atomic import atomic_path
from .measure import FrameTimes


def plot_frames(path: str, report: dict[str, Any], frame: FrameTimes) -> None:
    """Left: every frame's time in the order they came. Right: the share of frames at most that slow."""
    from matplotlib.figure import Figure

    times = frame.runs[:, 1] - frame.runs[:, 0]
    figure = Figure(figsize=(10, 4), layout="constrained")
    order, share = figure.subplots(1, 2, sharey=True)
    order.plot(times, ".", markersize=3)
    order.set(xlabel="frame", ylabel="end to end, ms", ylim=(0, None))
    share.plot(np.arange(1, len(times) + 1) / len(times) * 100, np.sort(times))
    ranks = (50, 90, 95, 99)
    values = [getattr(frame.e2e, f"p{rank}") for rank in ranks]
    share.plot(ranks, values, "o", color="tab:red", markersize=4)
    listed = "\n".join(f"p{rank}  {value:.3g} ms" for rank, value in zip(ranks, values, strict=True))
    share.text(0.97, 0.04, listed, transform=share.transAxes, ha="right", va="bottom", family="monospace")
    share.grid(alpha=0.3)
    order.grid(alpha=0.3)
    share.set(xlabel="% of frames")
    engine = report["engine"]
    figure.suptitle(
        f"{Path(engine['path']).name}, {engine['precision']}, {engine['runtime']}, {report['environment']['cpu']}"
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
