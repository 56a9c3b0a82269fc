"""What a picture file says of itself before it is decoded: its format, size and orientation.

Read here, not by OpenCV, because a size must be judged before memory is given for it, and because
OpenCV keeps the alpha channel only where it ignores the orientation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

SNIFF_BYTES = 16


@dataclass(frozen=True)
class Header:
    format: str  # "png", "jpeg", "gif", "bmp", "webp" or "tiff"
    width: int  # as stored, before the orientation is applied
    height: int
    orientation: int = 1  # EXIF, 1..8


def sniff(head: bytes) -> str | None:
    """The format of a file that begins with `head` (SNIFF_BYTES of it suffice); None: none that we read."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name if name != "webp" or head[8:12] == b"WEBP" else None
    return None


def read_header(data: bytes) -> Header:
    """The header of a whole file.

    Raises ValueError, with the reason, if it is damaged, cut off, or of a format we do not read.
    """
    name = sniff(data[:SNIFF_BYTES])
    if name is None:
        raise ValueError("it is no PNG, JPEG, WebP, BMP, GIF or TIFF")
    try:
        header = _READERS[name](data)
    except (struct.error, IndexError) as error:
        raise ValueError(f"the header of this {name.upper()} is damaged or cut off") from error
    if header.width < 1 or header.height < 1:
        raise ValueError(f"the header of this {name.upper()} says {header.width}x{header.height}")
    return header


def gif_pictures(data: bytes, most: int) -> int:
    """How many pictures a GIF holds, counted up to `most`; those of a damaged end are not counted."""
    count = 0
    try:
        at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
        while count < most and data[at] in (0x21, 0x2C):
            if data[at] == 0x2C:
                count += 1
                at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)  # and the code size
            else:
                at += 2
            while data[at]:  # a chain of blocks
                at += 1 + data[at]
            at += 1
    except IndexError:
        pass
    return count


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"RIFF", "webp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise ValueError("the header of this PNG is damaged: its first chunk is not IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, at, kind = 1, 8, b""
    while kind != b"IEND" and at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : at + 8 + size])
        at += 12 + size
    if kind != b"IEND" or at > len(data):
        raise ValueError("this PNG is cut off: it does not reach its end")
    return Header("png", width, height, orientation)


def _jpeg(data: bytes) -> Header:
    orientation, at, size = 1, 2, (0, 0)
    while True:
        if data[at] != 0xFF:
            raise ValueError("the header of this JPEG is damaged: a segment does not begin where one should")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:  # the picture itself begins
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", body, 1)
            size = width, height
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body[6:])
        at += 2 + length
    # Inside the picture 0xFF is escaped, so this marker can only be the end. Decoders paint a missing rest grey.
    if data.find(b"\xff\xd9", at) < 0:
        raise ValueError("this JPEG is cut off: it has no end marker")
    return Header("jpeg", *size, orientation)


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at] == 0x21:  # extensions, each a chain of blocks
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] != 0x2C:
        raise ValueError("this GIF has no picture in it")
    left, top, w, h = struct.unpack_from("<HHHH", data, at + 1)
    return Header("gif", max(width, left + w), max(height, top + h))


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header("bmp", width, abs(height))


def _webp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ValueError("this WebP is cut off")
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return Header("webp", width, height, _webp_orientation(data))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    raise ValueError("the header of this WEBP is damaged")


def _webp_orientation(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            return _exif_orientation(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    return 1


def _tiff(data: bytes) -> Header:
    tags = _tiff_tags(data)
    return Header("tiff", tags.get(0x100, 0), tags.get(0x101, 0), tags.get(0x112, 1))


def _exif_orientation(exif: bytes) -> int:
    """1..8; 1 where the EXIF block is damaged, because the picture is not."""
    try:
        orientation = _tiff_tags(exif).get(0x112, 1)
    except (struct.error, IndexError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Single numbers of the first directory, by tag."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, n = struct.unpack_from(order + "HHI", data, entry)
        if n == 1 and kind in (3, 4):
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return tags


_READERS: dict[str, Callable[[bytes], Header]] = {
    "png": _png,
    "jpeg": _jpeg,
    "gif": _gif,
    "bmp": _bmp,
    "webp": _webp,
    "tiff": _tiff,
}
