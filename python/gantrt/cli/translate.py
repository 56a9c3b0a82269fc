"""gantrt translate: pictures, folders, clips and live sources through an engine."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutOfMemory, TruncatedInput, UnsupportedInput, UsageError
from ..interruption import uninterrupted
from ..progress import Progress

if TYPE_CHECKING:
    from ..streaming import Item
    from ..translator import Translator
    from ..video import FrameSink, FrameSource
    from ..video.live import Newest
    from ..video.plan import Job

HELP = "translate pictures, folders, clips and cameras"

log = logging.getLogger("gantrt")


_INPUT_HELP = (
    "picture, folder, glob, frames/%%05d.png or clip; or, alone, camera:N[,HxW][,FPS], rtsp://..., screen:, fake:CLIP "
    "(a clip as if it were a camera), or - for a y4m stream on stdin"
)
_OUTPUT_HELP = (
    "picture, clip (.mp4 .mov .mkv .webm), .gif, .apng, folder, frames/%%05d.png, window:, vcam:, - for a y4m stream "
    "on stdout, or null: to discard; a folder takes the frames of a single clip as pictures, and of everything else a "
    "translation under the same name"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=_INPUT_HELP)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help=_OUTPUT_HELP,
    )
    parser.add_argument("--engine", required=True, help="the engine file, .onnx or .plan")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    engine = parser.add_argument_group("engine")
    add_trust(engine)
    engine.add_argument("--device", default="auto", help="auto, cpu or cuda[:N] (default: auto)")
    engine.add_argument("--runtime", help="openvino, onnxruntime, ... (default: the best for file and device)")
    engine.add_argument("--precision", help="fp32, fp16, bf16, ... (default: the engine's choice)")
    engine.add_argument("--size", type=_size, metavar="HxW", help="size the network runs at, for a dynamic engine")
    engine.add_argument("--fit", default="resize", help="how a frame meets the network's size: resize, pad or tile")
    engine.add_argument(
        "--overlap", type=int, metavar="N", help="pixels that tiles share (default: a fourth of a tile)"
    )
    engine.add_argument("--streams", type=_positive, default=1, metavar="N", help="frames translated at once")
    clip = parser.add_argument_group("clips and live sources")
    clip.add_argument(
        "--codec",
        help="h264, hevc, vp9, av1; h264-hw, hevc-hw, av1-hw for this machine's hardware; or an encoder of FFmpeg "
        "(default: h264; vp9 in .webm)",
    )
    clip.add_argument("--crf", type=int, metavar="N", help="constant quality of the codec, lower is better")
    clip.add_argument("--pix-fmt", help="pixel format of the codec (default: yuv420p)")
    clip.add_argument("--no-audio", action="store_true", help="leave the sound out")
    clip.add_argument("--max-frames", type=_positive, metavar="N", help="stop after so many frames of each clip")
    clip.add_argument("--fps", type=_fps, metavar="RATE", help="of pictures that become a clip (default: 25)")
    clip.add_argument(
        "--temporal",
        type=_strength,
        default=0.0,
        metavar="A",
        help="smooth over time where the picture stands still, 0 (default: off) to below 1; 0.7 is a good start",
    )
    clip.add_argument(
        "--skip-still",
        type=_levels,
        nargs="?",
        const=2.0,
        metavar="LEVELS",
        help="do not translate a frame that differs from the last by no more than so many levels of 255 (2)",
    )


def add_trust(group: Any) -> None:
    """The option of every command that takes --engine."""
    group.add_argument(
        "--trust", action="store_true", help="run a .plan that gantrt did not make: it can do here what you can"
    )


def run(args: argparse.Namespace) -> int:
    import gantrt

    from ..video.plan import check_outputs, make_plan

    if args.json and args.output == "-":
        raise UsageError("--json and -o - both write to stdout; leave --json out")
    jobs = make_plan(args.inputs, args.output)
    check_outputs(jobs, overwrite=args.overwrite)
    with gantrt.load(
        args.engine,
        device=args.device,
        size=args.size,
        fit=args.fit,
        overlap=args.overlap,
        streams=args.streams,
        precision=args.precision,
        runtime=args.runtime,
        trust=args.trust,
    ) as translator:
        work = _Work(args, translator, several=len(jobs) > 1)
        begin = time.perf_counter()
        try:
            work.do(jobs)
        finally:
            if args.json:
                print(json.dumps(work.summary(time.perf_counter() - begin)), flush=True)
    if work.failures:
        raise UnsupportedInput(f"{len(work.failures)} of {len(jobs)} inputs failed: {', '.join(work.failures)}")
    return 0


class _Work:
    """The jobs of one command, one after the other, and what became of them."""

    def __init__(self, args: argparse.Namespace, translator: Translator, several: bool) -> None:
        from ..timing import Ring

        self._args, self._translator, self._several = args, translator, several
        self._progress = Progress(None, "frames", enabled=False)
        self._frames = 0
        self._live: Newest | None = None  # the source, where it is one
        self._ages = Ring(1)  # milliseconds from a live frame's capture to its way out
        self.failures: dict[str, str] = {}  # input -> why

    def do(self, jobs: Sequence[Job]) -> None:
        stills = [job for job in jobs if job.still]
        if stills:
            with self._show(Progress(len(stills), "pictures", enabled=self._shows)):
                self._pictures(stills)
        for job in jobs:
            if not job.still:
                with self._listed(job):
                    self._clip(job)

    def summary(self, seconds: float) -> dict[str, Any]:
        """Rates are over the whole command without loading; p50 and p95 are of the single frame, in milliseconds.

        network_busy  the share of that time for which the network ran, on average over its streams
        """
        stats, info = self._translator.stats(), self._translator.info
        total, runs = stats.total, stats.frames / info.manifest.batch
        busy = runs * stats.engine.mean / 1e3 / seconds / info.streams
        numbers = {"seconds": seconds, "fps": self._frames / seconds, "p50_ms": total.p50, "p95_ms": total.p95}
        numbers["network_busy"] = busy
        if self._live is not None:
            numbers["age_p95_ms"] = self._age_p95()
        return {
            "output": self._args.output,
            "frames": self._frames,
            **{key: None if math.isnan(value) else round(value, 3) for key, value in numbers.items()},
            **({} if self._live is None else {"dropped": self._live.dropped, "reconnected": self._live.reconnected}),
            "failed": self.failures,
        }

    @property
    def _shows(self) -> bool:
        return not (self._args.no_progress or self._args.quiet)

    def _clip(self, job: Job) -> None:
        """Frames from a source into a sink. Cut short by the input or the user, what was done is kept."""
        from ..streaming import live_source
        from ..video import First, SinkClosed, SinkOptions, open_sink

        args = self._args
        options = SinkOptions(args.overwrite, args.codec, args.crf, args.pix_fmt, not args.no_audio)
        done, left = 0, False
        # A frame cut short would spoil the file; a pipe whose reader sleeps must not keep us.
        whole = contextlib.nullcontext if isinstance(job.output, str) and not job.makes_frames else uninterrupted
        with _source(job, args.fps) as opened:
            source = First(opened, args.max_frames) if args.max_frames else opened
            self._live = live_source(opened)
            label = Path(job.inputs[0]).name if self._several else ""
            progress = Progress(source.frames, "frames", label=label, enabled=self._shows)
            sink = open_sink(job.output, opened, options)
            try:
                with self._show(progress), contextlib.closing(self._stream(source)) as items:
                    for item in items:
                        with whole():
                            sink.write(item)
                            done += 1
                        self._count(item)
            except SinkClosed:
                left = True
            except (TruncatedInput, KeyboardInterrupt) as error:
                if not done:
                    sink.abort()
                    raise
                _finish(sink, complete=False)
                kept = f"{done} frames are kept in {job.output}"
                if isinstance(error, TruncatedInput):
                    raise TruncatedInput(f"{error}; {kept}") from error
                log.warning("%s", kept)
                raise
            except BaseException:
                sink.abort()
                raise
            _finish(sink, complete=not left and done != args.max_frames)

    def _stream(self, source: FrameSource) -> Generator[Item, None, None]:
        temporal, skip_still = self._args.temporal, self._args.skip_still
        options = {"temporal": temporal, "skip_still": skip_still} if temporal or skip_still is not None else {}
        yield from self._translator.stream(source, **options)

    def _pictures(self, jobs: Sequence[Job]) -> None:
        import cv2

        from ..stills import translated_stills

        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it would say is in our one line
        with contextlib.closing(translated_stills(self._translator, jobs, overwrite=self._args.overwrite)) as outcomes:
            for job, outcome in outcomes:
                with self._listed(job):
                    outcome.result()
                    self._count()

    @contextlib.contextmanager
    def _listed(self, job: Job) -> Iterator[None]:
        """Where there are several inputs, one that is at fault does not stop the others."""
        try:
            yield
        except (UnsupportedInput, UsageError, OutOfMemory, MemoryError) as error:
            error = OutOfMemory(f"{job.inputs[0]}: no memory for it") if isinstance(error, MemoryError) else error
            self.failures[str(job.inputs[0])] = str(error)
            if not self._several:
                raise error
            log.error("%s", error)

    @contextlib.contextmanager
    def _show(self, progress: Progress) -> Iterator[None]:
        self._progress = progress
        with progress:
            yield

    def _count(self, item: Item | None = None) -> None:
        self._frames += 1
        if self._live is not None and item is not None and item.captured is not None:
            self._ages.add((time.perf_counter() - item.captured) * 1e3)
        if not self._progress.due():
            self._progress.update(1)
            return
        fields: dict[str, float | str] = {"p95_ms": self._translator.stats().total.p95}
        if self._live is not None:
            fields |= {"age_p95_ms": self._age_p95(), "dropped": str(self._live.dropped)}
        self._progress.update(1, **fields)

    def _age_p95(self) -> float:
        from ..timing import Summary

        return Summary.of(self._ages.rows()[1]).p95


def _finish(sink: FrameSink, *, complete: bool) -> None:
    """Close it, though Ctrl-C be pressed; who presses it twice has no file."""
    closed = False
    try:
        with uninterrupted():
            sink.close(complete=complete)
            closed = True
    except KeyboardInterrupt:
        if not closed:
            sink.abort()
        raise


def _source(job: Job, fps: Fraction | None) -> FrameSource:
    from ..video import open_source
    from ..video.images import Pictures

    return (
        open_source(job.inputs[0], fps=fps)
        if len(job.inputs) == 1
        else Pictures([Path(path) for path in job.inputs], fps)
    )


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, e.g. 256x512")
    return int(height), int(width)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _strength(text: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = -1.0
    if not 0 <= strength < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to below 1, e.g. 0.7")
    return strength


def _levels(text: str) -> float:
    try:
        levels = float(text)
    except ValueError:
        levels = -1.0
    if not 0 <= levels <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of levels, 0 to 255, e.g. 2")
    return levels


def _fps(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no frame rate; write e.g. 25 or 30000/1001")
    return rate
