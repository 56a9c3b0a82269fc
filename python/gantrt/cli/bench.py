"""How fast an engine is: trtexec's lines by trtexec's rules, and apart from them what an application feels."""

from __future__ import annotations

import argparse
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_path
from ..errors import DeviceUnavailable, GateFailed, UnsupportedInput, UsageError
from ..gates import Gate, parse_gates
from .translate import add_trust

if TYPE_CHECKING:
    from ..measure import EngineTimes, FrameTimes, Settings, Source
    from ..translator import Translator

HELP = "measure an engine: latency percentiles, throughput, and the time of whole frames"

_FRAMES_KEPT = 32  # of a source; more would measure the memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", required=True, metavar="FILE", help=".onnx or .plan")
    add_trust(parser)
    parser.add_argument(
        "--against",
        metavar="LIST",
        default="",
        help="also time what a user would write with these, taking turns: onnxruntime, openvino, openvino-fp32, and "
        "with --run torch, torch-bf16, torch-compile",
    )
    parser.add_argument("--run", metavar="RUN", help="the RUN folder or checkpoint the engine is from, for torch")
    parser.add_argument("--source", default="synth", metavar="S", help="synth, a video, or a picture (default: synth)")
    parser.add_argument(
        "--frame-size", type=_size, default=(1080, 1920), metavar="HxW", help="of synth frames (default: 1080x1920)"
    )
    parser.add_argument("--size", type=_size, metavar="HxW", help="what a --dynamic engine runs at")
    parser.add_argument("--fit", default="resize", choices=["resize", "pad"])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--runtime", help="openvino, onnxruntime, ... (default: the best for file and device)")
    parser.add_argument("--precision", help="fp32 forces full precision (default: the runtime's choice)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the runtime's choice)")
    parser.add_argument("--streams", type=int, default=1, help="frames translated at once (default: 1)")
    parser.add_argument("--warmup-ms", type=float, default=200.0, help="not measured (default: 200)")
    parser.add_argument("--duration", type=float, default=3.0, help="seconds per block, at least (default: 3)")
    parser.add_argument("--iterations", type=int, default=10, help="runs per block, at least (default: 10)")
    parser.add_argument("--json", metavar="FILE", help="write the whole report; - prints it instead of the lines")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the times of all frames and their percentiles")
    parser.add_argument("--export-times", metavar="FILE", help="every run of the network, with trtexec's keys, as JSON")
    parser.add_argument("--baseline", metavar="FILE", help="an earlier --json; exit with 6 if this one is slower")
    parser.add_argument("--tolerance", type=_share, default=0.05, metavar="5%%", help="by more than so much (5%%)")
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="'p99>12ms'",
        help="exit with 6 if so: p50, p90, p95, p99, mean, median, min, max, fps of frames; engine.p99: of the network",
    )


def run(args: argparse.Namespace) -> int:
    gates = parse_gates(args.fail_if)

    from .. import baseline, measure
    from ..bench_report import report, trace
    from ..bench_text import report_lines
    from ..peers import TORCH, peer_names

    peers = peer_names(args.against)
    if args.run is None and (asked := [name for name in peers if name in TORCH]):
        raise UsageError(f"--against {asked[0]}: an engine holds no network of torch's; give its RUN with --run")
    before = baseline.read_baseline(args.baseline) if args.baseline else None
    if args.plot:
        _require_matplotlib()
    settings = measure.Settings(args.warmup_ms, args.duration, args.iterations)
    rss_before = measure.rss_mb()
    with _load(args) as translator:
        frames, source = _frames(args, translator.engine.manifest.input.channels)
        frame = measure.measure_frames(translator, frames, settings)  # first: nothing is warm yet
        rss_loaded = measure.rss_mb()
        torch = _torch(args, translator, peers)  # after the memory was looked at: torch takes some itself
        x = measure.network_input(translator, frames[0])
        engine = measure.measure_engine(translator, x, settings)
        again_ms = _load_again(args) if translator.info.device == "cpu" else None
        start = measure.Start(translator.load_ms, translator.engine.from_cache, again_ms, rss_before, rss_loaded)
        shown = {name: value for name, value in vars(args).items() if name not in _NOT_SETTINGS}
        shown |= {"frame_size": frames[0].shape[:2], "network_size": x.shape[2:], "frames": len(frames)}
        found = report(translator, engine, frame, start, source, shown)
        if peers:
            found["against"] = _against(translator, x, peers, torch, args.threads, settings)

    if args.json == "-":
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(report_lines(found, engine, frame)))
    if args.json and args.json != "-":
        _write_json(args.json, found)
    if args.export_times:
        _write_json(args.export_times, trace(engine))
    if args.plot:
        from ..bench_plot import plot_frames

        plot_frames(args.plot, found, frame)
    _check(gates, engine, frame)
    if before and (worse := baseline.slower(found, before, args.tolerance)):
        raise GateFailed(f"bench: slower than {args.baseline}: {'; '.join(worse)}")
    return 0


_NOT_SETTINGS = {"_run", "verbose", "quiet", "json", "plot", "export_times", "engine", "frame_size"}


def _load(args: argparse.Namespace) -> Translator:
    """Without warm-up: what the first frame costs is one of the results."""
    from ..translator import load

    options: dict[str, Any] = {
        name: getattr(args, name) for name in ("device", "runtime", "precision", "threads", "trust")
    }
    return load(args.engine, size=args.size, fit=args.fit, streams=args.streams, warmup=0, **options)


def _load_again(args: argparse.Namespace) -> float | None:
    """Milliseconds of a second start, which finds the model compiled; None where nothing is kept."""
    log = logging.getLogger("gantrt")
    level = log.level
    log.setLevel(logging.WARNING)  # it would say once more what it loads
    try:
        with _load(args) as again:
            return again.load_ms if again.engine.from_cache else None
    finally:
        log.setLevel(level)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or 0 in (size := (int(match[1]), int(match[2]))):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, as in 256x256")
    return size


def _share(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write a percentage, as in 5%")
    return float(match[1]) / 100


def _frames(args: argparse.Namespace, channels: int) -> tuple[list[Any], Source]:
    """What is translated, kept in memory, decoded before: its time is told apart."""
    import cv2
    import numpy as np

    from ..measure import Source
    from ..timing import Summary

    if args.source != "synth":
        from ..video import open_source

        frames: list[Any] = []
        decode: list[float] = []
        with open_source(args.source) as source:
            pictures = iter(source)
            while len(frames) < _FRAMES_KEPT:
                begin = time.perf_counter()
                frame = next(pictures, None)
                if frame is None:
                    break
                decode.append((time.perf_counter() - begin) * 1e3)
                frames.append(frame.image)
            rate = float(source.rate) if source.rate and len(frames) > 1 else None
        if not frames:
            raise UnsupportedInput(f"{args.source}: holds no frame")
        return frames, Source(rate, Summary.of(decode))
    # Smooth pictures: pure noise is what neither a camera nor a resize ever sees.
    height, width = args.frame_size
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (4, max(height // 32, 1), max(width // 32, 1), 3), np.uint8)
    return [cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC) for picture in coarse], Source()


def _torch(args: argparse.Namespace, translator: Translator, names: Sequence[str]) -> Callable[..., Any] | None:
    """What makes torch's contestants, from the checkpoint the engine was exported from; None if none is asked for."""
    from ..peers import TORCH

    asked = [name for name in names if name in TORCH]
    if not asked:
        return None
    try:
        from gantrt_training.peers import network_of, torch_peer
    except ImportError as error:
        raise DeviceUnavailable(f"--against {asked[0]}: {error}; pip install 'gantrt[train]'") from error
    network = network_of(args.run, translator.engine.manifest)
    return lambda name, x: torch_peer(name, network, x, args.threads)


def _against(
    translator: Translator,
    x: Any,
    names: Sequence[str],
    torch: Callable[..., Any] | None,
    threads: int | None,
    settings: Settings,
) -> dict[str, dict[str, Any]]:
    """Per contestant, ours among them: its times, their ratio to ours, and how far its pictures differ from ours."""
    import numpy as np

    from ..engines import output_like
    from ..measure import compare
    from ..peers import PEERS, started
    from ..timing import Summary

    path, y = translator.info.path, output_like(translator.engine.manifest, x)

    def make(name: str) -> Any:
        return PEERS[name](path, x, threads) if name in PEERS else torch and torch(name, x)

    contestants: dict[str, Callable[[], Any]] = {"gantrt": lambda: translator.engine.run(x, y)}
    for name in names:
        contestants[name] = started(name, path, partial(make, name))
    times = {name: Summary.of(values) for name, values in compare(contestants, settings).items()}
    ours = times["gantrt"].median
    return {
        name: {
            "latency": times[name].to_json(),
            "times_ours": times[name].median / ours,
            "max_abs_difference": 0.0 if name == "gantrt" else float(np.abs(once() - y).max()),
        }
        for name, once in contestants.items()
    }


def _check(gates: Sequence[Gate], engine: EngineTimes, frame: FrameTimes) -> None:
    import dataclasses

    measured = {
        "frame": dataclasses.asdict(frame.e2e) | {"fps": frame.fps},
        "engine": dataclasses.asdict(engine.compute) | {"fps": engine.throughput},
    }
    tripped = [
        f"{gate.text} ({measured[gate.block][gate.metric]:.4g}{' fps' if gate.metric == 'fps' else ' ms'})"
        for gate in gates
        if gate.trips(measured)
    ]
    if tripped:
        raise GateFailed(f"bench: failed, as asked for: {', '.join(tripped)}")


def _write_json(path: str, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _require_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise DeviceUnavailable("--plot: matplotlib is not installed; pip install 'gantrt[bench]'")
