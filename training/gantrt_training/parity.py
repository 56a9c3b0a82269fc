"""Does an engine make the pictures that torch makes? Each runtime that is here is asked."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gantrt.engine_file import inlined
from gantrt.errors import BuildFailed
from gantrt.telemetry import import_silent
from numpy.typing import NDArray

Array = NDArray[np.float32]
Run = Callable[[Array], Array]
Pair = tuple[Array, Array]  # (input, the picture torch makes of it), each (N, C, H, W)

_BEST_DB = 200.0  # what two equal pictures are given, so that JSON can hold it
_PEAK = 2.0  # of the range [-1, 1]

# What an engine must reach. fp32: a grey level is 8e-3, a wrong operation makes 1e-2 and more, the order of summation
# at full size up to 6e-5. Behind the sum of a million products in full U-GAT-IT it makes 2.2e-4, and 8e-5 in torch.
# Half precision: full-size networks with random weights reach 62 dB (fp16) and 45 dB (bf16).
# int8 has passed its gate (fidelity.py) under OpenVINO; another runtime, which rounds elsewhere, may be a little worse.
WORST_FP32 = 2e-4
WORST_FP32_LONG_SUMS = 5e-4
LONG_SUM = 1 << 18
LEAST_DB = {"fp16": 50.0, "bf16": 35.0, "int8": 33.0}
SLACK_DB = {"int8": 1.0}


@dataclass(frozen=True)
class Parity:
    """How far one runtime's pictures are from torch's."""

    runtime: str
    max_abs: float
    psnr_db: float

    def fault(self, precision: str, longest_sum: int = 0) -> str | None:
        """Why an engine of this precision may not be released; None if it may.

        longest_sum  inputs of the network's widest fully connected layer
        """
        if precision == "fp32":
            worst = WORST_FP32 if longest_sum < LONG_SUM else WORST_FP32_LONG_SUMS
            return None if self.max_abs <= worst else f"off by {self.max_abs:.1e}, at most {worst:.0e} allowed"
        least = LEAST_DB[precision] - SLACK_DB.get(precision, 0.0)
        return None if self.psnr_db >= least else f"{self.psnr_db:.1f} dB, at least {least:.0f} dB needed"


def measure(path: Path, precision: str, pairs: Sequence[Pair]) -> tuple[list[Parity], dict[str, str]]:
    """The parity of each runtime on (input, torch's output) pairs, each (N, C, H, W); and who was left out, and why.

    Raises BuildFailed if there is no runtime to ask.
    """
    measured, skipped = [], {}
    for runtime, (library, open_engine) in _RUNTIMES.items():
        if importlib.util.find_spec(library) is None:
            skipped[runtime] = "not installed"
        elif runtime == "onnxruntime" and precision == "bf16":
            skipped[runtime] = "has no bfloat16 convolution on a CPU"
        else:
            measured.append(_compare(runtime, open_engine(path, precision), pairs))
    if not measured:
        reasons = "; ".join(f"{runtime} {reason}" for runtime, reason in skipped.items())
        raise BuildFailed(
            f"export: nothing here can run the engine to check it ({reasons}); pip install 'gantrt[train]'"
        )
    return measured, skipped


def measure_bf16(path: Path, pairs: Sequence[Pair]) -> Parity | None:
    """How far OpenVINO is when it computes in bfloat16 what is float32; None where this CPU has no bfloat16.

    It is what OpenVINO does by itself on a CPU that has it.
    """
    if importlib.util.find_spec("openvino") is None or not openvino_has_bf16():
        return None
    return _compare("openvino_bf16", run_in_openvino(inlined(path), "bf16"), pairs)


def psnr(run: Run, pairs: Sequence[Pair]) -> tuple[float, float]:
    """(largest error, PSNR in dB) over all of `pairs`; 0 dB if something is not finite."""
    worst, squares, count = 0.0, 0.0, 0
    for given, wanted in pairs:
        difference = np.abs(run(given).astype(np.float64) - wanted)
        worst = max(worst, float(difference.max()) if np.isfinite(difference).all() else math.inf)
        squares += float(np.square(difference).sum())
        count += difference.size
    mean = squares / count
    decibel = min(_BEST_DB, 10 * math.log10(_PEAK**2 / mean)) if mean > 0 else _BEST_DB
    return worst, decibel if math.isfinite(worst) else 0.0


def _compare(runtime: str, run: Run, pairs: Sequence[Pair]) -> Parity:
    return Parity(runtime, *psnr(run, pairs))


def _onnxruntime(path: Path, precision: str) -> Run:
    onnxruntime = import_silent("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"input": x})[0]


def _openvino(path: Path, precision: str) -> Run:
    # left to itself it may compute an fp32 engine in less
    return run_in_openvino(inlined(path), "bf16" if precision == "bf16" else "f32")


def run_in_openvino(model: bytes, hint: str) -> Run:
    """The model as a function. hint  what float32 is computed in: "f32" or "bf16" """
    core = _openvino_core()
    compiled: Any = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda x: compiled(x)[0]


def openvino_has_bf16() -> bool:
    return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.cache
def _openvino_core() -> Any:
    """Kept until the process ends; see gantrt.engines.openvino.core."""
    return import_silent("openvino").Core()


_RUNTIMES: dict[str, tuple[str, Callable[[Path, str], Run]]] = {
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
}
