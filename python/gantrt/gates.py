"""Promises a bench must keep: `p99>12ms` says when it fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import UsageError

_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_GATE = re.compile(
    r"\s*(?:(?P<block>frame|engine)\.)?(?P<metric>p50|p90|p95|p99|mean|median|min|max|fps)"
    r"\s*(?P<sign>[<>])\s*(?P<limit>\d+(?:\.\d+)?)\s*(?P<unit>us|ms|s|fps)?\s*"
)


@dataclass(frozen=True)
class Gate:
    """One condition under which a bench fails."""

    text: str
    block: str  # "frame": end to end, what an application feels; "engine": the network alone
    metric: str
    above: bool  # fails above the limit, or else below it
    limit: float  # milliseconds, or frames per second

    def trips(self, measured: Mapping[str, Mapping[str, float]]) -> bool:
        """Whether the bench fails. measured  block -> metric -> milliseconds, or frames per second for "fps" """
        value = measured[self.block][self.metric]
        return value > self.limit if self.above else value < self.limit


def parse_gates(texts: list[str]) -> list[Gate]:
    """Gates from their texts, several to a text with commas between; UsageError if one is not understood."""
    return [_parse(part.strip()) for text in texts for part in text.split(",")]


def _parse(text: str) -> Gate:
    match = _GATE.fullmatch(text)
    if match is None or (match["metric"] == "fps") != (match["unit"] in (None, "fps")):
        raise UsageError(
            f"--fail-if {text!r}: write p50, p90, p95, p99, mean, median, min or max, then > or <, then a time with "
            "its unit (p99>12ms); or fps<30; 'engine.' in front means the network alone"
        )
    scale = _MILLISECONDS.get(match["unit"] or "", 1.0)
    return Gate(text, match["block"] or "frame", match["metric"], match["sign"] == ">", float(match["limit"]) * scale)
