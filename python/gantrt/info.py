"""What a Translator says of itself: what it is and runs on, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .manifest import Manifest
from .timing import Summary


@dataclass(frozen=True)
class Info:
    """What a Translator is and runs on."""

    path: Path
    manifest: Manifest
    runtime: str
    device: str
    precision: str  # what really runs
    versions: dict[str, str]
    color: str
    fit: str
    streams: int

    def __str__(self) -> str:
        spec = self.manifest.input
        size = "any size" if spec.dynamic else f"{spec.height}x{spec.width}"
        libraries = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.path.name}: {self.manifest.family}, {size}, {self.precision} on {self.device} ({libraries})"


@dataclass(frozen=True)
class Stats:
    """Times in milliseconds of the last frames (some thousands are kept). A frame of a batch counts all its batch."""

    frames: int  # ever translated, or since the last reset
    wait: Summary  # in the queue, and for a free stream
    pre: Summary
    engine: Summary
    post: Summary
    total: Summary  # from the call to the finished frame
    first_frame_ms: float | None
    load_ms: float
