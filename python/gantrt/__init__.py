"""gantrt: image-to-image GANs from training to real time. This package is the runtime; it never imports torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    BuildFailed,
    DeviceUnavailable,
    EngineCorrupt,
    EngineMismatch,
    GantrtError,
    GateFailed,
    OutOfMemory,
    TruncatedInput,
    UnsupportedInput,
    UsageError,
)

if TYPE_CHECKING:
    from ._core import frame_to_tensor, norm_act, tensor_to_frame
    from .translator import Translator, load

__version__ = "0.1.0"

# What costs time to import comes when it is first asked for: `import gantrt` stays under 0.2 s.
_LAZY = {
    "load": "translator",
    "Translator": "translator",
    "norm_act": "_core",
    "frame_to_tensor": "_core",
    "tensor_to_frame": "_core",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'gantrt' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


__all__ = [
    "BuildFailed",
    "DeviceUnavailable",
    "EngineCorrupt",
    "EngineMismatch",
    "GantrtError",
    "GateFailed",
    "OutOfMemory",
    "Translator",
    "TruncatedInput",
    "UnsupportedInput",
    "UsageError",
    "__version__",
    "frame_to_tensor",
    "load",
    "norm_act",
    "tensor_to_frame",
]
