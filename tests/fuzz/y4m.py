"""A YUV4MPEG2 stream: its header, and its frames."""

from __future__ import annotations

import io

from gantrt.errors import UnsupportedInput
from gantrt.video.images import MAX_PIXELS
from gantrt.video.schemes.y4m import Y4MSource

ALLOWED = (UnsupportedInput,)


def seeds() -> list[bytes]:
    frame = b"FRAME\n" + bytes(range(24))
    return [
        b"YUV4MPEG2 W4 H4 F25:1 Ip A1:1 C420jpeg XCOLORRANGE=FULL\n" + 2 * frame,
        b"YUV4MPEG2 W3 H2 F30000:1001 C444\n" + b"FRAME Ip\n" + bytes(18),
        b"YUV4MPEG2 W5 H3 C422p10\n" + b"FRAME\n" + bytes(66),
        b"YUV4MPEG2 H2 W2 Cmono A0:0 I?\n" + b"FRAME\n" + bytes(4),
        b"YUV4MPEG2 W2 H2 C411 Fx:y It\n",
    ]


def run(data: bytes) -> None:
    with Y4MSource(io.BytesIO(data)) as source:
        assert 0 < source.width * source.height <= MAX_PIXELS
        assert 0 < source.rate < 1 << 31
        for frame in source:
            assert frame.image.shape == (source.height, source.width, 3)
