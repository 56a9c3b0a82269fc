"""TensorRT's own Python API, and its timing cache, as far as they can be tried without its library."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gantrt.plans import timing_cache
from gantrt.plans.targets import TENSORRT, TENSORRT_RTX

# What the bindings ask of the libraries when they are loaded.
_LIBRARIES = {
    "libnvinfer.so.11": (
        "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
        "getBuilderPluginRegistry getPluginRegistry"
    ),
    "libnvinfer_plugin.so.11": "initLibNvInferPlugins",
    "libnvonnxparser.so.11": ("createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getNvOnnxParserVersion"),
}


def test_every_call_we_make_is_one_that_tensorrt_11_has(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("needs TensorRT's bindings: pip install --no-deps tensorrt-cu13-bindings==11.4.0.106")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for three empty libraries")
    for name, functions in _LIBRARIES.items():
        source = "".join(f"void* {function}(void) {{ return 0; }}\n" for function in functions.split())
        command = [compiler, "-shared", "-fPIC", "-xc", "-", f"-Wl,-soname,{name}", "-o", str(tmp_path / name)]
        subprocess.run(command, input=source, text=True, check=True)
    paths = os.pathsep.join([str(Path(__file__).parent), *(path for path in sys.path if path)])
    answer = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "tensorrt_on_paper.py")],
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr


def test_the_timing_cache_is_whole_or_not_there(tmp_path, caplog) -> None:
    path = tmp_path / "cache" / "a.timing"
    assert timing_cache.load(path) == b""
    timing_cache.save(path, b"what was measured")
    assert timing_cache.load(path) == b"what was measured"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:5], b"", whole[:-1] + b"x", whole + b"x"):
        path.write_bytes(damaged)
        assert timing_cache.load(path) == b""
    assert [found.name for found in path.parent.iterdir()] == ["a.timing"]


def test_each_version_and_gpu_has_a_timing_cache_of_its_own(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = timing_cache.cache_path(None, TENSORRT, "11.4.0.106", "8.9")
    assert path == tmp_path / "gantrt" / "tensorrt" / "11.4.0.106-8.9.timing"
    assert timing_cache.cache_path("mine", TENSORRT, "11.4.0.106", "8.9") == Path("mine")
    assert timing_cache.cache_path("", TENSORRT_RTX, "1.7.1.116", "8.9") is None
