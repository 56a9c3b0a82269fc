"""The binary messages of a live connection: sixteen bytes of header, then the picture. Little-endian.

    offset  type  request                            reply
    0       u8    version: 1                         the same
    1       u8    format: 0 raw RGB, 1 JPEG, 2 WebP, 3 PNG   the same
    2       u16   0                                  frames given up for this one since the last reply
    4       u32   sequence number, the client's      the same
    8       u16   width (raw only, else 0)           width
    10      u16   height (raw only, else 0)          height
    12      u32   0                                  microseconds from arrival to reply

Raw is height rows of width pixels of three bytes. A reply has its request's size and format.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .pictures import decode, picture_kind
from .problems import Problem, too_large

VERSION = 1
RAW, JPEG, WEBP, PNG = range(4)
HEADER = struct.Struct("<BBHIHHI")

_KINDS = {JPEG: "jpeg", WEBP: "webp", PNG: "png"}
_ENCODE = {
    JPEG: (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 85]),
    WEBP: (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
    PNG: (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]),
}


@dataclass(frozen=True)
class Message:
    """A frame on the wire. `picture` is encoded, or raw RGB."""

    format: int
    sequence: int
    picture: bytes | memoryview
    width: int = 0
    height: int = 0
    replaced: int = 0
    microseconds: int = 0

    def pack(self) -> bytes:
        head = HEADER.pack(
            VERSION, self.format, self.replaced, self.sequence, self.width, self.height, self.microseconds
        )
        return head + bytes(self.picture)

    @classmethod
    def unpack(cls, data: bytes) -> Message:
        """Raises Problem for what is no message."""
        if len(data) <= HEADER.size:
            raise Problem(400, "malformed", f"a frame has {HEADER.size} bytes of header and a picture")
        version, form, replaced, sequence, width, height, microseconds = HEADER.unpack_from(data)
        if version != VERSION or form not in (RAW, *_KINDS):
            raise Problem(
                400, "malformed", f"there is version {VERSION} with formats 0 to 3, not {version} with {form}"
            )
        return cls(form, sequence, memoryview(data)[HEADER.size :], width, height, replaced, microseconds)


def translate_frame(translate: Callable[[Any], Any], message: Message, max_pixels: int) -> Message:
    """The reply to a request, without its counts and times. Raises Problem."""
    if message.format == RAW:
        frame = _raw(message, max_pixels)
        translated = translate(frame)
        return Message(RAW, message.sequence, translated.tobytes(), frame.shape[1], frame.shape[0])
    data = bytes(message.picture)
    if picture_kind(data) != _KINDS[message.format]:
        raise Problem(415, "unsupported", f"the header says {_KINDS[message.format].upper()}, and the picture is not")
    translated = translate(decode(data, max_pixels).image)
    suffix, options = _ENCODE[message.format]
    encoded = cv2.imencode(suffix, cv2.cvtColor(translated, cv2.COLOR_RGB2BGR), options)[1]
    return Message(message.format, message.sequence, encoded.tobytes(), translated.shape[1], translated.shape[0])


def _raw(message: Message, max_pixels: int) -> NDArray[np.uint8]:
    width, height = message.width, message.height
    if width * height > max_pixels:
        raise too_large("the frame", pixels=max_pixels)
    if width * height == 0 or len(message.picture) != width * height * 3:
        raise Problem(
            400, "malformed", f"a raw frame of {width}x{height} is not {len(message.picture)} bytes, but three a pixel"
        )
    return np.frombuffer(message.picture, np.uint8).reshape(height, width, 3)
