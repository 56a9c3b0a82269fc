"""`import gantrt` costs next to nothing and needs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIBRARIES = ("numpy", "torch", "cv2", "av", "onnx", "openvino", "onnxruntime", "tensorrt", "pycuda")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def loaded(code: str) -> set[str]:
    return set(python(f"import sys; {code}; print(*sys.modules)").split())


def test_import_takes_less_than_a_fifth_of_a_second() -> None:
    clock = "import time; t = time.process_time(); import gantrt; print(time.process_time() - t)"
    assert sorted(float(python(clock)) for _ in range(3))[1] < 0.2


def test_import_loads_no_library_at_all() -> None:
    assert not loaded("import gantrt") & set(LIBRARIES)


def test_help_loads_no_library_at_all() -> None:
    assert not loaded("from gantrt.cli import build_parser; build_parser().format_help()") & set(LIBRARIES)


def test_translating_needs_neither_torch_nor_other_engines() -> None:
    assert not loaded("import gantrt; gantrt.load") & {"torch", "openvino", "onnxruntime", "tensorrt", "av"}


@pytest.mark.parametrize("absent", ["torch", "tensorrt", "onnxruntime", "matplotlib", "cv2", "openvino"])
def test_import_works_without(absent: str) -> None:
    python(f"import sys; sys.modules[{absent!r}] = None; import gantrt; dir(gantrt); gantrt.__version__")
