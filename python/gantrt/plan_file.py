"""The manifest inside a TensorRT plan, read and sealed without TensorRT.

It is the name of the network, which TensorRT keeps as it is, somewhere near the head of the file. A checksum of the
whole file stands in it, because a runtime that is handed a damaged plan may do anything, also end the process.
"""

from __future__ import annotations

import json
import mmap
import re
import zlib
from pathlib import Path

from .errors import EngineCorrupt, EngineMismatch
from .manifest import MAX_CHARS, Manifest

PLAN_SUFFIX = ".plan"
UNSEALED = "00000000"  # target["crc32"] while a plan is built; the checksum is that of the file with this in it

_BEGIN = Manifest().to_json()[:9].encode()  # '{"batch":'
_SEAL = re.compile(rb'"crc32":"([0-9a-f]{8})"')
_MAGIC = re.compile(rb"[a-z]trt")  # TensorRT's and TensorRT-RTX's headers
_SMALLEST = 64  # a header
_BLOCK = 1 << 24
_MOST_TRIED = 1000  # places where a manifest could begin: a hostile file has millions, and takes minutes


def read_plan_manifest(path: Path) -> Manifest | None:
    """The manifest of a plan; None for a plan of another program.

    Raises EngineCorrupt if it is no plan or damaged, EngineMismatch if a newer gantrt made it.
    """
    try:
        with path.open("rb") as file, _mapped(file.fileno(), path) as data:
            if len(data) < _SMALLEST or not _MAGIC.match(data[:4]):
                raise EngineCorrupt(f"{path}: not a TensorRT plan, or damaged; export it again")
            span = _manifest_span(data)
            if span is None:
                return None
            _check_seal(data, *span, path)
            return Manifest.from_json(data[slice(*span)].decode("utf-8", "replace"))
    except OSError as error:
        gist = "no such engine" if isinstance(error, FileNotFoundError) else error.strerror
        raise EngineCorrupt(f"{path}: {gist}") from error
    except (EngineCorrupt, EngineMismatch) as error:
        raise error if str(error).startswith(str(path)) else type(error)(f"{path}: {error}") from error


def seal(path: Path) -> None:
    """Write the checksum into the manifest of the plan at `path`, which must hold UNSEALED."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        span = _manifest_span(data)
        at = _seal_at(data, *span) if span else None
        if at is None:
            raise EngineCorrupt(f"{path}: TensorRT has not kept the manifest; this version cannot be used")
        data[at : at + 8] = f"{_checksum(data, at):08x}".encode()


def _mapped(descriptor: int, path: Path) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise EngineCorrupt(f"{path}: is empty; export it again") from error


def _manifest_span(data: mmap.mmap) -> tuple[int, int] | None:
    """(begin, end) of the first JSON object in `data` that has the keys of a manifest."""
    begin = data.find(_BEGIN)
    for _ in range(_MOST_TRIED):
        if begin < 0:
            break
        text = data[begin : begin + MAX_CHARS].decode("latin-1")
        try:
            found, length = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            pass
        else:
            if "schema" in found and "target" in found:
                return begin, begin + length
        begin = data.find(_BEGIN, begin + 1)
    return None


def _seal_at(data: mmap.mmap, begin: int, end: int) -> int | None:
    found = _SEAL.search(data[begin:end])
    return begin + found.start(1) if found else None


def _check_seal(data: mmap.mmap, begin: int, end: int, path: Path) -> None:
    at = _seal_at(data, begin, end)
    if at is None or data[at : at + 8] != f"{_checksum(data, at):08x}".encode():
        raise EngineCorrupt(f"{path}: damaged: its checksum does not fit; copy it again, or export it again")


def _checksum(data: mmap.mmap, at: int) -> int:
    """CRC-32 of `data` with UNSEALED at `at`."""
    crc = 0
    for begin, end in ((0, at), (at + 8, len(data))):
        for block in range(begin, end, _BLOCK):
            crc = zlib.crc32(data[block : min(block + _BLOCK, end)], crc)
        if end == at:
            crc = zlib.crc32(UNSEALED.encode(), crc)
    return crc
