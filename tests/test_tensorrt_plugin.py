"""The C++ plugin, where TensorRT's headers are (TensorRT_ROOT); its kernels run on the CPU, as elsewhere."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import emulated_cuda
import numpy as np
import pytest
import reference
from test_norm_act import CASES, Case, channels_last, inputs_of, name_of, relative_error

DOOR = Path(__file__).parent / "tensorrt_plugin_door.cpp"
PLUGIN = emulated_cuda.CSRC / "tensorrt" / "norm_act_plugin.cpp"
FLOAT, HALF, INT8 = 0, 1, 2  # nvinfer1::DataType
LINEAR, HWC8, HWC = 0, 2, 8  # nvinfer1::TensorFormat


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    headers = Path(os.environ.get("TensorRT_ROOT", "/nowhere")) / "include"  # noqa: SIM112
    if not (headers / "NvInfer.h").is_file():
        pytest.skip("needs TensorRT's headers: set TensorRT_ROOT")
    folder = tmp_path_factory.mktemp("plugin")
    kernels = [path for path in emulated_cuda.SOURCES if "pipeline" not in path.parts and path.name != "door.cpp"]
    flags = [*emulated_cuda.FLAGS, "-shared", "-pthread", f"-I{headers}"]
    stub = folder / "cpu.cpp"
    stub.write_text(
        '#include "' + str(emulated_cuda.CSRC / "kernels" / "pixels.h") + '"\n'
        '#include "' + str(emulated_cuda.CSRC / "kernels" / "norm_act.h") + '"\n#include <cstdlib>\n'
        "namespace gantrt { void norm_act_cpu(const NormActProblem&, int) { std::abort(); }\n"
        "void frame_to_tensor_cpu(const PixelProblem&, int) { std::abort(); }\n"
        "void tensor_to_frame_cpu(const PixelProblem&, int) { std::abort(); } }\n"
    )
    sources = [str(path) for path in [*kernels, PLUGIN, DOOR, stub]]
    command = ["g++", *flags, "-x", "c++", *sources, "-o", str(folder / "plugin.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(folder / "plugin.so"))
    library.takes.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    library.takes.restype = ctypes.c_bool
    return library


@pytest.mark.parametrize("case", [case for case in CASES if case.affine != "sample"], ids=name_of)
def test_it_computes_what_the_kernels_do(plugin: ctypes.CDLL, case: Case) -> None:
    x, given = inputs_of(case)
    expected = reference.norm_act(x, **given)
    parameters = [given["scale"], given["shift"], given["rho"]]
    parameters[0] = np.ones(case.c, np.float32) if parameters[0] is None else parameters[0]
    parameters[1] = np.zeros(case.c, np.float32) if parameters[1] is None else parameters[1]
    y = np.full(channels_last(expected).shape, np.nan, np.float32)
    arrays = [channels_last(x), *parameters, channels_last(given["residual"]), y]
    addresses = [None if array is None else ctypes.c_void_p(array.ctypes.data) for array in arrays]
    sizes = [ctypes.c_int64(side) for side in (case.n, case.c, case.h, case.w)]
    slope = ctypes.c_float({"none": 1.0, "relu": 0.0, "leaky_relu": 0.2}[case.act])
    assert plugin.run(*addresses, *sizes, slope, case.pad, case.rpad, int(case.unbiased)) == 0
    assert relative_error(y.transpose(0, 3, 1, 2), expected) <= 2e-6


def test_it_takes_the_formats_the_python_plugin_takes(plugin: ctypes.CDLL) -> None:
    formats = (LINEAR, HWC8, HWC)
    assert [f for f in formats if plugin.takes(FLOAT, f, 12)] == [HWC]
    assert [f for f in formats if plugin.takes(HALF, f, 64)] == [HWC8]
    assert [f for f in formats if plugin.takes(HALF, f, 12)] == [LINEAR]
    assert not any(plugin.takes(INT8, f, 64) for f in formats)
