"""Libraries we call that would report their use to their makers when they are imported: in our processes they do not.

OpenVINO sends an event to Google Analytics on `import openvino`, NNCF on its own import and calls, both by the package
openvino_telemetry and without asking first; ONNX Runtime (1.31's Linux wheels) to Microsoft, some seconds after a
session was made. Who imported such a library before us has decided otherwise for the process.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

_REPORTER = "openvino_telemetry"  # both do without it where it is not installed


def import_silent(name: str) -> Any:
    """The library `name`, imported so that it reports nothing: "openvino", "onnxruntime" or "nncf"."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("NNCF_CI", "1")
    if _REPORTER in sys.modules:
        return importlib.import_module(name)
    sys.modules[_REPORTER] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[_REPORTER]
