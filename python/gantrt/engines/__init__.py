"""Engines: the folder is the registry. A file here named `<runtime>.py` is the engine `<runtime>`.

Each exports
    SUFFIXES        file endings it opens, e.g. (".onnx",)
    DEVICES         what it can run on, e.g. ("cpu",)
    PRIORITY        among engines that fit, the highest wins
    missing()       None when its library is here, else one line with the command that installs it
    open(path, manifest, options) -> Engine
and imports its own library inside those functions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..manifest import Manifest


@dataclass(frozen=True)
class Options:
    """How an engine is to be opened. None leaves the choice to the engine."""

    device: str = "cpu"  # "cpu", "cuda" or "cuda:N"
    precision: str | None = None  # "fp32" forces full precision where the engine would choose less
    threads: int | None = None
    size: tuple[int, int] | None = None  # (height, width) for a dynamic engine
    cache_dir: str | None = None  # compiled-model cache; None: the user's cache folder; "": none


class Engine(Protocol):
    """One network, ready to run. Arrays are the caller's: `run` reads `x` and fills `y`, and keeps neither."""

    name: str  # the runtime, e.g. "openvino"
    device: Literal["cpu", "cuda"]
    manifest: Manifest
    precision: str  # what really runs, e.g. "bf16"

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) this engine will run a frame of the given size at."""
        ...

    def run(self, x: Any, y: Any, stream: int | None = None) -> None:
        """Fill y (N, C, H, W) float32 from x (N, C, H, W) float32, both in the manifest's range.

        Thread-safe. On "cpu" both are C-contiguous numpy arrays and y is complete on return;
        on "cuda" they are device arrays and y is complete when `stream` is.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Names and versions of the libraries and device used."""
        ...

    def close(self) -> None: ...
