"""Clips in files, written with PyAV: each frame at its own time, with the sound and the colours of its source."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import deque
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_path
from ..errors import GantrtError, UsageError
from . import VIDEO_FORMATS, Frame, FrameSource, SinkOptions
from .color import FULL, RGB, Colors, Converter
from .encoders import find_encoder, quality
from .files import VideoFile
from .tracks import NOT_IN, Tracks, copied_metadata

log = logging.getLogger("gantrt")

_TAKE_ODD_SIZES = ("libvpx", "libvpx-vp9", "libsvtav1", "ffv1")  # with subsampled chroma
_FASTSTART = {"movflags": "+faststart"}  # the index in front, so that a browser can play while it loads


class VideoSink:
    """A FrameSink: one clip. It appears under its name when it is finished.

    Browsers play what it makes by default: H.264 in yuv420p, VP9 in .webm. With an odd width or height H.264 has no
    yuv420p: the clip keeps its size and becomes yuv444p, which fewer players take.
    """

    def __init__(self, path: Path, like: FrameSource, options: SinkOptions) -> None:
        self._path = path
        self._rate = like.rate or Fraction(25)
        self._colors = getattr(like, "colors", None) or Colors.usual(like.width, like.height)
        self._packets: deque[av.Packet] = deque()  # encoded, not yet written
        self._end = Fraction(0)  # of the last frame, in seconds
        self._converter = Converter()
        self._tracks: Tracks | None = None
        form = self._form(path)
        with contextlib.ExitStack() as undo:
            temporary = undo.enter_context(atomic_path(path, overwrite=options.overwrite))
            self._container = av.open(
                f"file:{temporary}", "w", format=form, container_options=_FASTSTART if form in ("mp4", "mov") else None
            )
            undo.callback(self._let_go)
            try:
                self._stream = self._add_video(like, options)
                if isinstance(like, VideoFile):
                    self._take_along(like, options)
                self._container.start_encoding()
            except av.FFmpegError as error:
                raise self._failed(error) from error
            self._undo = undo.pop_all()

    def write(self, frame: Frame) -> None:
        made = self._convert(frame.image)
        made.time_base = frame.time_base or 1 / self._rate
        made.pts = frame.index if frame.pts is None else frame.pts
        made.duration = frame.duration or round(1 / (self._rate * made.time_base))
        try:
            self._packets.extend(self._stream.encode(made))
            self._mux()
        except av.FFmpegError as error:
            raise self._failed(error) from error
        self._end = (made.pts + made.duration) * made.time_base

    def close(self, *, complete: bool = True) -> None:
        try:
            self._packets.extend(self._stream.encode(None))
            self._mux()
            if self._tracks is not None:
                self._tracks.finish(None if complete else self._end)
            self._container.close()
        except BaseException as error:
            self.abort()
            if isinstance(error, av.FFmpegError):
                raise self._failed(error) from error
            raise
        self._undo.close()

    def abort(self) -> None:
        unfinished = GantrtError(f"{self._path}: not finished")
        self._undo.__exit__(type(unfinished), unfinished, None)  # an error tells atomic_path to rename nothing

    @staticmethod
    def _form(path: Path) -> str:
        """FFmpeg's name of the container."""
        return VIDEO_FORMATS[path.suffix.lower()]

    def _convert(self, image: NDArray[np.uint8]) -> av.VideoFrame:
        return self._converter.from_rgb(image, self._colors, self._pix_fmt)

    def _add_video(self, like: FrameSource, options: SinkOptions) -> av.VideoStream:
        name = options.codec or ("vp9" if self._path.suffix.lower() == ".webm" else "h264")
        codec = find_encoder(name, like.width, like.height)
        self._pix_fmt = _pix_fmt(self._path, codec, like.width, like.height, options.pix_fmt)
        settings = quality(codec, options.crf)
        try:
            if codec.canonical_name in NOT_IN.get(self._form(self._path), ()):
                raise ValueError(codec.name)
            stream = self._container.add_stream(codec.name, rate=self._rate, options=settings)
        except ValueError as error:
            raise UsageError(f"{self._path}: {self._path.suffix} cannot hold {codec.canonical_name}") from error
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = like.width, like.height, self._pix_fmt
        context.time_base = like.time_base or 1 / self._rate
        context.flags |= av.codec.context.Flags.frame_duration  # or the last frame's would be a guess
        if self._pix_fmt.startswith("yuvj"):
            self._colors = dataclasses.replace(self._colors, range=FULL)
        context.colorspace = RGB if av.VideoFormat(self._pix_fmt).is_rgb else self._colors.matrix
        context.color_range = self._colors.range
        context.color_primaries, context.color_trc = self._colors.primaries, self._colors.transfer
        if ratio := getattr(like, "sample_aspect_ratio", None):
            context.sample_aspect_ratio = ratio
        if codec.canonical_name == "hevc" and self._container.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players take no other
        return stream

    def _take_along(self, like: VideoFile, options: SinkOptions) -> None:
        of_file, of_stream = like.metadata
        self._container.metadata.update(copied_metadata(of_file))
        self._stream.metadata.update(copied_metadata(of_stream))
        self._container.set_chapters(like.chapters)
        self._tracks = Tracks(like.path, self._container, audio=options.audio, formats=like.formats)

    def _mux(self) -> None:
        """Write the encoded packets, each after the sound that comes before it."""
        while self._packets:
            packet = self._packets[0]
            if self._tracks is not None and packet.dts is not None:
                self._tracks.write_until(packet.dts * packet.time_base)
            self._container.mux(self._packets.popleft())

    def _let_go(self) -> None:
        if self._tracks is not None:
            self._tracks.close()
        with contextlib.suppress(av.FFmpegError):  # on a full disk the trailer fails as well
            self._container.close()

    def _failed(self, error: av.FFmpegError) -> GantrtError:
        return GantrtError(f"{self._path}: cannot be written ({(error.strerror or str(error)).lower()})")


def _pix_fmt(path: Path, codec: av.Codec, width: int, height: int, asked: str | None) -> str:
    """The pixel format to encode in: `asked` if the encoder can, else yuv420p, or yuv444p for an odd size."""
    known = [form.name for form in codec.video_formats or ()]
    if asked is not None and asked not in known:
        raise UsageError(f"pix-fmt {asked!r}: {codec.name} takes {', '.join(known)}")
    wanted = asked or ("yuv420p" if "yuv420p" in known or not known else known[0])
    form = av.VideoFormat(wanted)
    halves = (width % 2 and form.chroma_width(2) == 1) or (height % 2 and form.chroma_height(2) == 1)
    if not halves or codec.name in _TAKE_ODD_SIZES:
        return wanted
    if asked is not None or "yuv444p" not in known:
        raise UsageError(f"{path}: {codec.name} cannot hold {width}x{height} in {wanted}; use yuv444p, or vp9")
    log.info("%s: is yuv444p, as %s cannot hold %dx%d otherwise; vp9 could", path, codec.name, width, height)
    return "yuv444p"
