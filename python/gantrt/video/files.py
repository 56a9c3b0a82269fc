"""Clips in files, read with PyAV: every frame, once, in order, upright, with its time stamp."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from numpy.typing import NDArray

from ..errors import TruncatedInput, UnsupportedInput
from . import Frame
from .color import Colors, Converter
from .complete import is_cut
from .images import MAX_PIXELS
from .orientation import UPRIGHT, from_display_matrix

log = logging.getLogger("gantrt")

_MICROSECOND = Fraction(1, 1_000_000)
_DECLARE_DURATION = ("mov", "matroska")  # containers whose header says how long the clip is
_SLACK = Fraction(1)  # seconds a clip may be shorter than its header says


def open_container(path: str | Path, formats: str | None = None) -> av.container.InputContainer:
    """Open a clip. The prefix keeps FFmpeg from taking `a:b.mp4` for a protocol. Raises UnsupportedInput.

    formats  FFmpeg's names of those allowed, with commas; None: all. A playlist can name any file or address, so
             what a stranger sent is opened with a list
    """
    options = {"format_whitelist": formats, "protocol_whitelist": "file"} if formats else {}
    try:
        return av.open(f"file:{path}", metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError) as error:
        reason = (error.strerror or str(error)).lower()
        raise UnsupportedInput(f"{path}: cannot be read as a clip ({reason})") from error


class VideoFile:
    """A FrameSource: the first video stream of a file.

    A packet that cannot be decoded costs its own frames only; that some were lost is raised, as TruncatedInput,
    after the last frame.

    formats     see open_container
    max_pixels  larger frames are not decoded, whatever the header said
    """

    def __init__(self, path: str | Path, *, formats: str | None = None, max_pixels: int | None = None) -> None:
        self.path, self.formats = Path(path), formats
        self._container = open_container(path, formats)
        videos = [s for s in self._container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not videos:
            self.close()
            raise UnsupportedInput(f"{path}: there is no video in it")
        self._stream = videos[0]
        claimed = self._stream.codec_context
        if claimed.width * claimed.height > MAX_PIXELS:
            self.close()
            raise UnsupportedInput(
                f"{path}: claims {claimed.width}x{claimed.height}, more than the {MAX_PIXELS >> 20} megapixels we "
                "decode"
            )
        self._stream.thread_type = "AUTO"
        if max_pixels:
            self._stream.codec_context.options = {"max_pixels": str(max_pixels)}
        self._damaged = 0  # packets
        self._converter = Converter()
        self._end = Fraction(0)  # of what was read, of any stream, in seconds
        self._decoded = self._decode()
        # The first frame is decoded now: only frames know the rotation, and a clip without any is refused here.
        first = next(self._decoded, None)
        if first is None:
            self.close()
            raise UnsupportedInput(f"{path}: not one frame of it can be decoded")
        self._first: av.VideoFrame | None = first
        self.colors = Colors.of(first)
        if self.colors.is_hdr:
            log.warning("%s: is HDR; it is translated as it is, without tone mapping", path)
        matrix = first.side_data.get(SideData.DISPLAYMATRIX)
        self._orientation = UPRIGHT if matrix is None else from_display_matrix(bytes(matrix))
        self._stored_size = first.width, first.height
        self.width, self.height = self._stored_size[:: -1 if self._orientation.transpose else 1]

    @property
    def time_base(self) -> Fraction:
        return self._stream.time_base or _MICROSECOND

    @property
    def rate(self) -> Fraction | None:
        rate: Fraction | None = self._stream.average_rate or self._stream.guessed_rate
        return rate

    @property
    def frames(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        duration = self._declared_duration()
        return max(1, round(duration * self.rate)) if duration and self.rate else None

    @property
    def frames_estimated(self) -> bool:
        return not self._stream.frames

    @property
    def sample_aspect_ratio(self) -> Fraction | None:
        """Width over height of a pixel as shown; None: square, or unknown."""
        ratio: Fraction | None = self._stream.sample_aspect_ratio
        if not ratio or ratio == 1:
            return None
        return 1 / ratio if self._orientation.transpose else ratio

    @property
    def chapters(self) -> list[dict[str, Any]]:
        return list(self._container.chapters())

    @property
    def metadata(self) -> tuple[dict[str, str], dict[str, str]]:
        """Of the file, and of its video stream."""
        return self._container.metadata, self._stream.metadata

    def __iter__(self) -> Iterator[Frame]:
        # One frame is held back, because how long it is shown is known when the next one is: what an .mp4 calls a
        # sample's duration is the distance to the next in decoding order, which is another where there are B-frames.
        held, pts, index = self._take(), None, 0
        while held is not None:
            pts = self._stamp(held, pts)
            following = self._take()
            duration = self._last_duration(held, pts) if following is None else self._stamp(following, pts) - pts
            yield Frame(self._picture(held), index, pts, self.time_base, duration)
            held, index = following, index + 1
        self._check_complete(index)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> av.VideoFrame | None:
        first, self._first = self._first, None
        return first if first is not None else next(self._decoded, None)

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            try:
                yield from self._stream.decode(packet)
            except av.error.MemoryError:
                raise  # the clip is sound
            except av.FFmpegError as error:
                self._damaged += 1
                log.debug("%s: a packet cannot be decoded: %s", self.path, error)

    def _packets(self) -> Iterator[av.Packet | None]:
        """The video's packets; the others are only looked at, to learn where the file ends.

        The last is empty, PyAV's own or None: it makes the decoder give the frames it held back for reordering.
        """
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.MemoryError:
                raise
            except av.FFmpegError as error:
                self._damaged += 1
                log.debug("%s: reading ends early: %s", self.path, error)
                yield None
                return
            if packet.pts is not None and packet.time_base:
                self._end = max(self._end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index == self._stream.index:  # stream_index is 0 in PyAV's last, empty packets
                self._damaged += packet.is_corrupt  # partly read, at the end of a file that was cut
                yield packet

    def _picture(self, decoded: av.VideoFrame) -> NDArray[np.uint8]:
        image = self._converter.to_rgb(decoded)
        if (decoded.width, decoded.height) != self._stored_size:
            log.debug("%s: frame size changes to %dx%d; resized to the first", self.path, decoded.width, decoded.height)
            image = cv2.resize(image, self._stored_size, interpolation=cv2.INTER_AREA)
        return self._orientation.apply(image)

    def _stamp(self, decoded: av.VideoFrame, last: int | None) -> int:
        """The frame's time, made to increase where a broken file does not say, or repeats itself."""
        pts: int | None = decoded.pts if decoded.pts is not None else decoded.dts
        if last is None:
            return pts or 0
        return max(last + 1, last + self._usual_duration() if pts is None else pts)

    def _last_duration(self, decoded: av.VideoFrame, pts: int) -> int:
        durations = [decoded.duration or self._usual_duration()]
        if self._stream.duration:
            durations.append((self._stream.start_time or 0) + self._stream.duration - pts)
        return max(1, min(durations))

    def _usual_duration(self) -> int:
        return round(1 / (self.rate * self.time_base)) if self.rate else 1

    def _declared_duration(self) -> Fraction | None:
        duration = self._container.duration
        return duration * _MICROSECOND if duration else None

    def _check_complete(self, read: int) -> None:
        declared = self._declared_duration()
        if self._damaged:
            of = f" of {self._stream.frames}" if self._stream.frames else ""
            raise TruncatedInput(f"{self.path}: is damaged; {read}{of} frames could be read")
        if declared and self._container.format.name.startswith(_DECLARE_DURATION) and self._end < declared - _SLACK:
            raise TruncatedInput(
                f"{self.path}: is cut off, it ends at {float(self._end):.1f} s of {float(declared):.1f} s; "
                f"{read} frames could be read"
            )
        if is_cut(self.path):
            raise TruncatedInput(
                f"{self.path}: is cut off, it ends before its header says; {read} frames could be read"
            )
