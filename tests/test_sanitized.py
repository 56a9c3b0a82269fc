"""The C++ core, built so that it checks every access and operation, under the tests and fuzzers' inputs that call it.

`make sanitize` runs the whole suite so.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("test_pixels", "test_norm_act", "test_channels", "test_arrays", "test_fuzz", "test_hostile_arrays")


def bench_sanitize() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_sanitize", ROOT / "bench" / "sanitize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_core_is_clean_under_asan_and_ubsan(tmp_path: Path) -> None:
    bench = bench_sanitize()
    if reason := bench.missing():
        pytest.skip(reason)
    core = bench.build(tmp_path)
    files = [str(path) for name in TESTS if (path := ROOT / "tests" / f"{name}.py").is_file()]
    only = "not checkpoint and not recipe and not foreign and not engine and not onnx"  # of test_fuzz: what calls it
    done = bench.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-x", *files, "-k", only], core)
    assert bench.reports(core) == []
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert bench.leaks(core) == []


@pytest.mark.slow
def test_a_core_that_reads_too_far_is_caught(tmp_path: Path) -> None:
    """That the check above would see a fault: numpy's memory is watched, and a report is found."""
    bench = bench_sanitize()
    if reason := bench.missing():
        pytest.skip(reason)
    code = (
        "import ctypes, numpy\nx = numpy.zeros(100000, numpy.uint8)\n"
        "to, start = ctypes.create_string_buffer(200000), ctypes.c_void_p(x.ctypes.data)\n"
        "ctypes.CDLL(None).memcpy(to, start, ctypes.c_size_t(100001))"
    )
    (tmp_path / "gantrt").mkdir()
    bench.run([sys.executable, "-c", code], tmp_path / "gantrt")
    assert any("heap-buffer-overflow" in line for line in bench.reports(tmp_path / "gantrt"))
