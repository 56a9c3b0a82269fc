"""The CUDA sources of csrc/, compiled for the CPU with tests/cuda_on_cpu in the place of CUDA's headers."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests" / "cuda_on_cpu"
CSRC = ROOT / "csrc"
SOURCES = [*CSRC.glob("kernels/*.cu"), *CSRC.glob("pipeline/*.cu"), *HERE.glob("*.cpp")]
SOURCES += [CSRC / "kernels" / f"{name}.cpp" for name in ("norm_act", "parallel", "pixels")]
FLAGS = ["-std=c++17", "-O1", "-mf16c", "-fPIC", "-U_FORTIFY_SOURCE", "-w", f"-I{HERE}"]


def build(folder: Path) -> ctypes.CDLL:
    """The library, compiled in `folder`. Skips the test where there is no compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")

    def run(*arguments: str) -> None:
        done = subprocess.run([compiler, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def compile_one(source: Path) -> str:
        made = folder / f"{source.name}.o"
        run(*FLAGS, "-x", "c++", "-c", str(source), "-o", str(made))
        return str(made)

    with ThreadPoolExecutor(2) as workers:
        objects = list(workers.map(compile_one, SOURCES))
    run("-shared", "-pthread", *objects, "-o", str(folder / "cuda.so"))
    library = ctypes.CDLL(str(folder / "cuda.so"))
    for name in ("run_norm_act", "run_pixels", "collect", "time_stages", "last_error"):
        getattr(library, name).restype = ctypes.c_char_p
    library.make_pipeline.restype = ctypes.c_void_p
    library.submit.restype = ctypes.c_int64
    return library
