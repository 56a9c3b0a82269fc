"""The C++ core that checks every access and operation: what bench/sanitize.py relies on. It runs all tests with it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def bench_sanitize() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_sanitize", ROOT / "bench" / "sanitize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.plain_core
def test_a_core_that_reads_too_far_is_caught(tmp_path: Path) -> None:
    """That a fault would be seen: numpy's memory is watched, and a report is found."""
    bench = bench_sanitize()
    if reason := bench.missing():
        pytest.skip(reason)
    code = (
        "import ctypes, numpy\nx = numpy.zeros(100000, numpy.uint8)\n"
        "to, start = ctypes.create_string_buffer(200000), ctypes.c_void_p(x.ctypes.data)\n"
        "ctypes.CDLL(None).memcpy(to, start, ctypes.c_size_t(100001))"
    )
    (tmp_path / "gantrt").mkdir()
    (tmp_path / "gantrt" / "_core.so").touch()  # is not loaded
    bench.run([sys.executable, "-c", code], tmp_path / "gantrt")
    assert any("heap-buffer-overflow" in line for line in bench.reports(tmp_path / "gantrt"))


def test_commands_that_tests_start_have_that_core_too() -> None:
    folder = os.environ.get("GANTRT_TEST_CORE")
    if not folder:
        pytest.skip("runs within bench/sanitize.py")
    from gantrt import _core

    code = "from gantrt import _core; print(_core.__file__)"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert {Path(_core.__file__).parent, Path(elsewhere).parent} == {Path(folder)}
