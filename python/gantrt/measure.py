"""Measuring a Translator: its network alone by trtexec's conventions, and frames as an application feels them."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Frame
from .engines import output_like
from .info import Stats
from .timing import Summary
from .translator import Translator

_TURN = 0.1  # seconds one contestant runs before the next has its turn
_PAUSE = 0.02  # seconds in which the threads of the last one stop looking for work


@dataclass(frozen=True)
class Settings:
    """How long to measure: after the warm-up, at least `iterations` and at least `duration` seconds."""

    warmup_ms: float = 200.0
    duration: float = 3.0
    iterations: int = 10


@dataclass(frozen=True)
class EngineTimes:
    """The network alone, one batch after the other, its tensors in memory. On a CPU latency is compute time."""

    runs: NDArray[np.float64]  # (n, 2): start and end in milliseconds since the first start
    batch: int

    @property
    def compute(self) -> Summary:
        return Summary.of(self.runs[:, 1] - self.runs[:, 0])

    @property
    def walltime(self) -> float:
        """Seconds from the first start to the last end."""
        return float(self.runs[-1, 1] - self.runs[0, 0]) / 1e3

    @property
    def throughput(self) -> float:
        """Pictures per second."""
        return len(self.runs) * self.batch / self.walltime


@dataclass(frozen=True)
class Start:
    """What it costs to have a Translator."""

    load_ms: float  # as it happened
    from_cache: bool  # whether compiling was spared by an earlier start
    again_ms: float | None  # a second start; None where nothing is kept
    rss_before_mb: float | None  # resident memory before the load and after the first frame; None where unknown
    rss_loaded_mb: float | None


@dataclass(frozen=True)
class Source:
    """Where the frames are from. None: they were drawn."""

    fps: float | None = None
    decode: Summary | None = None  # of the same frames


@dataclass(frozen=True)
class FrameTimes:
    """Whole frames: one at a time, and then as fast as the queue takes them."""

    runs: NDArray[np.float64]  # (n, 2): call and return in milliseconds, one frame at a time
    stages: Stats  # of the same frames
    first_frame_ms: float  # the very first one, with nothing warmed up
    fps: float  # with two frames in flight per stream, or in batches

    @property
    def e2e(self) -> Summary:
        return Summary.of(self.runs[:, 1] - self.runs[:, 0])

    @property
    def jitter_ms(self) -> float:
        """Standard deviation of the interval between results."""
        return float(np.diff(self.runs[:, 1]).std()) if len(self.runs) > 1 else 0.0

    def misses(self, fps: float) -> int:
        """Frames that took longer than there is time at this rate."""
        return int((self.runs[:, 1] - self.runs[:, 0] > 1e3 / fps).sum())


def repeat(once: Callable[[], Any], settings: Settings) -> NDArray[np.float64]:
    """Call `once` as long as the settings say; (n, 2) start and end in milliseconds since the first start."""
    runs: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while len(runs) < settings.iterations or time.perf_counter() - begin < settings.duration:
        start = time.perf_counter()
        once()
        runs.append((start, time.perf_counter()))
    return (np.array(runs) - runs[0][0]) * 1e3


def warm_up(once: Callable[[], Any], settings: Settings) -> None:
    """trtexec warms up by time, not by count; at least once."""
    end = time.perf_counter() + settings.warmup_ms / 1e3
    once()
    while time.perf_counter() < end:
        once()


def network_input(translator: Translator, frame: Frame) -> NDArray[np.float32]:
    """Seeded noise in the shape and value range the network gets for a frame of this size."""
    manifest = translator.engine.manifest
    size = translator.engine.fit(*frame.shape[:2])
    shape = (manifest.batch, manifest.input.channels, *size)
    return np.random.default_rng(0).uniform(*manifest.range, shape).astype(np.float32)


def measure_engine(translator: Translator, x: NDArray[np.float32], settings: Settings) -> EngineTimes:
    y = output_like(translator.engine.manifest, x)
    warm_up(lambda: translator.engine.run(x, y), settings)
    return EngineTimes(repeat(lambda: translator.engine.run(x, y), settings), len(x))


def measure_frames(translator: Translator, frames: Sequence[Frame], settings: Settings) -> FrameTimes:
    """`translator` must be fresh, and loaded without warm-up: its first frame is one of the results."""
    outs = [np.empty_like(frame) for frame in frames]
    turns = itertools.cycle(zip(frames, outs, strict=True))
    translator(*next(turns))
    first = translator.stats().first_frame_ms or 0.0
    warm_up(lambda: translator(*next(turns)), settings)
    translator.stats(reset=True)
    runs = repeat(lambda: translator(*next(turns)), settings)
    stages = translator.stats(reset=True)
    return FrameTimes(runs, stages, first, _throughput(translator, frames, settings))


def _throughput(translator: Translator, frames: Sequence[Frame], settings: Settings) -> float:
    """Frames per second when the caller always has more to do."""
    batch, depth = translator.engine.manifest.batch, 2 * translator.info.streams
    turns = itertools.cycle(frames)
    done = 0
    begin = time.perf_counter()
    pending: deque[Any] = deque()
    while done < settings.iterations or time.perf_counter() - begin < settings.duration:
        if batch > 1:
            done += len(translator.translate(list(itertools.islice(turns, batch))))
            continue
        pending.append(translator.submit(next(turns)))
        if len(pending) >= depth:
            pending.popleft().result()
            done += 1
    elapsed = time.perf_counter() - begin  # those still in flight are not counted
    for future in pending:
        future.result()
    return done / elapsed


def rss_mb() -> float | None:
    """This process's resident memory now; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def compare(contestants: Mapping[str, Callable[[], Any]], settings: Settings) -> dict[str, NDArray[np.float64]]:
    """Let the contestants take turns until each has had its time; milliseconds of every run, (n,) each.

    A busy moment hits all of them, and none always follows the same other one: each round has its own order. Between
    two turns there is a pause, and the first run of each is not counted: it finds another's data in the caches, and
    another's threads still spinning. A run that fills its turn alone is counted: what it finds does not matter to it.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    spent = dict.fromkeys(contestants, 0.0)
    order, random = list(contestants), Random(0)
    for once in contestants.values():
        once()
    while any(len(times[name]) < settings.iterations or spent[name] < settings.duration for name in contestants):
        random.shuffle(order)
        for name in order:
            once = contestants[name]
            time.sleep(_PAUSE)
            first = time.perf_counter()
            once()
            begin = start = time.perf_counter()
            if begin - first >= _TURN:
                times[name].append((begin - first) * 1e3)
                spent[name] += begin - first
                continue
            while start - begin < _TURN:
                once()
                end = time.perf_counter()
                times[name].append((end - start) * 1e3)
                start = end
            spent[name] += start - begin
    return {name: np.array(values) for name, values in times.items()}
