"""Percentiles, summaries and the ring they are kept in."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
from gantrt.timing import Ring, Summary, percentile


@pytest.mark.parametrize(
    ("count", "p", "rank"),
    # rank: 1-based position in ascending order, worked out by hand from max(n - 1 - int((1 - p / 100) n), 0)
    [(10, 50, 5), (10, 90, 9), (11, 50, 6), (20, 95, 19), (200, 99, 199), (1000, 99, 991), (1, 99, 1), (3, 0, 1)],
)
def test_percentile_is_trtexecs_nearest_rank(count: int, p: float, rank: int) -> None:
    assert percentile(np.arange(1.0, count + 1), p) == rank


def test_percentile_rounds_in_single_precision_as_trtexec_does() -> None:
    # 1 - 99/100 is just below 0.01 in float32, so of a hundred values none is left out, and 1 - 90/100 just above 0.1,
    # so of ten one is; in float64 it would be 0.0999..., and p90 of ten the largest.
    assert percentile(np.arange(1.0, 101), 99) == 100
    assert percentile(np.arange(1.0, 11), 90) == 9


def test_percentile_of_nothing_is_nan_and_of_nonsense_an_error() -> None:
    assert math.isnan(percentile([], 50))
    with pytest.raises(ValueError, match=r"0\.\.100"):
        percentile([1.0], 101)


def test_summary_against_numbers_worked_out_by_hand() -> None:
    summary = Summary.of([4.0, 1.0, 3.0, 2.0])
    assert (summary.n, summary.min, summary.max, summary.mean, summary.median) == (4, 1.0, 4.0, 2.5, 2.5)
    assert summary.p50 == 2.0  # a percentile is a measured value, a median need not be
    assert (summary.p90, summary.p95, summary.p99) == (4.0, 4.0, 4.0)
    assert summary.std == pytest.approx(math.sqrt(1.25))
    assert summary.cv == pytest.approx(math.sqrt(1.25) / 2.5)


def test_summary_is_ordered_whatever_the_values() -> None:
    summary = Summary.of(np.random.default_rng(0).gamma(2, size=997))
    assert summary.min <= summary.p50 <= summary.p90 <= summary.p95 <= summary.p99 <= summary.max


def test_summary_of_nothing_is_valid_json() -> None:
    assert json.loads(json.dumps(Summary.of([]).to_json(), allow_nan=False))["p99"] is None


def test_ring_keeps_the_last_rows_in_order_and_counts_all() -> None:
    ring = Ring(2, capacity=3)
    for i in range(5):
        ring.add(i, -i)
    count, rows = ring.rows()
    assert count == 5
    assert rows.tolist() == [[2, -2], [3, -3], [4, -4]]
    ring.clear()
    assert ring.rows()[0] == 0
    assert len(ring.rows()[1]) == 0


def test_ring_loses_nothing_between_threads() -> None:
    ring = Ring(1, capacity=10_000)
    threads = [threading.Thread(target=lambda: [ring.add(1.0) for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count, rows = ring.rows()
    assert count == len(rows) == rows.sum() == 4000
