"""Whether a file ends before its own header says: Matroska, WebM, MP4, MOV and AVI write how long their parts are.

FFmpeg plays what is there of a clip and says nothing, where it was cut between two frames.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx")  # that an MP4 begins with
_MOST_PARTS = 1_000_000  # of a fragmented MP4; more are not looked at


def is_cut(path: Path) -> bool:
    """False also for files of other kinds, and for those that do not say how long they are."""
    try:
        with path.open("rb") as file:
            head, end = file.read(12), path.stat().st_size
            if head.startswith(_EBML):
                return _matroska_end(file) > end
            if head[4:8] in _BOXES:
                return _boxes_end(file, end) > end
            if head.startswith(b"RIFF") and head[8:] == b"AVI ":
                return 8 + int(struct.unpack("<I", head[4:8])[0]) > end
    except (OSError, struct.error):
        pass
    return False


def _matroska_end(file: BinaryIO) -> int:
    """Where its segment ends; 0 where it does not say."""
    file.seek(len(_EBML))
    file.seek(_variable(file) or 0, 1)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return 0
    size = _variable(file)
    return 0 if size is None else file.tell() + size


def _variable(file: BinaryIO) -> int | None:
    """A number of one to eight bytes: as many as its first has zeros in front, and one. None: unknown, all ones."""
    first = (file.read(1) or b"\0")[0]
    more = 8 - first.bit_length()
    if more > 7:
        return None
    value = (first & (0x7F >> more)) << 8 * more | int.from_bytes(file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _boxes_end(file: BinaryIO, end: int) -> int:
    """Where the last box ends."""
    at, size = 0, 0
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8 or at + size >= end:  # 0: as far as the file goes
            return at + size
        at += size
    return at
