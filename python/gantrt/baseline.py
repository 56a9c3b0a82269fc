"""A bench beside an earlier one of the same machine: what became slower by more than it may."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .bench_report import SCHEMA
from .errors import UsageError

# What is compared: its name, where it is in a report, and whether more is better.
_COMPARED = (
    ("frame p50", ("metrics", "frame", "e2e", "p50"), False),
    ("engine p50", ("metrics", "engine", "compute", "p50"), False),
    ("frames per second", ("throughput", "frame_fps"), True),
)


def read_baseline(path: str) -> dict[str, Any]:
    """A report that `gantrt bench --json` wrote; UsageError if it is none."""
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--baseline {path}: cannot be read ({error})") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise UsageError(f"--baseline {path}: is no report of gantrt bench --json ({SCHEMA})")
    return found


def slower(report: Mapping[str, Any], baseline: Mapping[str, Any], tolerance: float) -> list[str]:
    """One line for each number worse than the baseline's by more than `tolerance`, a fraction."""
    found = []
    for name, place, more_is_better in _COMPARED:
        now, before = _at(report, place), _at(baseline, place)
        change = now / before - 1
        if (-change if more_is_better else change) > tolerance:
            found.append(f"{name} {now:.4g}, was {before:.4g} ({change:+.1%})")
    return found


def _at(report: Mapping[str, Any], place: tuple[str, ...]) -> float:
    value: Any = report
    for key in place:
        value = value[key]
    return float(value)
