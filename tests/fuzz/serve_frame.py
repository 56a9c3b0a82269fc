"""A binary message of a live connection, translated."""

from __future__ import annotations

import cv2
import numpy as np
from gantrt.serve.frames import HEADER, Message, translate_frame
from gantrt.serve.problems import Problem

ALLOWED = (Problem,)

_MOST = 1 << 14  # pixels


def seeds() -> list[bytes]:
    picture = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    found = [HEADER.pack(1, 0, 0, 7, 5, 6, 0) + picture.tobytes()]
    for form, suffix in enumerate((".jpg", ".webp", ".png"), 1):
        found.append(HEADER.pack(1, form, 0, 7, 0, 0, 0) + cv2.imencode(suffix, picture)[1].tobytes())
    return found


def run(data: bytes) -> None:
    message = Message.unpack(data)
    reply = translate_frame(lambda frame: frame.copy(), message, _MOST)
    assert Message.unpack(reply.pack()).sequence == message.sequence
    assert 0 < reply.width * reply.height <= _MOST
