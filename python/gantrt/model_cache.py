"""Compiled models on disk, so that a second start is quick.

One file for each model, named by the hash of everything it depends on: the engine file's content, the library, the
options, the processor, and our own code. A file appears whole, is checked before it is used, and the least recently
used go when all together are over a limit. Processes may share a folder: none waits for another.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import logging
import mmap
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic import abandoned, lock
from .errors import UsageError
from .external_data import external_files

log = logging.getLogger("gantrt")

ENV_FOLDER = "GANTRT_CACHE"  # a folder, or "off"
ENV_LIMIT = "GANTRT_CACHE_GB"

_SUFFIX = ".model"
_LIMIT_GB = 4.0
_HEAD = 4096  # a page: the model behind it can be mapped into memory
_MAGIC = "gantrt.model/1"
_CHUNK = 4 << 20  # hashed by one thread at a time
_ABANDONED = 24 * 3600.0  # seconds after which what is half-written is removed, whoever wrote it


class Kept:
    """A compiled model as it lies on disk, mapped into this process; what is written to it stays here."""

    def __init__(self, path: Path) -> None:
        """Raises PermissionError if others could have written it, OSError or ValueError if it cannot be mapped."""
        with path.open("rb") as file:
            _check_ours(os.fstat(file.fileno()))
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        whole = np.frombuffer(self._map, np.uint8)
        self.head, self.model = whole[:_HEAD], whole[_HEAD:]

    def release(self) -> None:
        """Give the memory back; what is read again comes from the file. Only for a model nobody has written to."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class ModelCache:
    """A folder of compiled models. What goes wrong with it is logged and costs time, never a result."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit  # bytes

    @classmethod
    def open(cls, asked: str | None) -> ModelCache | None:
        """The cache in the folder asked for, else in $GANTRT_CACHE, else in the user's cache folder.

        None if that is "" or, in the environment, "off", or if the folder cannot be written.
        Raises UsageError if $GANTRT_CACHE_GB is no size.
        """
        folder = _folder(asked)
        if folder is None:
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return cls(folder, _limit())
            log.debug("cache: %s cannot be written; compiled models are not kept", folder)
        except OSError as error:
            log.debug("cache: no folder for it (%s); compiled models are not kept", error)
        return None

    def read(self, key: str) -> Kept | None:
        """The model kept under `key`; None if there is none, it is damaged, or another user could have written it."""
        path = self._path(key)
        try:
            kept = Kept(path)
            if json.loads(kept.head.tobytes()) != _head(kept.model):
                raise ValueError("its content is not what was written")
        except FileNotFoundError:
            return None
        except PermissionError as error:
            log.info("cache: %s is not used (%s)", path, error.strerror)
            return None
        except (OSError, ValueError) as error:
            log.info("cache: %s is damaged (%s); compiling anew", path, error)
            self.drop(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of its last use
        return kept

    def write(self, key: str, model: bytes | memoryview) -> None:
        """Keep a model, and let go of the least recently used ones if all are more than the limit."""
        if len(model) + _HEAD > self.limit:
            log.debug("cache: a model of %d MB is over the limit of %d MB", len(model) >> 20, self.limit >> 20)
            return
        head = json.dumps(_head(np.frombuffer(model, np.uint8))).encode().ljust(_HEAD)
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(".part", f"{os.getpid()}-", self.folder)
            held = lock(temporary)
            try:
                with open(handle, "wb") as file:
                    file.write(head)
                    file.write(model)
                os.replace(temporary, self._path(key))
            finally:
                if held is not None:
                    os.close(held)
        except OSError as error:
            log.info("cache: %s cannot be written (%s); the model is not kept", self.folder, error.strerror or error)
            if temporary:
                _remove(Path(temporary))
        else:
            self.prune()

    def drop(self, key: str) -> None:
        """Forget a model, whether it is there or not."""
        _remove(self._path(key))

    def prune(self) -> None:
        """Remove the least recently used models until the rest fits, and what was abandoned half-written."""
        kept = []
        for path in list(self.folder.glob("*")):
            with contextlib.suppress(OSError):  # another process was quicker
                status = path.stat()
                if path.suffix == _SUFFIX:
                    kept.append((status.st_mtime, status.st_size, path))
                elif path.suffix == ".part" and _is_left(path, status.st_mtime):
                    _remove(path)
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self.limit:
                return
            _remove(path)
            total -= size

    def size(self) -> tuple[int, int]:
        """How many models there are, and their bytes."""
        sizes = []
        for path in list(self.folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(OSError):
                sizes.append(path.stat().st_size)
        return len(sizes), sum(sizes)

    def _path(self, key: str) -> Path:
        return self.folder / (key + _SUFFIX)


def key_of(path: Path, depends_on: Mapping[str, Any]) -> str:
    """The name of the model compiled from the engine file at `path`, given all else that it depends on.

    Raises EngineCorrupt as `external_files` does.
    """
    files = [path, *external_files(path)]
    parts = {"file": [digest(np.memmap(each, np.uint8, "r")) for each in files], "code": _code(), **depends_on}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest(data: NDArray[np.uint8]) -> str:
    """SHA-256 of the SHA-256 of each chunk: all cores take part, and 200 MB take no time worth speaking of."""
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    with ThreadPoolExecutor(min(len(chunks), os.cpu_count() or 1) or 1) as pool:
        digests = list(pool.map(lambda chunk: hashlib.sha256(memoryview(chunk)).digest(), chunks))
    return hashlib.sha256(b"".join(digests)).hexdigest()


@functools.cache
def _code() -> str:
    """A hash of the modules that shape a model before it is compiled: a cache never hides a change of ours."""
    here = Path(__file__).parent
    hashed = hashlib.sha256()
    for source in sorted([*here.glob("*.py"), *(here / "engines").glob("*.py")]):
        hashed.update(source.name.encode() + b"\0" + source.read_bytes())
    return hashed.hexdigest()


def _head(model: NDArray[np.uint8]) -> dict[str, Any]:
    return {"schema": _MAGIC, "bytes": len(model), "sha256": digest(model)}


def _check_ours(status: os.stat_result) -> None:
    """A compiled model is machine code: in a folder where others may write, only our own and root's is run."""
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(errno.EPERM, f"it belongs to user {status.st_uid}")
    if status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, f"others may write it: mode {status.st_mode & 0o777:o}")


def _folder(asked: str | None) -> Path | None:
    if asked is not None:
        return Path(asked) if asked else None
    told = os.environ.get(ENV_FOLDER, "")
    if told == "off":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(told).expanduser() if told else Path(home) / "gantrt" / "models"


def _limit() -> int:
    text = os.environ.get(ENV_LIMIT) or str(_LIMIT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < 1e6:
        raise UsageError(f"{ENV_LIMIT}={text!r}: must be a number of gigabytes")
    return int(limit * (1 << 30))


def _is_left(part: Path, written: float) -> bool:
    """Whether a half-written model is nobody's: its process is gone, or it was last `written` (a date) long ago."""
    process = part.name.partition("-")[0]
    return (process.isdecimal() and abandoned(part, int(process))) or time.time() - written > _ABANDONED


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
