"""What a clip costs beyond its network: decoding, pixels, encoding, and how much of it happens at the same time.

    python bench/video.py [--clip FILE] [--rounds 5] [--frames 150] [--soak 20000]

A DiscoGAN generator of 64x64 with random weights translates a 720p clip. In every round each part is timed alone and
the whole pipeline twice, in turn, so that what else the machine does hits all alike; medians over the rounds, in
milliseconds a frame: of the wall, and of processor time (all threads). --soak translates so many frames in one go and
watches the memory. Writes bench/results/video_cpu.json.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import gantrt
import numpy as np
import torch
from gantrt import _core
from gantrt.translator import Translator
from gantrt.video import First, Frame, SinkOptions, open_sink, open_source
from gantrt_training.export import export_generator
from gantrt_training.family import load_family
from gantrt_training.tracing import Source

RESULTS = Path(__file__).resolve().parent / "results" / "video_cpu.json"
SIZE, RATE, SECONDS = (720, 1280), 30, 10


@dataclass(frozen=True)
class Cost:
    """Of one frame, in milliseconds."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clip", type=Path, help="a clip of your own (default: ten seconds of 720p made here)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=150, help="of each part in each round")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="frames of the memory test (0: none)")
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = args.clip or make_clip(folder / "clip.mp4")
        with gantrt.load(make_engine(folder / "discogan.onnx")) as translator:
            costs = measure(translator, clip, folder, args.rounds, args.frames)
            whole = ten_seconds(translator, clip, folder)
            soak = memory(translator, folder, args.soak) if args.soak else None
            engine = str(translator.info)
    report = {
        "what": "milliseconds a frame of a 720p clip: wall, and processor time of all threads; medians over the rounds",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine(),
        "engine": engine,
        "clip": str(args.clip.name)
        if args.clip
        else f"testsrc2 with noise, {SIZE[1]}x{SIZE[0]}, {RATE}/s, {SECONDS} s",
        "rounds": args.rounds,
        "frames": args.frames,
        "parts": {part: {"wall_ms": round(c.wall, 3), "cpu_ms": round(c.cpu, 3)} for part, c in costs.items()},
        "derived": derived(costs),
        "ten_seconds": whole,
    } | ({"soak": soak} if soak else {})
    if soak is None and args.json.exists():  # the long one is kept from the last time it was asked for
        kept = json.loads(args.json.read_text()).get("soak")
        report |= {"soak": kept} if kept else {}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    for part, cost in costs.items():
        print(f"{part:<34} {cost.wall:8.2f} ms wall {cost.cpu:8.2f} ms processor")
    for key in ("derived", "ten_seconds", "soak"):
        for name, value in report.get(key, {}).items():
            print(f"{name:<34} {value}")
    print(args.json)


def make_engine(path: Path, name: str = "discogan") -> Path:
    """A generator of random weights, at its paper's size."""
    torch.manual_seed(0)
    family = load_family(name)
    config = family.Config(**({"bottleneck": 100} if name == "discogan" else {}))
    generator = family.build(config)[family.generators["a2b"]].eval()
    export_generator(Source(family, config, generator, norm_mode=family.norm_mode(config)), path)
    return path


def make_clip(path: Path) -> Path:
    """Moving shapes with the noise of a camera, as H.264 of usual quality."""
    graph = f"testsrc2=size={SIZE[1]}x{SIZE[0]}:rate={RATE}:duration={SECONDS},noise=alls=4:allf=t,format=yuv420p"
    with av.open(graph, format="lavfi") as made, av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "23", "preset": "veryfast"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in made.decode(video=0):
            frame.pict_type = 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def measure(translator: Translator, clip: Path, folder: Path, rounds: int, frames: int) -> dict[str, Cost]:
    with open_source(clip) as source:
        images = [frame.image for frame in First(source, 32)]
    out = np.empty_like(images[0])
    spec = translator.engine.manifest.input
    x = np.random.default_rng(0).uniform(-1, 1, (1, spec.channels, spec.height, spec.width)).astype(np.float32)
    y = np.empty_like(x)

    def network() -> None:
        for _ in range(frames):
            translator.engine.run(x, y)

    def frame_to_frame() -> None:
        for image in itertools.islice(itertools.cycle(images), frames):
            translator(image, out)

    def decode() -> None:
        with open_source(clip) as source:
            for _ in First(source, frames):
                pass

    def encode() -> None:
        with open_source(clip) as source:
            sink = open_sink(folder / "encoded.mp4", source, SinkOptions(overwrite=True, audio=False))
            for index, image in enumerate(itertools.islice(itertools.cycle(images), frames)):
                sink.write(Frame(image, index, index, Fraction(1, RATE), 1))
            sink.close()

    def to_null() -> None:
        with open_source(clip) as source:
            for _ in translator.stream(First(source, frames)):
                pass

    def to_file() -> None:
        with open_source(clip) as source:
            sink = open_sink(folder / "translated.mp4", source, SinkOptions(overwrite=True))
            for item in translator.stream(First(source, frames)):
                sink.write(item)
            sink.close(complete=False)

    parts: dict[str, Callable[[], None]] = {
        "network alone": network,
        "frame to frame": frame_to_frame,
        "decode to RGB alone": decode,
        "encode H.264 alone": encode,
        "pipeline to null:": to_null,
        "pipeline to .mp4": to_file,
    }
    for work in parts.values():
        work()
    times: dict[str, list[Cost]] = {part: [] for part in parts}
    for _ in range(rounds):
        for part, work in parts.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            times[part].append(Cost(wall / frames * 1e3, cpu / frames * 1e3))
    return {
        part: Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))
        for part, costs in times.items()
    }


def derived(costs: dict[str, Cost]) -> dict[str, float]:
    network, frame = costs["network alone"], costs["frame to frame"]
    decode, encode = costs["decode to RGB alone"], costs["encode H.264 alone"]
    null, file = costs["pipeline to null:"], costs["pipeline to .mp4"]
    cores = len(os.sched_getaffinity(0))
    work = frame.cpu + decode.cpu + encode.cpu
    numbers = {
        # What a frame costs over its network, in percent of the network.
        "frame_to_frame_over_network_%": 100 * (frame.wall / network.wall - 1),
        "null_over_network_%": 100 * (null.wall / network.wall - 1),
        "mp4_over_network_%": 100 * (file.wall / network.wall - 1),
        # One after the other the parts would take this many times as long as the pipeline does.
        "overlap_null": (decode.wall + frame.wall) / null.wall,
        "overlap_mp4": (decode.wall + frame.wall + encode.wall) / file.wall,
        # What the pipeline itself adds: its wall over the work of its parts spread on all cores without a gap.
        "mp4_over_the_work_of_its_parts_%": 100 * (file.wall / (work / cores) - 1),
        "cores_busy_mp4": file.cpu / file.wall,
    }
    return {key: round(value, 2) for key, value in numbers.items()}


def ten_seconds(translator: Translator, clip: Path, folder: Path) -> dict[str, float]:
    """The whole clip, from opening it to the finished file."""
    begin = time.perf_counter()
    with open_source(clip) as source:
        sink = open_sink(folder / "whole.mp4", source, SinkOptions(overwrite=True))
        seconds = 0.0
        for item in translator.stream(source):
            sink.write(item)
            seconds = (item.seconds or 0.0) + float((item.duration or 0) * (item.time_base or 0))
        sink.close()
    took = time.perf_counter() - begin
    return {
        "clip_seconds": round(seconds, 3),
        "took_seconds": round(took, 3),
        "times_real_time": round(seconds / took, 2),
    }


def memory(translator: Translator, folder: Path, count: int) -> dict[str, Any]:
    """Resident memory while `count` frames of 640x360 are read, translated and written."""
    clip = folder / "soak.mp4"
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        image = np.zeros((360, 640, 3), np.uint8)
        for index in range(count):
            image[:, :, index % 3] = index % 251
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    megabytes: list[float] = []
    begin = time.perf_counter()
    with open_source(clip) as source:
        sink = open_sink(folder / "soaked.mp4", source, SinkOptions(overwrite=True))
        for done, item in enumerate(translator.stream(source), 1):
            sink.write(item)
            if done % max(1, count // 20) == 0:
                gc.collect()
                megabytes.append(round(resident(), 1))
        sink.close()
    with open_source(folder / "soaked.mp4") as written:
        frames = written.frames
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "frames": count,
        "written": frames,
        "seconds": round(time.perf_counter() - begin, 1),
        "resident_mb": megabytes,
        "growth_after_the_first_tenth_mb": round(megabytes[-1] - megabytes[1], 1),
    }


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def machine() -> dict[str, Any]:
    return {
        "cpu": next(cpu_names(), platform.processor()),
        "features": _core.cpu_features(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "pyav": av.__version__,
        "gantrt": gantrt.__version__,
    }


def cpu_names() -> Iterator[str]:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        if line.startswith("model name"):
            yield line.partition(":")[2].strip()


if __name__ == "__main__":
    main()
