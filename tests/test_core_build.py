"""How the C++ core is built: its options, its layers, and what the result needs to load."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gantrt import _core

pytestmark = pytest.mark.plain_core

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"})
INCLUDE = re.compile(r'^#include [<"]([^>"]+)[>"]', re.M)


def configure(folder: Path, *options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    cmake = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if cmake is None:
        pytest.skip("needs cmake")
    environment = {key: value for key, value in os.environ.items() if key not in {"CUDACXX", "CUDA_PATH", "CUDAARCHS"}}
    environment["PATH"] = path or environment["PATH"]
    command = [cmake, "-S", str(ROOT), "-B", str(folder), f"-DPython_EXECUTABLE={sys.executable}", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def path_without_nvcc(tmp_path: Path) -> str:
    """A PATH with a compiler and make, but no nvcc."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("c++", "g++", "cc", "gcc", "make", "ld", "as", "ar", "ranlib", "nm", "strip", "sh", "uname"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    return str(tools)


def test_cuda_on_without_nvcc_names_the_way_out(tmp_path: Path, path_without_nvcc: str) -> None:
    done = configure(tmp_path / "build", "-DGANTRT_CUDA=ON", path=path_without_nvcc)
    if "The CUDA compiler identification" in done.stdout:
        pytest.skip("cmake finds an nvcc beside PATH")
    assert done.returncode != 0
    assert "there is no nvcc" in done.stderr
    assert "-DGANTRT_CUDA=OFF" in done.stderr


def test_an_unknown_wish_is_refused(tmp_path: Path) -> None:
    done = configure(tmp_path / "build", "-DGANTRT_CUDA=MAYBE")
    assert done.returncode != 0
    assert "GANTRT_CUDA must be AUTO, ON or OFF, got 'MAYBE'" in " ".join(done.stderr.split())


def test_every_source_is_listed() -> None:
    listed = (CSRC / "CMakeLists.txt").read_text()
    for path in SOURCES:
        if path.suffix in {".cpp", ".cu"}:
            assert str(path.relative_to(CSRC)) in listed, f"{path} is never compiled"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_layers_of_the_core(path: Path) -> None:
    """bindings, pipeline, tensorrt -> kernels -> csrc/*.h; pybind11 in bindings alone, torch nowhere."""
    layer = {"bindings": 2, "pipeline": 2, "tensorrt": 2, "kernels": 1}
    own = layer.get(path.relative_to(CSRC).parts[0], 0)
    for included in INCLUDE.findall(path.read_text()):
        assert not included.startswith(("torch/", "ATen/", "c10/"))
        assert own == 2 or not included.startswith("pybind11"), f"{path} knows Python"
        target = (path.parent / included).resolve()
        if path.suffix in {".h", ".cuh"} and target.is_file() and target.is_relative_to(CSRC):
            assert layer.get(target.relative_to(CSRC).parts[0], 0) <= own, f"{path} includes {included}, upward"


def test_it_loads_without_any_cuda_library() -> None:
    ldd = shutil.which("ldd")
    if ldd is None:
        pytest.skip("needs ldd")
    needed = subprocess.run([ldd, _core.__file__], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"libcuda|libcudart|libtorch|libgomp|libtbb", needed)


def test_a_build_for_every_gpu_holds_every_gpu() -> None:
    if not _core.cuda_built():
        pytest.skip("this build has no CUDA kernels: GANTRT_CUDA=ON compiles them where there is an nvcc")
    assert _core.cuda_architectures() == sorted(_core.cuda_architectures())
    assert min(_core.cuda_architectures()) >= 75
