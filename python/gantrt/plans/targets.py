"""The two runtimes of plans. TensorRT builds on the GPU a plan is for; TensorRT-RTX anywhere, for named GPUs."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from ..errors import DeviceUnavailable, UsageError
from . import driver

log = logging.getLogger("gantrt")

_LINES_KEPT = 12


@dataclass(frozen=True)
class Target:
    """A runtime, and where the two differ."""

    name: str  # as `--target` and the manifest say it
    module: str
    install: str  # the command
    needs_gpu: bool  # to build
    channels_last: dict[str, str]  # element type -> the TensorFormat its convolutions like, by name

    def missing(self) -> str | None:
        """None when the library is here, else one line with the command that installs it."""
        found = importlib.util.find_spec(self.module)
        return None if found else f"{self.name}: {self.module} is not installed; {self.install}"

    def load(self) -> Any:
        """The library's Python module. Raises DeviceUnavailable where it is not, or does not load."""
        missing = self.missing()
        if missing:
            raise DeviceUnavailable(missing)
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            raise DeviceUnavailable(f"{self.name}: {self.module} does not load ({error}); {self.install}") from error


# TensorRT's header says of HWC: float32 and uint8; of HWC8: float16 and bfloat16, channels in groups of eight.
# TensorRT-RTX 1.7 takes HWC for float16 too, and puts transposes beside anything else; of bfloat16 in HWC it breaks
# its heap, so that this goes by planes.
TENSORRT = Target(
    "tensorrt",
    "tensorrt",
    "pip install 'gantrt[tensorrt]'",
    needs_gpu=True,
    channels_last={"float32": "HWC", "float16": "HWC8", "bfloat16": "HWC8"},
)
TENSORRT_RTX = Target(
    "tensorrt-rtx",
    "tensorrt_rtx",
    "pip install 'gantrt[rtx]'",
    needs_gpu=False,
    channels_last={"float32": "HWC", "float16": "HWC", "bfloat16": "LINEAR"},
)
TARGETS = {target.name: target for target in (TENSORRT, TENSORRT_RTX)}


def default_target() -> str:
    """TensorRT where it can build, else TensorRT-RTX."""
    return TENSORRT.name if not TENSORRT.missing() and not driver.missing() else TENSORRT_RTX.name


def parse_capability(text: str) -> int:
    """Ten times the compute capability: 89 of "8.9". Raises UsageError for what is none."""
    match = re.fullmatch(r"(\d{1,2})\.(\d)", text)
    if not match:
        raise UsageError(f"compute capability {text!r}: write it as NVIDIA does, such as 8.9 (doctor shows this GPU's)")
    return int(match[1]) * 10 + int(match[2])


def show_capability(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"


def known_capabilities(trt: Any) -> list[int]:
    """Ten times those of the GPUs that TensorRT-RTX builds for. On others it also refuses to run what it built."""
    return sorted(int(name[2:]) for name in trt.ComputeCapability.__members__ if name.startswith("SM"))


def make_logger(trt: Any) -> Any:
    """A logger for `trt`. `logger.errors` are its last complaints; all it says goes to our log with -vv."""
    return _logger_class(trt)()


def _logger_class(trt: Any) -> type[Any]:
    severity = trt.ILogger.Severity
    grave = (severity.INTERNAL_ERROR, severity.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_LINES_KEPT)

        def log(self, level: Any, text: str) -> None:
            if level in grave:
                self.errors.append(text)
            if level != severity.VERBOSE:
                log.debug("%s: %s", trt.__name__, text)

        def gist(self) -> str:
            """Its first complaint, in one line: those that follow are its consequences."""
            return " ".join(self.errors[0].split())[:400] if self.errors else "it gave no reason"

    return Logger
