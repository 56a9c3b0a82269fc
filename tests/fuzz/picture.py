"""A picture file of any format: its header as we read it, its pixels as OpenCV does."""

from __future__ import annotations

import cv2
import numpy as np
from gantrt.errors import UnsupportedInput
from gantrt.video.headers import gif_pictures
from gantrt.video.images import decode_picture

ALLOWED = (UnsupportedInput,)

_MOST = 1 << 14  # pixels


def seeds() -> list[bytes]:
    picture = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    found = [cv2.imencode(suffix, picture)[1].tobytes() for suffix in (".png", ".jpg", ".webp", ".bmp", ".tiff")]
    found += [cv2.imencode(suffix, picture[..., 0])[1].tobytes() for suffix in (".png", ".jpg", ".bmp")]
    found.append(cv2.imencode(".png", picture.astype(np.uint16) * 257)[1].tobytes())
    found.append(cv2.imencode(".png", np.dstack([picture, picture[..., :1]]))[1].tobytes())
    palette = bytes(range(12))
    found.append(b"GIF89a\x02\0\x02\0\x81\0\0" + palette + b"\x2c\0\0\0\0\x02\0\x02\0\0\x02\x03\x44\x34\x05\0\x3b")
    return found


def run(data: bytes) -> None:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    gif_pictures(data, 100)
    picture = decode_picture(data, "picture", _MOST)
    assert picture.image.dtype == np.uint8
    assert picture.image.ndim == 3
    assert picture.image.shape[2] == 3
    assert 0 < picture.image.size <= 3 * _MOST
    assert picture.alpha is None or picture.alpha.shape == picture.image.shape[:2]
