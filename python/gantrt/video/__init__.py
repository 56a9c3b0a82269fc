"""Where frames come from and where they go. A source or sink is named by a spec: a path, or later a `scheme:`."""

from __future__ import annotations

import re
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

NULL = "null:"  # the output that discards
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:(?!\\)")  # two letters at least: C:\ is a drive


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source, as a viewer sees it: rotation and mirroring of the file are applied."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, C-contiguous
    index: int  # 0, 1, 2, ...
    pts: int | None = None  # when it is shown, in time_base; strictly increasing
    time_base: Fraction | None = None  # seconds
    duration: int | None = None  # how long it is shown, in time_base

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

    def write(self, frame: Frame) -> None: ...
    def close(self, *, complete: bool = True) -> None:
        """Finish and keep what was written; complete=False: the source was left early, so sound ends with the frames.

        Raises GantrtError, and keeps nothing half-written, if that fails.
        """
        ...

    def abort(self) -> None:
        """Leave nothing half-written behind."""
        ...


@dataclass(frozen=True)
class SinkOptions:
    """How an output is to be written. None leaves the choice to the format."""

    overwrite: bool = False
    codec: str | None = None  # "h264", "vp9", ... or the name of an encoder of FFmpeg
    crf: int | None = None  # constant quality, lower is better
    pix_fmt: str | None = None
    audio: bool = True


def open_source(spec: str | Path, *, fps: Fraction | None = None) -> FrameSource:
    """The frames of a picture, of a folder or glob of pictures (`fps` a second), or of a clip.

    Raises UnsupportedInput if there is nothing there, or nothing we can read.
    """
    from .files import VideoFile
    from .images import Pictures, find_pictures, picture_format

    path = Path(spec)
    if path.is_file():
        # A GIF is a clip here; read as a picture (images.read_picture) it is its first frame.
        return VideoFile(path) if picture_format(path) in (None, "gif") else Pictures([path], fps)
    if pictures := find_pictures(spec):
        return Pictures(pictures, fps)
    raise UnsupportedInput(f"{spec}: {'no pictures in it' if path.is_dir() else 'no such file'}")


def open_sink(spec: str | Path, like: FrameSource, options: SinkOptions | None = None) -> FrameSink:
    """What `spec` names: a clip (.mp4, .mov, .mkv, .webm), a folder of PNGs, or null:.

    like  the source: its size, time base, colours and rotation, and the sound and subtitles to take along
    Raises UsageError for what we do not write, GantrtError where it cannot be written.
    """
    from .encode import VideoSink
    from .images import PictureFolder

    options = options or SinkOptions()
    path = Path(spec)
    if spec == NULL:
        return NullSink()
    if is_folder(spec):
        return PictureFolder(path, options)
    if path.suffix.lower() not in VIDEO_FORMATS:
        raise UsageError(f"{spec}: a clip is written as {', '.join(VIDEO_FORMATS)}, or into a folder as pictures")
    return VideoSink(path, like, options)


def is_folder(output: str | Path) -> bool:
    """Whether an output is a folder: it is one already, ends in a slash, or has no suffix.

    Raises UsageError for a `scheme:` we do not know, lest it become a folder of that name.
    """
    if _SCHEME.match(str(output)) or str(output) == "-":
        raise UsageError(f"{output}: no such output; there are files, folders and {NULL}")
    return Path(output).is_dir() or str(output).endswith("/") or not Path(output).suffix


class NullSink:
    """Discards: for timing the rest."""

    def write(self, frame: Frame) -> None: ...
    def close(self, *, complete: bool = True) -> None: ...
    def abort(self) -> None: ...


class First:
    """The first `count` frames of a source."""

    def __init__(self, source: FrameSource, count: int) -> None:
        self._source, self._count = source, count
        self.width, self.height = source.width, source.height
        self.rate, self.time_base = source.rate, source.time_base
        self.frames = count if source.frames is None else min(count, source.frames)
        self.frames_estimated = source.frames is None or (source.frames_estimated and source.frames < count)

    def __iter__(self) -> Iterator[Frame]:
        return islice(self._source, self._count)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> First:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
