"""What is wanted of bench/engines.py's numbers, and whether it was reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PEERS = ("ONNX Runtime by hand", "torch eager")


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One dict per goal that these rows can tell: what, the limit, the number got, and whether it is met."""
    return [
        {
            "goal": goal,
            "wanted": f"{'<=' if less else '>='} {limit:g}",
            "got": got,
            "met": got <= limit if less else got >= limit,
        }
        for row in rows
        for goal, limit, got, less in _goals(row["family"], {each["name"]: each for each in row["contestants"]})
    ]


def _goals(family: str, by_name: dict[str, dict[str, Any]]) -> Iterator[tuple[str, float, float, bool]]:
    """(goal, limit, got, whether less is better)"""

    def faster(ours: str, theirs: str) -> float:
        return float(by_name[theirs]["median_ms"] / by_name[ours]["median_ms"])

    def there(*names: str) -> bool:
        return all(name in by_name for name in names)

    by_hand = {"pix2pix": 1.4, "ugatit": 1.1}.get(family, 1.0)
    pairs = (
        ("gantrt", "OpenVINO by hand", by_hand),
        ("gantrt fp32", "OpenVINO by hand fp32", 1.0),
        ("gantrt int8", "OpenVINO by hand, our int8", 1.0),
    )
    for ours, theirs, limit in pairs:
        if there(ours, theirs):
            yield f"{family}: {ours} over {theirs}", limit, faster(ours, theirs), False
    if family == "cyclegan":
        for ours, limit in (("gantrt", 2.5), ("gantrt int8", 4.5)):
            for theirs in PEERS:
                if there(ours, theirs):
                    yield f"{family}: {ours} over {theirs}", limit, faster(ours, theirs), False
        for ours in ("gantrt", "gantrt fp32", "gantrt int8"):
            if there(ours) and by_name[ours]["of_peak"] is not None:
                yield f"{family}: {ours}, of the measured peak", 0.85, by_name[ours]["of_peak"], False
    if family == "discogan":
        best = min(each["median_ms"] for name, each in by_name.items() if name.startswith("gantrt"))
        yield f"{family}: ms a frame, at the default precision", 1.0, by_name["gantrt"]["median_ms"], True
        yield f"{family}: ms a frame, at the fastest precision", 1.0, best, True
