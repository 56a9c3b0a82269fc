"""`-` is a YUV4MPEG2 stream on stdin or stdout: what ffmpeg, mpv, vspipe and x264 exchange through pipes.

    ffmpeg -i in.mp4 -f yuv4mpegpipe - | gantrt translate --engine E - -o - | ffplay -

It carries size, rate, pixel shape and range, but no times and no matrix: a frame stands for one period of the rate,
and the matrix is the one players assume.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import IO, Any

import av
import numpy as np

from ...errors import TruncatedInput, UnsupportedInput, UsageError
from .. import Frame, FrameSource, SinkOptions
from ..color import FULL, LIMITED, Colors, Converter
from ..images import MAX_PIXELS

SCHEMES = ("-",)
USAGE = "- (y4m)"
STREAMS = True

_MAGIC = b"YUV4MPEG2"
_SLOWEST, _FASTEST = 1000, 100_000  # seconds a frame, frames a second: beyond them no container counts
_LONGEST_HEADER = 4096
_POLL = 0.2  # seconds between looks at whether the reader is still wanted
_PIPE_BYTES = 1 << 20

# What stands after C -> FFmpeg's pixel format. The three 420s differ in where chroma lies, by half a pixel at most.
FORMATS = {
    "420jpeg": "yuv420p",
    "420mpeg2": "yuv420p",
    "420paldv": "yuv420p",
    "420": "yuv420p",
    "411": "yuv411p",
    "422": "yuv422p",
    "444": "yuv444p",
    "mono": "gray",
    **{f"{chroma}p{bits}": f"yuv{chroma}p{bits}le" for chroma in (420, 422, 444) for bits in (9, 10, 12, 14, 16)},
    **{f"mono{bits}": f"gray{bits}le" for bits in (9, 10, 12, 16)},
}


@dataclass(frozen=True)
class Header:
    width: int
    height: int
    rate: Fraction
    chroma: str = "420jpeg"  # a key of FORMATS
    sample_aspect_ratio: Fraction | None = None  # None: square, or unknown
    range: int | None = None  # FULL, LIMITED, or None where nothing is said

    def line(self) -> bytes:
        aspect = self.sample_aspect_ratio or Fraction(1)
        parts = [f"W{self.width}", f"H{self.height}", f"F{self.rate.numerator}:{self.rate.denominator}", "Ip"]
        parts += [f"A{aspect.numerator}:{aspect.denominator}", f"C{self.chroma}"]
        if self.range is not None:
            parts.append(f"XCOLORRANGE={'FULL' if self.range == FULL else 'LIMITED'}")
        return " ".join([_MAGIC.decode(), *parts]).encode() + b"\n"


def parse_header(line: bytes) -> Header:
    """Of the first line, without its end. Raises UnsupportedInput for what is no y4m, or is interlaced."""
    magic, *fields = line.split(b" ")
    if magic != _MAGIC:
        raise UnsupportedInput("-: stdin is no YUV4MPEG2 stream; write one with `ffmpeg -i IN -f yuv4mpegpipe -`")
    tags = {field[:1].decode("latin-1"): field[1:].decode("latin-1") for field in fields if field[:1] != b"X"}
    ranges = {b"XCOLORRANGE=FULL": FULL, b"XCOLORRANGE=LIMITED": LIMITED}
    try:
        width, height = int(tags["W"]), int(tags["H"])
        rate, aspect = _ratio(tags.get("F", "25:1")), _ratio(tags.get("A", "0:0"))
    except (KeyError, ValueError) as error:
        raise UnsupportedInput(f"-: this y4m header is damaged: {line[:120].decode('latin-1')}") from error
    if tags.get("I", "p") not in ("p", "?"):
        raise UnsupportedInput("-: this y4m is interlaced; deinterlace it first, e.g. with ffmpeg -vf bwdif")
    chroma = tags.get("C", "420jpeg")
    if chroma not in FORMATS:
        raise UnsupportedInput(f"-: y4m with C{chroma} is not read; there are {', '.join(FORMATS)}")
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise UnsupportedInput(
            f"-: this y4m header says {width}x{height}; frames have 1 to {MAX_PIXELS >> 20} megapixels"
        )
    if rate and not 1 / _SLOWEST <= rate <= _FASTEST:
        raise UnsupportedInput(f"-: this y4m header says {tags['F'][:40]} frames a second")
    color_range = next((ranges[field] for field in fields if field in ranges), None)
    return Header(width, height, rate or Fraction(25), chroma, aspect if aspect and aspect != 1 else None, color_range)


def source(spec: str) -> Y4MSource:
    if sys.stdin.isatty():
        raise UsageError("-: stdin is a terminal; pipe a y4m stream into it, e.g. `ffmpeg -i IN -f yuv4mpegpipe - |`")
    return Y4MSource(sys.stdin.buffer)


def sink(spec: str, like: FrameSource, options: SinkOptions) -> Y4MSink:
    if sys.stdout.isatty():
        raise UsageError("-: stdout is a terminal; pipe it on, e.g. `| ffplay -`")
    return Y4MSink(sys.stdout.buffer, like, options)


class Y4MSource:
    """A FrameSource: the frames of a y4m stream. One that ends inside a frame raises TruncatedInput after the last."""

    frames = None
    frames_estimated = False

    def __init__(self, file: IO[bytes]) -> None:
        """Reads the header. Raises UnsupportedInput."""
        self._input = _Waiting(file)
        line = self._input.line(_LONGEST_HEADER)
        if not line:
            raise UnsupportedInput("-: stdin is empty; the program before the pipe wrote nothing")
        self.header = parse_header(line)
        self.width, self.height = self.header.width, self.header.height
        self.rate = self.header.rate
        self.time_base = 1 / self.rate
        self.sample_aspect_ratio = self.header.sample_aspect_ratio
        usual = Colors.usual(self.width, self.height)
        self.colors = Colors(usual.matrix, self.header.range or LIMITED)
        self._pix_fmt = FORMATS[self.header.chroma]

    def __iter__(self) -> Iterator[Frame]:
        index, converter = 0, Converter()
        while (line := self._input.line(_LONGEST_HEADER)) is not None:
            if line.split(b" ")[0] != b"FRAME":
                raise TruncatedInput(f"-: this y4m is damaged after {index} frames: no FRAME where one should begin")
            frame = av.VideoFrame(self.width, self.height, self._pix_fmt)
            for plane, rows in _planes(frame):
                data = self._input.read(rows.size)
                if len(data) < rows.size:
                    if self._input.interrupted:
                        return
                    raise TruncatedInput(f"-: this y4m ends inside frame {index}; {index} frames could be read")
                plane[:, : rows.shape[1]] = np.frombuffer(data, np.uint8).reshape(rows.shape)
            frame.colorspace, frame.color_range = self.colors.matrix, self.colors.range
            yield Frame(converter.to_rgb(frame), index, index, self.time_base, 1)
            index += 1

    def interrupt(self) -> None:
        """End the iteration, also one that waits for the pipe. From any thread."""
        self._input.interrupted = True

    def close(self) -> None: ...

    def __enter__(self) -> Y4MSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Y4MSink:
    """A FrameSink: y4m at the source's rate, in its chroma and range where it is y4m itself, else in 420.

    A frame that lasts several periods is repeated, so that clips of a varying rate and live sources keep their speed;
    none is dropped. Raises BrokenPipeError when the reader is gone.
    """

    def __init__(self, file: IO[bytes], like: FrameSource, options: SinkOptions) -> None:
        if options.codec or options.crf is not None:
            raise UsageError("-: a y4m stream has neither codec nor crf")
        colors = getattr(like, "colors", None) or Colors.usual(like.width, like.height)
        chroma = like.header.chroma if isinstance(like, Y4MSource) else "420jpeg"
        if options.pix_fmt is not None:
            chroma = _chroma(options.pix_fmt, chroma)
        self._header = Header(
            like.width,
            like.height,
            (like.rate or Fraction(25)).limit_denominator(1 << 24),
            chroma,
            getattr(like, "sample_aspect_ratio", None),
            colors.range,
        )
        # Readers assume the usual matrix: a source of another is converted to it.
        self._colors = Colors(Colors.usual(like.width, like.height).matrix, colors.range)
        self._file, self._written = file, 0
        self._converter = Converter()
        self._start: Fraction | None = None  # of the first frame, and the end of the last, in seconds
        self._end: Fraction | None = None
        self._last: bytes | None = None
        _enlarge_pipe(file)
        self._send(self._header.line())

    def write(self, frame: Frame) -> None:
        made = self._converter.from_rgb(frame.image, self._colors, FORMATS[self._header.chroma])
        data = b"".join([b"FRAME\n", *(rows.tobytes() for _, rows in _planes(made))])
        if frame.pts is not None and frame.time_base is not None:
            begin = frame.pts * frame.time_base
            self._start = begin if self._start is None else self._start
            self._end = begin + (frame.duration or 0) * frame.time_base
            self._fill_until(begin)
        self._last = data
        self._send(data)
        self._written += 1

    def close(self, *, complete: bool = True) -> None:
        if complete and self._end is not None:
            self._fill_until(self._end)

    def abort(self) -> None: ...

    def _fill_until(self, time: Fraction) -> None:
        """Repeat the last frame up to that time."""
        due = round((time - (self._start or 0)) * self._header.rate)
        while self._last is not None and self._written < due:
            self._send(self._last)
            self._written += 1

    def _send(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()


def _planes(frame: av.VideoFrame) -> Iterator[tuple[Any, Any]]:
    """Of each plane its memory (rows, line size), and of that the part (rows, bytes) that is picture."""
    for plane in frame.planes:
        memory = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
        deep = 2 if frame.format.components[0].bits > 8 else 1
        yield memory, memory[:, : plane.width * deep]


def _chroma(pix_fmt: str, now: str) -> str:
    if FORMATS[now] == pix_fmt:
        return now
    for chroma, known in FORMATS.items():
        if known == pix_fmt:
            return chroma
    raise UsageError(f"pix-fmt {pix_fmt!r}: y4m takes {', '.join(sorted(set(FORMATS.values())))}")


def _ratio(text: str) -> Fraction | None:
    """Of "30000:1001"; None of the 0:0 that means unknown."""
    above, below = (int(part) for part in text.split(":"))
    return Fraction(above, below) if above > 0 and below > 0 else None


class _Waiting:
    """Reads exactly what it is asked for, and looks now and then whether it is still wanted."""

    def __init__(self, file: IO[bytes]) -> None:
        self.interrupted = False
        self._file, self._ahead, self._fd = file, b"", None
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            if os.name == "posix":  # elsewhere a pipe cannot be waited for with a limit
                self._fd = file.fileno()
        _enlarge_pipe(file)

    def line(self, longest: int) -> bytes | None:
        """The next line, without its end; None at the end of the stream."""
        while b"\n" not in self._ahead:
            more = self._some(longest) if len(self._ahead) < longest else b""
            if not more:
                rest, self._ahead = self._ahead, b""
                return rest or None
            self._ahead += more
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line

    def read(self, count: int) -> bytes:
        """`count` bytes, or fewer at the end of the stream."""
        pieces, missing = [self._ahead[:count]], count - len(self._ahead[:count])
        self._ahead = self._ahead[count:]
        while missing and (more := self._some(missing)):
            pieces.append(more)
            missing -= len(more)
        return b"".join(pieces)

    def _some(self, most: int) -> bytes:
        if self._fd is None:
            return b"" if self.interrupted else self._file.read(most)
        while not self.interrupted:
            if select.select([self._fd], [], [], _POLL)[0]:
                return os.read(self._fd, most)
        return b""


def _enlarge_pipe(file: IO[bytes]) -> None:
    """A pipe holds 64 KiB, a frame some twenty of that: a larger one saves as many changes of process."""
    with contextlib.suppress(ImportError, AttributeError, OSError, io.UnsupportedOperation):
        import fcntl

        fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
