"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import GantrtError


@contextlib.contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, with the same suffix; renamed to `path` when the block ends without an error.

    On an error nothing is left behind. Raises GantrtError if the folder cannot be written, or if `path`
    exists and `overwrite` is False.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise GantrtError(f"{path}: exists already; give --overwrite to replace it")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise GantrtError(f"{path}: cannot be written ({error.strerror or error})") from error
    try:
        yield temporary
        try:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _settle(path.parent)
        except OSError as error:
            raise GantrtError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Bring the new name itself to the disk, before what it replaces may be deleted. Not all systems can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
