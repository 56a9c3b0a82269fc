"""What TensorRT measured in earlier builds, so that it does not measure it again.

One file for each version and GPU: a magic word, the SHA-256 of the rest, the rest. A file that does not fit is ignored.
TensorRT-RTX measures nothing when it builds, and has no use for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from ..errors import GantrtError
from .targets import Target

log = logging.getLogger("gantrt")

_MAGIC = b"gantrtTC"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size


@contextlib.contextmanager
def kept(trt: Any, target: Target, config: Any, asked: str | None, capability: str) -> Iterator[None]:
    """Give `config` the timing cache of this version and GPU; write it back, merged, when the build has succeeded."""
    path = cache_path(asked, target, str(trt.__version__), capability)
    if path is None or not target.needs_gpu:
        yield
        return
    config.set_timing_cache(config.create_timing_cache(load(path)), ignore_mismatch=False)
    yield
    merged = config.get_timing_cache()
    since = load(path)  # what others have added while we built
    if since:
        merged.combine(config.create_timing_cache(since), ignore_mismatch=False)
    try:
        save(path, bytes(memoryview(merged.serialize())))
    except GantrtError as error:
        log.info("%s; the next build will measure again", error)


def cache_path(asked: str | None, target: Target, version: str, capability: str) -> Path | None:
    """The file named by the user, or that of this version and GPU in the user's cache folder; None for ""."""
    if asked is not None:
        return Path(asked) if asked else None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "gantrt" / target.name / f"{version}-{capability}.timing"


def load(path: Path) -> bytes:
    """What `save` wrote; b"" where there is nothing, or it is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        log.info("%s: cannot be read (%s); measuring anew", path, error.strerror)
        return b""
    if data[:_HEAD] != _MAGIC + hashlib.sha256(data[_HEAD:]).digest():
        log.info("%s: no timing cache, or damaged; measuring anew", path)
        return b""
    return data[_HEAD:]


def save(path: Path, cache: bytes) -> None:
    """Raises GantrtError if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(_MAGIC + hashlib.sha256(cache).digest() + cache)
