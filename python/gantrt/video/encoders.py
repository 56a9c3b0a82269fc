"""Which encoder a codec's name means, how it is told a quality, and whether hardware is there to run it."""

from __future__ import annotations

import logging
from fractions import Fraction

import av

from ..errors import DeviceUnavailable, UsageError

log = logging.getLogger("gantrt")

# What people call a codec -> its encoder. Any other name is taken for an encoder of FFmpeg.
ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
}
HARDWARE = ("h264-hw", "hevc-hw", "av1-hw")  # the first of _MAKERS that works here

_MAKERS = ("nvenc", "qsv", "amf", "videotoolbox", "v4l2m2m", "mf")  # NVIDIA, Intel, AMD, Apple, SoCs, Windows

# Constant quality where a loss is hard to see, at a speed that leaves the processor to the network.
_QUALITY = {
    "libx264": {"crf": "17", "preset": "veryfast"},  # half the processor time of "fast" at 18, smaller, 1 dB less
    "libx265": {"crf": "20", "preset": "fast", "x265-params": "log-level=none"},
    "libvpx": {"crf": "10", "b": "8M", "deadline": "good", "cpu-used": "4"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "libsvtav1": {"crf": "28", "preset": "8"},
    "h264_nvenc": {"cq": "20", "rc": "vbr", "b": "0", "preset": "p4"},
    "hevc_nvenc": {"cq": "22", "rc": "vbr", "b": "0", "preset": "p4"},
    "av1_nvenc": {"cq": "28", "rc": "vbr", "b": "0", "preset": "p4"},
    "h264_qsv": {"global_quality": "20", "preset": "medium"},
    "hevc_qsv": {"global_quality": "22", "preset": "medium"},
    "av1_qsv": {"global_quality": "28", "preset": "medium"},
}
_DIALS = ("crf", "cq", "global_quality")  # what an encoder calls its constant quality


def find_encoder(name: str, width: int, height: int) -> av.Codec:
    """The encoder `name` means: a codec, HARDWARE's for this machine, or an encoder of FFmpeg.

    Raises UsageError if there is none, DeviceUnavailable if it needs hardware that is not here.
    """
    name = name.lower()
    if name in HARDWARE:
        return _hardware(name, width, height)
    try:
        codec = av.Codec(ENCODERS.get(name, name), "w")
    except av.codec.codec.UnknownCodecError as error:
        known = ", ".join((*ENCODERS, *HARDWARE))
        raise UsageError(f"codec {name!r}: there are {known}, and the encoders of FFmpeg") from error
    if codec.type != "video":
        raise UsageError(f"codec {name!r}: is for {codec.type}, not for video")
    if codec.name.endswith(_MAKERS) and (why := _refusal(codec, width, height)):
        raise DeviceUnavailable(f"codec {codec.name}: does not run here ({why}); {codec.canonical_name} always does")
    return codec


def quality(codec: av.Codec, crf: int | None) -> dict[str, str]:
    """The encoder's options for a constant quality; None: ours. UsageError if it has no such thing."""
    settings = _QUALITY.get(codec.name, {})
    if crf is None:
        return settings
    if not settings:
        raise UsageError(f"crf {crf}: {codec.name} has no constant quality; {', '.join(_QUALITY)} have")
    dial = next(name for name in _DIALS if name in settings)
    return settings | {dial: str(crf)}


def _hardware(name: str, width: int, height: int) -> av.Codec:
    refused = []
    for maker in _MAKERS:
        try:
            codec = av.Codec(f"{name.removesuffix('-hw')}_{maker}", "w")
        except av.codec.codec.UnknownCodecError:
            continue
        why = _refusal(codec, width, height)
        if why is None:
            log.info("codec %s: is %s", name, codec.name)
            return codec
        refused.append(f"{codec.name}: {why}")
    raise DeviceUnavailable(
        f"codec {name}: no hardware encoder works here ({'; '.join(refused)}); leave the -hw out for the CPU's"
    )


def _refusal(codec: av.Codec, width: int, height: int) -> str | None:
    """Why an encoder cannot be opened on this machine; None: it can."""
    context = av.CodecContext.create(codec.name, "w")
    forms = [form.name for form in codec.video_formats or ()]
    context.width, context.height, context.time_base = width, height, Fraction(1, 25)
    context.pix_fmt = "yuv420p" if "yuv420p" in forms or not forms else forms[0]
    try:
        context.open(strict=False)
    except (av.FFmpegError, OSError) as error:
        return (error.strerror or str(error)).lower()
    return None
