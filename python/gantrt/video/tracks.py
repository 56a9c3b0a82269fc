"""Everything in a clip but its picture, on its way into another file: sound, subtitles, attachments."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from .files import open_container

log = logging.getLogger("gantrt")

_TRANSCODED = {"mp4": "aac", "mov": "aac", "matroska": "libopus", "webm": "libopus"}  # for sound a container refuses
_TEXT = {"mp4": "mov_text", "mov": "mov_text", "matroska": "srt", "webm": "webvtt"}  # for subtitles, if they are text
_TEXT_CODECS = ("subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text")
NOT_IN = {"mov": ("opus", "flac", "vp9", "av1")}  # what FFmpeg refuses only when the header is written
_LAYOUTS = {1: "mono", 6: "5.1", 8: "7.1"}  # of the sound encoded anew, by channels; all others: stereo
_OF_THE_OLD_FILE = ("encoder", "duration", "bps", "number_of_", "_statistics", "major_brand", "minor_version")


def copied_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """What is true of the new file as well: title, language, ... but not the tags the old file's writer measured."""
    return {
        key: value
        for key, value in metadata.items()
        if not key.lower().startswith((*_OF_THE_OLD_FILE, "compatible_brands"))
    }


class Tracks:
    """The other streams of the clip at `path`, written into `out` packet by packet with their own time stamps.

    Construct it before the header of `out` is written. Sound and text that the container cannot hold are encoded
    anew; other streams it cannot hold are left out, with a warning.
    """

    def __init__(
        self, path: Path, out: av.container.OutputContainer, *, audio: bool, formats: str | None = None
    ) -> None:
        self._path, self._out = path, out
        self._in = open_container(path, formats)
        self._copied: dict[int, Any] = {}  # input stream index -> output stream
        self._encoded: dict[int, Any] = {}
        self._subtitles: dict[int, Any] = {}  # written as text of another kind
        self._refused = 0
        wanted = [s for s in self._in.streams if s.type in ("subtitle", "attachment") or (audio and s.type == "audio")]
        for stream in wanted:
            self._add(stream)
        self._packets = self._demux()
        self._next: av.Packet | None = None

    def write_until(self, seconds: Fraction | None) -> None:
        """Write what comes up to that time; None: all of it."""
        while True:
            packet = self._next if self._next is not None else next(self._packets, None)
            self._next = packet
            if packet is None:
                return
            if seconds is not None and packet.dts is not None and packet.dts * packet.time_base > seconds:
                return
            self._next = None
            self._write(packet)

    def finish(self, seconds: Fraction | None) -> None:
        """Write what comes up to that time (None: all), and what the encoders hold back."""
        self.write_until(seconds)
        for stream in self._encoded.values():
            self._out.mux(stream.encode(None))
        if self._refused:
            log.warning("%s: %d damaged packets of its sound or subtitles are left out", self._path, self._refused)

    def close(self) -> None:
        self._in.close()

    def _add(self, stream: Any) -> None:
        codec = stream.codec_context.codec.canonical_name if stream.codec_context is not None else "unknown"
        try:
            if codec in NOT_IN.get(self._out.format.name, ()):
                raise ValueError(f"{self._out.format.name} has no {codec}")
            if stream.type == "attachment" and self._out.format.name != "matroska":
                raise ValueError("only Matroska has attachments")
            added = self._copied[stream.index] = self._out.add_stream_from_template(stream, opaque=True)
        except ValueError:  # the container does not take this codec
            container = self._out.format.name
            if stream.type == "audio" and (encoder := _TRANSCODED.get(container)):
                added = self._encoded[stream.index] = self._add_sound(stream, encoder)
            elif codec in _TEXT_CODECS and (encoder := _TEXT.get(container)):
                added = self._subtitles[stream.index] = self._out.add_stream(encoder)
                stream.codec_context.open(strict=False)  # the decoder makes the header of styles the encoder needs
                # FFmpeg reads it as text, up to a zero that PyAV (18.1) does not put behind it.
                added.codec_context.subtitle_header = (stream.codec_context.subtitle_header or b"") + b"\0"
            else:
                log.warning("%s: %s cannot hold its %s (%s); left out", self._path, container, stream.type, codec)
                return
            log.info("%s: %s cannot hold %s; it becomes %s", self._path, container, codec, encoder)
        added.metadata.update(copied_metadata(stream.metadata))
        if stream.type != "attachment":
            added.disposition = stream.disposition.value

    def _add_sound(self, stream: Any, encoder: str) -> Any:
        rate = stream.codec_context.sample_rate
        rate = rate if rate in (av.Codec(encoder, "w").audio_rates or [rate]) else 48000
        layout = _LAYOUTS.get(stream.codec_context.layout.nb_channels, "stereo")
        return self._out.add_stream(encoder, rate=rate, layout=layout)

    def _demux(self) -> Iterator[av.Packet]:
        streams = [self._in.streams[index] for index in (*self._copied, *self._encoded, *self._subtitles)]
        streams = [stream for stream in streams if stream.type != "attachment"]
        if not streams:
            return
        try:
            yield from self._in.demux(streams)
        except av.FFmpegError as error:  # the source, which reads the same file, raises it
            log.debug("%s: reading its sound ends early: %s", self._path, error)

    def _write(self, packet: av.Packet) -> None:
        try:
            if packet.stream.index in self._encoded:
                for frame in packet.decode():
                    self._out.mux(self._encoded[packet.stream.index].encode(frame))
            elif packet.stream.index in self._subtitles:
                if packet.size:
                    self._write_text(packet, self._subtitles[packet.stream.index])
            elif packet.size:  # PyAV's last packets are empty
                packet.stream = self._copied[packet.stream.index]
                self._out.mux(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError) as error:
            self._refused += 1
            log.debug("%s: a packet cannot be copied: %s", self._path, error)

    def _write_text(self, packet: av.Packet, target: Any) -> None:
        """Through FFmpeg's form of all text subtitles, styles included as far as both kinds have them."""
        text = packet.stream.decode2(packet)
        if text is None or not len(text):
            return
        made = target.codec_context.encode_subtitle(text)
        made.stream, made.time_base = target, packet.time_base
        made.pts = made.dts = packet.pts
        made.duration = packet.duration
        self._out.mux(made)
