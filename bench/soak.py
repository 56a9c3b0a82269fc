"""Does anything grow, mix or get stuck when it runs for long?

    python bench/soak.py [--frames 70000] [--cycles 1000] [--submits 1000] [-o FILE.json]

Three questions, each in a process of its own, with networks of a few operations:

stream   --frames frames of a clip through `Translator.stream` into an .mkv, as `gantrt translate` does it: resident
         set and file handles every hundredth of the way. Each frame's grey says which it is; it is looked at on its
         way out and, for all, in the file. The first 33,000 fill the Translator's ring of measurements. An .mp4
         would grow: its muxer keeps the index, some hundred bytes a frame, until the file is closed.
cycles   --cycles times load, translate, close, of OpenVINO and of ONNX Runtime: resident set, threads and handles.
threads  8 threads submit --submits random frames each, of three sizes, to one Translator of two streams; every answer
         is compared with the frame it belongs to, by checksum.

Flat means: over the second half the line of least squares rises by less than GROWTH, in MB over that whole half, and
there are no more handles or threads at the end than in the middle. Ends with exit code 6 if something grew or was
mixed.

Writes bench/results/soak.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GANTRT_CACHE"] = "off"

import gantrt
import numpy as np
from gantrt.video import Frame, SinkOptions, open_sink, open_source
from machine import machine

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
import clips  # noqa: E402
import tiny_networks  # noqa: E402

GROWTH = 4.0  # MB over the second half: what an allocator's noise is
POINTS = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=70_000)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--submits", type=int, default=1000, help="of each of the 8 threads")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "soak.json")
    options = parser.parse_args()
    here = machine()
    found = {
        "stream": alone(stream, options.frames),
        "cycles of openvino": alone(cycles, options.cycles, "openvino"),
        "cycles of onnxruntime": alone(cycles, options.cycles, "onnxruntime"),
        "threads": alone(threads, options.submits),
    }
    report = {
        "what": "memory, handles and threads over long runs, and whose answer each caller gets",
        "command": " ".join(["python", "bench/soak.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": here,
        "growth_allowed_mb": GROWTH,
        **found,
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0 if all(part["sound"] for part in found.values()) else 6


def alone(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        begin = time.perf_counter()
        result = pool.apply(work, args)
        return result | {"seconds": round(time.perf_counter() - begin, 1)}


class Watch:
    """What this process holds: MB of resident set, open files, threads."""

    def __init__(self, total: int) -> None:
        self._every = max(1, total // POINTS)
        self.samples: list[tuple[int, float, int, int]] = []

    def at(self, index: int) -> None:
        if index % self._every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            open_files, tasks = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
            self.samples.append((index, pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), open_files, tasks))

    def report(self) -> dict[str, Any]:
        half = np.array(self.samples[len(self.samples) // 2 :])
        slope = float(np.polyfit(half[:, 0], half[:, 1], 1)[0])
        growth = slope * (half[-1, 0] - half[0, 0])
        first, last = half[: len(half) // 2].max(axis=0), half[len(half) // 2 :].max(axis=0)
        return {
            "memory_mb": {
                "first": round(self.samples[0][1], 1),
                "middle": round(float(half[0, 1]), 1),
                "last": round(float(half[-1, 1]), 1),
                "growth_over_second_half": round(growth, 3),
            },
            "open_files": [int(self.samples[0][2]), int(half[-1, 2])],
            "threads": [int(self.samples[0][3]), int(half[-1, 3])],
            "sound": bool(growth < GROWTH and last[2] <= first[2] and last[3] <= first[3]),
        }


class Greys:
    """A FrameSource of grey frames, each with the grey of its number."""

    frames_estimated, rate, time_base = False, Fraction(25), Fraction(1, 25)

    def __init__(self, frames: int, height: int = 96, width: int = 128) -> None:
        self.frames, self.height, self.width = frames, height, width

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            yield Frame(clips.grey(index, (self.height, self.width)), index, index, self.time_base, 1)

    def close(self) -> None: ...

    def __enter__(self) -> Greys:
        return self

    def __exit__(self, *_: object) -> None: ...


def stream(frames: int) -> dict[str, Any]:
    """A clip of so many frames, made first, is read, translated and written."""
    wrong, count, watch = 0, 0, Watch(frames)
    with tempfile.TemporaryDirectory() as folder:
        engine = tiny_networks.write_pointwise(Path(folder) / "negative.onnx", -1.0, dynamic=True)
        source, target = Path(folder) / "in.mp4", Path(folder) / "out.mkv"
        greys = Greys(frames)
        made = open_sink(source, greys)
        for frame in greys:
            made.write(frame)
        made.close()
        loaded = gantrt.load(engine, device="cpu", precision="fp32", streams=2)
        with loaded as translator, open_source(source) as opened:
            sink = open_sink(target, opened, SinkOptions(overwrite=True))
            for item in translator.stream(opened):
                watch.at(item.index)
                wrong += abs(255 - clips.level(item.index) - float(item.image.mean())) > 3
                wrong += item.index != count
                sink.write(item)
                count += 1
            sink.close()
        read_back = 0
        with open_source(target) as opened:
            for frame in opened:
                wrong += abs(255 - clips.level(frame.index) - float(frame.image.mean())) > 4
                read_back += 1
    report = watch.report()
    sound = report["sound"] and not wrong and count == read_back == frames
    return {"frames": count, "in_the_file": read_back, "wrong": wrong, **report, "sound": bool(sound)}


def cycles(count: int, runtime: str) -> dict[str, Any]:
    watch, frame, wrong = Watch(count), np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8), 0
    with tempfile.TemporaryDirectory() as folder:
        engine = tiny_networks.write_pointwise(Path(folder) / "negative.onnx", -1.0, size=(64, 64))
        for index in range(count):
            with gantrt.load(engine, device="cpu", precision="fp32", runtime=runtime) as translator:
                wrong += int((translator.submit(frame).result() != 255 - frame).any())
            settle()
            watch.at(index)
    report = watch.report()
    return {"cycles": count, "wrong": wrong, **report, "sound": bool(report["sound"] and not wrong)}


def settle() -> None:
    """A thread that has been joined is the system's for a moment longer."""
    deadline = time.monotonic() + 0.05
    while len(os.listdir("/proc/self/task")) > threading.active_count() and time.monotonic() < deadline:
        time.sleep(0.0005)


def threads(each: int) -> dict[str, Any]:
    """Answers compared by CRC-32 with the negative of the frame each caller sent."""
    sizes = [(16, 24), (33, 17), (64, 64)]
    watch, lock, done = Watch(8 * each), threading.Lock(), [0]
    with tempfile.TemporaryDirectory() as folder:
        engine = tiny_networks.write_pointwise(Path(folder) / "negative.onnx", -1.0, dynamic=True)
        with gantrt.load(engine, device="cpu", precision="fp32", streams=2) as translator:

            def caller(number: int) -> int:
                random, mixed = np.random.default_rng(number), 0
                for turn in range(each):
                    frame = random.integers(0, 256, (*sizes[(number + turn) % 3], 3), np.uint8)
                    wanted = zlib.crc32((255 - frame).tobytes())
                    mixed += zlib.crc32(translator.submit(frame).result().tobytes()) != wanted
                    with lock:
                        done[0] += 1
                        watch.at(done[0])
                return mixed

            with ThreadPoolExecutor(8) as pool:
                mixed = sum(pool.map(caller, range(8)))
            translated = translator.stats().frames
    report = watch.report()
    sound = report["sound"] and not mixed and translated == 8 * each
    return {"threads_that_submit": 8, "frames": translated, "mixed": mixed, **report, "sound": bool(sound)}


if __name__ == "__main__":
    sys.exit(main())
