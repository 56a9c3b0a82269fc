"""Where frames come from and where they go. A source or sink is named by a spec: a path, a `scheme:`, or `-`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedInput, UsageError

VIDEO_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}  # that we write
ANIMATION_FORMATS = {".gif": "gif", ".apng": "apng"}  # likewise
CLIP_FORMATS = VIDEO_FORMATS | ANIMATION_FORMATS

NULL = "null:"  # the output that discards


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source, as a viewer sees it: rotation and mirroring of the file are applied."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, C-contiguous
    index: int  # 0, 1, 2, ...
    pts: int | None = None  # when it is shown, in time_base; strictly increasing
    time_base: Fraction | None = None  # seconds
    duration: int | None = None  # how long it is shown, in time_base
    captured: float | None = None  # of a live source: when it arrived, by time.perf_counter

    @property
    def seconds(self) -> float | None:
        if self.pts is None or self.time_base is None:
            return None
        return float(self.pts * self.time_base)


class FrameSource(Protocol):
    """Frames, once, in order. Iterating raises TruncatedInput after the last good frame of a broken input."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def rate(self) -> Fraction | None:
        """Frames per second, on average; None where nobody knows."""
        ...

    @property
    def time_base(self) -> Fraction | None: ...
    @property
    def frames(self) -> int | None:
        """How many there will be; None where nobody knows."""
        ...

    @property
    def frames_estimated(self) -> bool:
        """Whether `frames` is a guess, from duration and rate."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...
    def close(self) -> None: ...
    def __enter__(self) -> FrameSource: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FrameSink(Protocol):
    """Takes frames of one size. Ends with exactly one of close and abort."""

    def write(self, frame: Frame) -> None:
        """Raises SinkClosed where the viewer wants no more."""
        ...

    def close(self, *, complete: bool = True) -> None:
        """Finish and keep what was written; complete=False: the source was left early, so sound ends with the frames.

        Raises GantrtError, and keeps nothing half-written, if that fails.
        """
        ...

    def abort(self) -> None:
        """Leave nothing half-written behind."""
        ...


class SinkClosed(Exception):
    """Whoever looked at the output went away: its window was closed, or the reader of a pipe ended. No failure."""


@dataclass(frozen=True)
class SinkOptions:
    """How an output is to be written. None leaves the choice to the format."""

    overwrite: bool = False
    codec: str | None = None  # "h264", "vp9", ... or the name of an encoder of FFmpeg
    crf: int | None = None  # constant quality, lower is better
    pix_fmt: str | None = None
    audio: bool = True


def open_source(spec: str | Path, *, fps: Fraction | None = None) -> FrameSource:
    """The frames of a picture, of a folder, glob or `%05d` sequence of pictures (`fps` a second), of a clip,
    or of what a `scheme:` or `-` names (see `schemes`).

    Raises UnsupportedInput if there is nothing there, or nothing we can read.
    """
    from . import schemes
    from .files import VideoFile
    from .images import Pictures, find_pictures, is_animated, picture_format

    path = Path(spec)
    if path.is_file():
        # A GIF is a clip here; read as a picture (images.read_picture) it is its first frame.
        is_clip = picture_format(path) in (None, "gif") or is_animated(path)
        return VideoFile(path) if is_clip else Pictures([path], fps)
    if isinstance(spec, str) and (module := schemes.find(spec, "source")) is not None:
        source: FrameSource = module.source(spec)
        return source
    if pictures := find_pictures(spec):
        return Pictures(pictures, fps)
    raise UnsupportedInput(f"{spec}: {'no pictures in it' if path.is_dir() else 'no such file'}")


def open_sink(spec: str | Path, like: FrameSource, options: SinkOptions | None = None) -> FrameSink:
    """What `spec` names: a clip or animation (CLIP_FORMATS), a folder or `%05d` sequence of pictures, or what a
    `scheme:` or `-` names (see `schemes`).

    like  the source: its size, time base, colours and rotation, and the sound and subtitles to take along
    Raises UsageError for what we do not write, GantrtError where it cannot be written.
    """
    from . import schemes
    from .animations import AnimationSink
    from .encode import VideoSink
    from .images import PictureFolder, PictureSequence, is_pattern

    options = options or SinkOptions()
    path = Path(spec)
    if isinstance(spec, str) and (module := schemes.find(spec, "sink")) is not None:
        sink: FrameSink = module.sink(spec, like, options)
        return sink
    if is_folder(spec):
        return PictureFolder(path, options)
    if is_pattern(spec):
        return PictureSequence(path, options)
    if path.suffix.lower() in ANIMATION_FORMATS:
        return AnimationSink(path, like, options)
    if path.suffix.lower() in VIDEO_FORMATS:
        return VideoSink(path, like, options)
    raise UsageError(f"{spec}: a clip is written as {', '.join(CLIP_FORMATS)}, or into a folder as pictures")


def is_folder(output: str | Path) -> bool:
    """Whether an output is a folder: it is one already, ends in a slash, or has no suffix.

    Raises UsageError for a `scheme:` we do not know, lest it become a folder of that name.
    """
    from . import schemes

    if isinstance(output, str):
        schemes.find(output, "sink")
    return Path(output).is_dir() or str(output).endswith("/") or not Path(output).suffix


class First:
    """The first `count` frames of a source."""

    def __init__(self, source: FrameSource, count: int) -> None:
        self.source, self._count = source, count
        self.width, self.height = source.width, source.height
        self.rate, self.time_base = source.rate, source.time_base
        self.frames = count if source.frames is None else min(count, source.frames)
        self.frames_estimated = source.frames is None or (source.frames_estimated and source.frames < count)

    def __iter__(self) -> Iterator[Frame]:
        return islice(self.source, self._count)

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> First:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
