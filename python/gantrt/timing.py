"""How long things took: percentiles by trtexec's rule, summaries, and samples in bounded memory."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def percentile(ascending: Sequence[float] | NDArray[np.float64], p: float) -> float:
    """The p-th percentile (0..100) of values in ascending order: one of them, never interpolated; nan of none.

    trtexec's nearest rank (TensorRT 11, samples/common/sampleReporting.cpp), in single precision as it computes it:
    the rounding decides whether p99 of a hundred values is the largest or the second largest (it is the largest).
    """
    if not 0 <= p <= 100:
        raise ValueError(f"percentile: {p} is not in 0..100")
    count = len(ascending)
    if count == 0:
        return math.nan
    excluded = int((np.float32(1) - np.float32(p) / np.float32(100)) * np.float32(count))
    return float(ascending[max(count - 1 - excluded, 0)])


@dataclass(frozen=True)
class Summary:
    """What is said of many measurements, all in their own unit (milliseconds, unless told otherwise)."""

    n: int
    min: float
    max: float
    mean: float
    median: float  # the mean of the two middle values when n is even
    std: float  # population
    cv: float  # std / mean, as a fraction
    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: ArrayLike) -> Summary:
        """Summarise; of nothing, every number but n is nan."""
        ascending = np.sort(np.asarray(values, np.float64).ravel())
        ranks = [percentile(ascending, p) for p in (50, 90, 95, 99)]
        if not len(ascending):
            return cls(0, *([math.nan] * 10))
        mean, std = float(ascending.mean()), float(ascending.std())
        median = float(np.median(ascending))
        cv = std / mean if mean else math.nan
        return cls(len(ascending), float(ascending[0]), float(ascending[-1]), mean, median, std, cv, *ranks)

    def to_json(self) -> dict[str, float | int | str | None]:
        """A plain dict with its unit; nan, which JSON lacks, is None."""
        values = dataclasses.asdict(self)
        return {key: None if math.isnan(value) else value for key, value in values.items()} | {"unit": "ms"}


class Ring:
    """The last `capacity` rows of `width` numbers, and how many there ever were. Thread-safe."""

    def __init__(self, width: int, capacity: int = 8192) -> None:
        self.count = 0
        self._rows = np.zeros((capacity, width))
        self._lock = threading.Lock()

    def add(self, *row: float) -> None:
        with self._lock:
            self._rows[self.count % len(self._rows)] = row
            self.count += 1

    def rows(self) -> tuple[int, NDArray[np.float64]]:
        """How many rows were ever added, and a copy of those still here, oldest first: (n, width)."""
        with self._lock:
            if self.count <= len(self._rows):
                return self.count, self._rows[: self.count].copy()
            return self.count, np.roll(self._rows, -(self.count % len(self._rows)), axis=0)

    def clear(self) -> None:
        with self._lock:
            self.count = 0
