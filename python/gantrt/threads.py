"""How many threads this process may use: what its user says, its affinity, and its container's quota of CPU time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .errors import UsageError

ENV = "GANTRT_THREADS"

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_NODES = Path("/sys/devices/system/node")


def thread_limit(asked: int | None = None) -> int | None:
    """Threads to use where fewer than all are wanted or paid for; None leaves it to the library.

    What the caller asked for comes first, then $GANTRT_THREADS, then a CPU quota below the number of CPUs: a container
    with `--cpus 2` on a large host sees all its CPUs, and with a thread for each would be stopped most of the time.
    Raises UsageError if $GANTRT_THREADS is no number of at least 1.
    """
    if asked is not None:
        return asked
    text = os.environ.get(ENV, "").strip()
    if text:
        if not text.isdecimal() or not int(text):
            raise UsageError(f"{ENV}={text!r}: must be a whole number of at least 1")
        return int(text)
    quota = cpu_quota()
    return math.ceil(quota) if quota is not None and quota < usable_cpus() else None


def usable_cpus() -> int:
    """The CPUs of this process's affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """CPUs' worth of time that this process's control groups allow, the tightest of them; None: no limit."""
    found = [quota for folder in _groups(cgroups, membership) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def numa_nodes(nodes: Path = _NODES) -> int:
    """Memory nodes that have one of this process's CPUs; 1 where that is not known."""
    if not hasattr(os, "sched_getaffinity"):
        return 1
    mine = os.sched_getaffinity(0)
    lists = [path.read_text() for path in nodes.glob("node[0-9]*/cpulist")]
    return max(sum(bool(mine & _cpus(text)) for text in lists), 1)


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders of this process's CPU control group and of those above it, version 2 or 1."""
    yield cgroups  # what a container sees as its own
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:  # hierarchy:controllers:path
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / controllers if controllers else cgroups
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for depth in range(len(parts) + 1):
            yield root.joinpath(*parts[:depth])


def _quota(folder: Path) -> float | None:
    for read in (_version_2, _version_1):
        try:
            quota, period = read(folder)
        except (OSError, ValueError):
            continue
        return quota / period if quota > 0 and period > 0 else None
    return None


def _version_2(folder: Path) -> tuple[int, int]:
    quota, period = (folder / "cpu.max").read_text().split()  # "max 100000" is no limit
    return (-1 if quota == "max" else int(quota)), int(period)


def _version_1(folder: Path) -> tuple[int, int]:
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())


def _cpus(text: str) -> set[int]:
    """Of the kernel's list, "0-3,8,10-11"."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found |= set(range(int(first), int(last or first) + 1))
    return found
