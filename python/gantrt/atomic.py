"""Files appear whole or not at all, and what a killed process left half-made is removed when the next one starts.

A temporary file or folder carries the id of its process in its name, and that process holds a lock on it (flock) for
as long as it works on it. One whose process is gone and whose lock can be had belongs to nobody: the id alone would
not do for containers and machines that share a folder, the lock alone not for writers that put a new file in the
place of ours. Where the system has no such locks nothing is removed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import GantrtError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\..*\.(\d+)-\d+\.gantrt\.part(\.[^.]*)?", re.DOTALL)
_LONGEST_NAME = 255  # bytes, of most file systems

_number = itertools.count()
_ours: set[str] = set()  # temporaries that are being written, absolute
_cleared: set[str] = set()  # folders where this process has looked for what others left


@contextlib.contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, with the same suffix; renamed to `path` when the block ends without an error.

    On an error nothing is left behind. Of such a temporary path it is the path itself, so that writers nest. A link
    stays one: what it leads to is replaced. Raises GantrtError if the folder cannot be written, if `path` is a device,
    a pipe or a folder, or if it exists and `overwrite` is False.
    """
    path = Path(path)
    if os.path.abspath(path) in _ours:
        yield path
        return
    if path.exists() and not overwrite:
        raise GantrtError(f"{path}: exists already; give --overwrite to replace it")
    if path.exists() and not path.is_file():
        raise GantrtError(f"{path}: is no file, and is not replaced by one; give another name")
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_once(path.parent)
        temporary, descriptor = _make_beside(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield temporary
        try:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _settle(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error
    finally:
        _ours.discard(os.path.abspath(temporary))
        temporary.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def scratch_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder for the block, in `parent` or where the system keeps temporary files; other names begin otherwise.

    Those that killed processes left under the same prefix are removed first. Raises OSError.
    """
    clear_scratch(prefix, parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))
    descriptor = lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def clear_scratch(prefix: str, parent: Path | None = None) -> None:
    """Remove the scratch folders of that prefix whose processes are gone."""
    folder = parent or Path(tempfile.gettempdir())
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)-.*", re.DOTALL)
    for entry, process in _entries(folder, pattern):
        if entry.is_dir(follow_symlinks=False) and abandoned(entry.path, process):
            shutil.rmtree(entry.path, ignore_errors=True)


def lock(path: str | Path) -> int | None:
    """A descriptor that holds the lock on a file or folder until it is closed; None where there are no locks."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another has it, or this file system has none
        os.close(descriptor)
        return None
    return descriptor


def abandoned(path: str | Path, process: int) -> bool:
    """Whether a temporary file or folder that `process` made belongs to nobody any more."""
    if fcntl is None or (process != os.getpid() and _runs(process)):
        return False
    try:
        descriptor = lock(path) if os.lstat(path).st_uid == os.geteuid() else None
    except OSError:  # gone, or not ours to open
        return False
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _make_beside(path: Path) -> tuple[Path, int | None]:
    while True:
        tail = f".{os.getpid()}-{next(_number)}.gantrt.part{path.suffix}"
        stem = path.stem
        while len(os.fsencode(f".{stem}{tail}")) > _LONGEST_NAME and stem:
            stem = stem[:-1]
        temporary = path.with_name(f".{stem}{tail}")
        _ours.add(os.path.abspath(temporary))  # before it is there: no other thread takes it for something left
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except OSError as error:
            _ours.discard(os.path.abspath(temporary))
            if isinstance(error, FileExistsError):  # of an earlier process with our id, which containers give again
                continue
            raise
        return temporary, lock(temporary)


def _clear_once(folder: Path) -> None:
    """Remove what killed processes left in a folder, the first time this process writes there."""
    name = os.path.abspath(folder)
    if name in _cleared:
        return
    _cleared.add(name)
    for entry, process in _entries(folder, _PART):
        if (
            os.path.abspath(entry.path) not in _ours
            and entry.is_file(follow_symlinks=False)
            and abandoned(entry.path, process)
        ):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _entries(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[os.DirEntry[str], int]]:
    """What lies in a folder under names of a pattern, each with the process in its name."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # it may be writable, and not readable
        for entry in entries:
            if match := pattern.fullmatch(entry.name):
                yield entry, int(match[1])


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _unwritable(path: Path, error: OSError) -> GantrtError:
    return GantrtError(f"{path}: cannot be written ({error.strerror or error})")


def _settle(folder: Path) -> None:
    """Bring the new name itself to the disk, before what it replaces may be deleted. Not all systems can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
