"""One picture in, one out: judged by its header before it is decoded, and only in formats the web has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..errors import UnsupportedInput
from ..video.headers import SNIFF_BYTES, sniff
from ..video.images import Picture, decode_picture, encode_picture
from .problems import Problem, too_large

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_START_OF_SCAN = b"\xff\xda"
_MOST_SCANS = 100  # a progressive JPEG has about ten; each makes a decoder walk over the whole picture


def picture_kind(data: bytes) -> str:
    """ "png", "jpeg" or "webp", by content; Problem if it is none of these."""
    kind = sniff(data[:SNIFF_BYTES])
    if kind not in MEDIA_TYPES:
        raise Problem(415, "unsupported", "this is no PNG, JPEG or WebP picture")
    return kind


def decode(data: bytes, max_pixels: int) -> Picture:
    """A PNG, JPEG or WebP file as a picture. Raises Problem for what cannot or may not be decoded."""
    if picture_kind(data) == "jpeg" and data.count(_START_OF_SCAN) > _MOST_SCANS:
        raise Problem(422, "unreadable", f"the picture: this JPEG has more than {_MOST_SCANS} scans")
    try:
        return decode_picture(data, "the picture", max_pixels)
    except UnsupportedInput as error:
        if "megapixels" in str(error):
            raise too_large("the picture", pixels=max_pixels) from error
        raise Problem(422, "unreadable", str(error)) from error


def translate_picture(
    translate: Callable[[Any], Any], data: bytes, max_pixels: int, kind: str | None = None
) -> tuple[bytes, str]:
    """The translation of a picture file as a picture file, and its media type.

    kind  "png", "jpeg" or "webp"; None: as it came
    Alpha is kept where the format has it; EXIF, and so the place a photograph was taken at, is not.
    Raises Problem for what cannot or may not be decoded.
    """
    kind = kind or picture_kind(data)
    picture = decode(data, max_pixels)
    translated = dataclasses.replace(picture, image=translate(picture.image))
    return encode_picture(translated, _SUFFIXES[kind]), MEDIA_TYPES[kind]
