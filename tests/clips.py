"""Clips for tests, written with PyAV alone: nothing of what is tested takes part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SIZE = (48, 64)  # height, width


def level(index: int) -> int:
    """The grey of frame `index`: far enough apart to be told from each other after a lossy codec."""
    return 16 + 7 * index % 225


def grey(index: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.full((*size, 3), level(index), np.uint8)


def index_of(image: NDArray[np.uint8]) -> int:
    """Which frame of a clip of grey frames this is."""
    value = float(image.mean())
    return min(range(32), key=lambda index: abs(level(index) - value))


def write_clip(
    path: Path,
    pts: Sequence[int] = tuple(range(25)),
    *,
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    sound: str | None = None,
    sound_start: Fraction = Fraction(0),
    rotation: int = 0,
    sar: Fraction | None = None,
    metadata: dict[str, str] | None = None,
    faststart: bool = True,
) -> Path:
    """Grey frames at the given times; `sound` names the encoder of a sine of 440 Hz, as long as the picture."""
    with av.open(str(path), "w", container_options={"movflags": "+faststart"} if faststart else None) as out:
        out.metadata.update(metadata or {})
        video = out.add_stream(codec, rate=25, options=options or {})
        video.height, video.width = size
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = time_base
        video.codec_context.flags |= av.codec.context.Flags.frame_duration
        if sar:
            video.codec_context.sample_aspect_ratio = sar
        if rotation:
            video.set_display_rotation(rotation)
        audio = out.add_stream(sound, rate=48000, layout="mono") if sound else None
        if audio is not None:
            for frame in sine(sound_start, Fraction(pts[-1] - pts[0]) * time_base):
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
        for index, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(grey(index, size), "rgb24")
            frame.pts, frame.time_base = stamp, time_base
            frame.duration = pts[index + 1] - stamp if index + 1 < len(pts) else 1
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def sine(start: Fraction, seconds: Fraction) -> Iterator[av.AudioFrame]:
    samples = np.arange(max(int(seconds * 48000), 4800))
    wave = (np.sin(samples * (2 * np.pi * 440 / 48000)) * 0.5).astype(np.float32)
    for at in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None, at : at + 1024]), "fltp", "mono")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = at + int(start * 48000)
        yield frame


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """(time in seconds, bytes) of every packet of the first stream of that kind; none where there is no such stream."""
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind][:1]
        found = container.demux(*streams) if streams else []
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in found if packet.size]


def frames(path: Path) -> list[tuple[Fraction, NDArray[np.uint8]]]:
    """(time in seconds, RGB as PyAV converts it) of every frame."""
    with av.open(str(path)) as container:
        decoded: Any = container.decode(video=0)
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in decoded]


def stream(path: Path, kind: str = "video") -> dict[str, Any]:
    """What a container says of its first stream of that kind."""
    with av.open(str(path)) as container:
        found = next(stream for stream in container.streams if stream.type == kind)
        context = found.codec_context
        facts = {"codec": context.codec.canonical_name, "duration": found.duration, "metadata": dict(found.metadata)}
        if kind == "video":
            facts |= {"pix_fmt": context.pix_fmt, "sar": found.sample_aspect_ratio, "size": (found.height, found.width)}
            facts |= {"colors": (context.colorspace, context.color_range)}
        return facts
