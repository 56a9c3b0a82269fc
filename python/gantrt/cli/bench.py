"""How fast an engine is: trtexec's lines by trtexec's rules, and apart from them what an application feels."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_path
from ..errors import DeviceUnavailable, EngineMismatch, GateFailed, UnsupportedInput, UsageError
from ..gates import Gate, parse_gates

if TYPE_CHECKING:
    from ..measure import EngineTimes, FrameTimes
    from ..timing import Summary
    from ..translator import Translator

HELP = "measure an engine: latency percentiles, throughput, and the time of whole frames"

_FRAMES_KEPT = 32  # of a source; more would measure the memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", required=True, metavar="FILE", help=".onnx or .plan")
    parser.add_argument(
        "--against",
        metavar="LIST",
        default="",
        help=f"also time what a user would write with these, taking turns: {', '.join(_PEERS)}",
    )
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
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="'p99>12ms'",
        help="exit with 6 if so: p50, p90, p95, p99, mean, median, min, max, fps of frames; engine.p99: of the network",
    )


def run(args: argparse.Namespace) -> int:
    gates = parse_gates(args.fail_if)
    peers = _peers(args.against)
    if args.plot:
        _require_matplotlib()

    from .. import measure
    from ..translator import load

    settings = measure.Settings(args.warmup_ms, args.duration, args.iterations)
    options: dict[str, Any] = {name: getattr(args, name) for name in ("device", "runtime", "precision", "threads")}
    with load(args.engine, size=args.size, fit=args.fit, streams=args.streams, warmup=0, **options) as translator:
        frames = _frames(args, translator.engine.manifest.input.channels)
        frame = measure.measure_frames(translator, frames, settings)  # first: nothing is warm yet
        x = measure.network_input(translator, frames[0])
        engine = measure.measure_engine(translator, x, settings)
        shown = {name: value for name, value in vars(args).items() if name not in _NOT_SETTINGS}
        shown |= {"frame_size": frames[0].shape[:2], "network_size": x.shape[2:], "frames": len(frames)}
        report = measure.report(translator, engine, frame, shown)
        if peers:
            report["against"] = _against(translator, x, peers, args.threads, settings)

    if args.json == "-":
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(_lines(report, engine, frame)))
    if args.json and args.json != "-":
        _write_json(args.json, report)
    if args.export_times:
        _write_json(args.export_times, measure.trace(engine))
    if args.plot:
        _plot(args.plot, report, frame)
    _check(gates, engine, frame)
    return 0


_NOT_SETTINGS = {"_run", "verbose", "quiet", "json", "plot", "export_times", "engine", "frame_size"}


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or 0 in (size := (int(match[1]), int(match[2]))):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, as in 256x256")
    return size


def _frames(args: argparse.Namespace, channels: int) -> list[Any]:
    """What is translated, kept in memory: decoding is not what is measured."""
    import itertools

    import cv2
    import numpy as np

    if args.source != "synth":
        from ..video import open_source

        with open_source(args.source) as source:
            frames = [frame.image for frame in itertools.islice(source, _FRAMES_KEPT)]
        if not frames:
            raise UnsupportedInput(f"{args.source}: holds no frame")
        return frames
    # Smooth pictures: pure noise is what neither a camera nor a resize ever sees.
    height, width = args.frame_size
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (4, max(height // 32, 1), max(width // 32, 1), 3), np.uint8)
    return [cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC) for picture in coarse]


# What a user of each library would write. Each takes the model's bytes, an input, and the number of threads.


def _peer_onnxruntime(model: bytes, x: Any, threads: int | None) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def _peer_openvino(model: bytes, x: Any, threads: int | None) -> Callable[[], Any]:
    return _openvino(model, x, threads, {})


def _peer_openvino_fp32(model: bytes, x: Any, threads: int | None) -> Callable[[], Any]:
    return _openvino(model, x, threads, {"INFERENCE_PRECISION_HINT": "f32"})


def _openvino(model: bytes, x: Any, threads: int | None, settings: dict[str, Any]) -> Callable[[], Any]:
    from ..engines.openvino import core

    if threads is not None:
        settings = settings | {"INFERENCE_NUM_THREADS": threads}
    network = core().read_model(model)
    if network.is_dynamic():
        network.reshape(list(x.shape))
    compiled = core().compile_model(network, "CPU", settings)
    return lambda: compiled(x)[0]


_PEERS = {"onnxruntime": _peer_onnxruntime, "openvino": _peer_openvino, "openvino-fp32": _peer_openvino_fp32}


def _peers(text: str) -> list[str]:
    """The names in a comma-separated list, each known and installed."""
    from ..engines import load_engine

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name == "torch":
            raise UsageError(
                "--against torch: an .onnx holds no network of torch's; bench/engines.py times each family's in torch"
            )
        if name not in _PEERS:
            raise UsageError(f"--against {name}: there are {', '.join(_PEERS)}")
        if missing := load_engine(name.partition("-")[0]).missing():
            raise DeviceUnavailable(f"--against {name}: {missing}")
    return names


def _against(
    translator: Translator, x: Any, names: Sequence[str], threads: int | None, settings: Any
) -> dict[str, dict[str, Any]]:
    """Per contestant, ours among them: its times, their ratio to ours, and how far its pictures differ from ours."""
    import numpy as np

    from ..engine_file import inlined
    from ..engines import output_like
    from ..measure import compare

    model = inlined(translator.info.path)
    y = output_like(translator.engine.manifest, x)
    contestants: dict[str, Callable[[], Any]] = {"gantrt": lambda: translator.engine.run(x, y)}
    for name in names:
        try:
            contestants[name] = _PEERS[name](model, x, threads)
            contestants[name]()
        except Exception as error:  # whatever another library says when it does not run this network
            gist = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise EngineMismatch(f"--against {name}: it does not run {translator.info.path} ({gist})") from error
    times = compare(contestants, settings)
    ours = times["gantrt"].median
    return {
        name: {
            "latency": times[name].to_json(),
            "times_ours": times[name].median / ours,
            "max_abs_difference": 0.0 if name == "gantrt" else float(np.abs(once() - y).max()),
        }
        for name, once in contestants.items()
    }


def _lines(report: dict[str, Any], engine: EngineTimes, frame: FrameTimes) -> list[str]:
    """The report as text: trtexec's names and order, then the frame's."""
    built, settings = report["engine"], report["settings"]
    frame_size, network_size = ("x".join(map(str, settings[key])) for key in ("frame_size", "network_size"))
    device = "GPU" if built["device"] == "cuda" else "CPU"
    compute = engine.compute
    lines = [
        f"=== Engine: the network alone, {network_size}, batch {engine.batch}, {built['precision']} {built['runtime']}",
        f"Throughput: {engine.throughput:.6g} qps",
        f"Latency: {_trtexec(compute)}",
        f"Enqueue Time: n/a ({built['device']})",
        f"H2D Latency: n/a ({built['device']})",
        f"{device} Compute Time: {_trtexec(compute)}",
        f"D2H Latency: n/a ({built['device']})",
        f"Total Host Walltime: {engine.walltime:.6g} s",
        f"Total {device} Compute Time: {compute.mean * compute.n / 1e3:.6g} s",
        f"=== Frame: what an application feels, {frame_size} in and out",
        f"{'':12}{'median':>10}{'p90':>10}{'p95':>10}{'p99':>10}  ms",
    ]
    stages = frame.stages
    rows = {"end to end": frame.e2e, "  pre": stages.pre, "  engine": stages.engine, "  post": stages.post}
    lines += [f"{name:12}{_columns(summary)}" for name, summary in rows.items()]
    lines += [
        f"Jitter: {frame.jitter_ms:.4g} ms    First frame: {frame.first_frame_ms:.4g} ms    "
        f"Load: {frame.load_ms:.4g} ms",
        f"Throughput: {frame.fps:.6g} fps",
    ]
    if "against" in report:
        lines += [
            "=== Against: the network alone, taking turns",
            f"{'':16}{'median ms':>10}{'ours = 1':>10}{'differs':>12}",
        ]
        lines += [
            f"{name:16}{entry['latency']['median']:10.4g}{entry['times_ours']:10.3f}{entry['max_abs_difference']:12.2e}"
            for name, entry in report["against"].items()
        ]
    return lines + [f"warning: {text}" for text in report["warnings"]]


def _trtexec(summary: Summary) -> str:
    parts = [f"{name} = {getattr(summary, name):.6g} ms" for name in ("min", "max", "mean", "median")]
    parts += [f"percentile({rank}%) = {getattr(summary, f'p{rank}'):.6g} ms" for rank in (90, 95, 99)]
    return ", ".join(parts)


def _columns(summary: Summary) -> str:
    return "".join(f"{value:10.4g}" for value in (summary.median, summary.p90, summary.p95, summary.p99))


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


def _plot(path: str, report: dict[str, Any], frame: FrameTimes) -> None:
    """Left: every frame's time in the order they came. Right: the share of frames at most that slow."""
    import numpy as np
    from matplotlib.figure import Figure

    times = frame.runs[:, 1] - frame.runs[:, 0]
    figure = Figure(figsize=(10, 4), layout="constrained")
    order, share = figure.subplots(1, 2, sharey=True)
    order.plot(times, ".", markersize=3)
    order.set(xlabel="frame", ylabel="end to end, ms", ylim=(0, None))
    share.plot(np.arange(1, len(times) + 1) / len(times) * 100, np.sort(times))
    for rank in (50, 90, 95, 99):
        value = getattr(frame.e2e, f"p{rank}")
        share.plot(rank, value, "o", color="tab:red", markersize=4)
        share.annotate(f"p{rank} {value:.3g}", (rank, value), textcoords="offset points", xytext=(-4, 6), ha="right")
    share.set(xlabel="% of frames")
    engine = report["engine"]
    figure.suptitle(
        f"{Path(engine['path']).name}, {engine['precision']}, {engine['runtime']}, {report['environment']['cpu']}"
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
