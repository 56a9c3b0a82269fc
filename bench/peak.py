"""The most multiplications this machine does a second, as peak.cpp measures it: what no network can exceed.

    python bench/peak.py

Chains of the processor's widest multiply-add on registers, one thread per usable CPU, compiled here for this very
processor. It is a harder measure than a library's best convolution, and has no library's name in it.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gantrt.threads import usable_cpus

SOURCE = Path(__file__).with_name("peak.cpp")
PRECISIONS = {"fp32": "peak_f32", "bf16": "peak_bf16", "int8": "peak_int8"}  # ours -> the function's name

_ROUNDS = 1_000_000  # some ten milliseconds: starting the threads takes no part of it worth speaking of


class Peak:
    """Calls that do nothing but multiply and add, one for each precision the processor has an instruction for."""

    def __init__(self) -> None:
        """Raises SystemExit where there is no C++ compiler."""
        compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            raise SystemExit("peak: no C++ compiler here; install g++")
        self._threads = usable_cpus()
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "peak.so"
            flags = ["-O2", "-std=c++17", "-march=native", "-shared", "-fPIC", "-pthread"]
            subprocess.run([compiler, *flags, str(SOURCE), "-o", str(library)], check=True)
            loaded = ctypes.CDLL(str(library))
        self._operations: dict[str, float] = {}
        self.calls: dict[str, Callable[[], float]] = {}
        for precision, name in PRECISIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_int64]
            if operations := function(self._threads, _ROUNDS):
                self._operations[precision] = operations
                self.calls[precision] = lambda function=function: function(self._threads, _ROUNDS)

    def rate(self, precision: str, milliseconds: float) -> float:
        """Operations a second, a multiply-add being two, of a call that took so long."""
        return self._operations[precision] / milliseconds * 1e3


def main() -> None:
    peak = Peak()
    for precision, call in peak.calls.items():
        best = min(_milliseconds(call) for _ in range(50))
        print(f"{precision}  {peak.rate(precision, best) / 1e9:8.1f} G operations/s on {usable_cpus()} CPUs")


def _milliseconds(call: Callable[[], float]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


if __name__ == "__main__":
    main()
