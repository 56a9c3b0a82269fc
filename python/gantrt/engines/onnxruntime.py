"""ONNX Runtime: the engine others are compared with. It runs the file as it is, in the precision of its graph."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..engine_file import load_model
from ..errors import EngineCorrupt, EngineMismatch
from ..external_data import understood
from ..manifest import Manifest
from ..telemetry import import_silent
from ..threads import thread_limit
from . import Options, check_shapes, fit_size

SUFFIXES = (".onnx",)
DEVICES = ("cpu",)
PRIORITY = 10

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_LOG_NOTHING = 4  # but the end of the process: errors are raised as well, and become our one line


def missing() -> str | None:
    found = importlib.util.find_spec("onnxruntime")
    return None if found else "onnxruntime is not installed; pip install 'gantrt[bench]'"


def open(path: Path, manifest: Manifest, options: Options) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(path, manifest, options)


class OnnxRuntimeEngine:
    """A network on ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    device: Literal["cpu", "cuda"] = "cpu"
    from_cache = False
    smaller_batches = False

    def __init__(self, path: Path, manifest: Manifest, options: Options) -> None:
        self.manifest, self.precision, self._size = manifest, manifest.precision, options.size
        if options.precision not in (None, manifest.precision):
            raise EngineMismatch(
                f"{path}: ONNX Runtime computes as the graph says, in {manifest.precision}, not {options.precision}; "
                f"export it with --precision {options.precision}"
            )
        self._path = path
        load_model(path, weights=False)  # raises for what ONNX Runtime must not be given
        self._session = _session(path, options)
        size = options.size or (manifest.input.height, manifest.input.width)
        with understood(path):  # a name may be no text
            self._input, self._dtype = _checked_ports(self._session, path, manifest, size)

    def fit(self, height: int, width: int) -> tuple[int, int]:
        return fit_size(self.manifest, self._size, height, width)

    def run(self, x: NDArray[np.float32], y: NDArray[np.float32], stream: int | None = None) -> None:
        try:
            (made,) = self._session.run(None, {self._input: x.astype(self._dtype, copy=False)})
        except Exception as error:  # its exceptions share no base class of their own
            raise EngineMismatch(
                f"{self._path}: ONNX Runtime cannot run it ({_gist(error)}); export it again"
            ) from error
        if made.shape != y.shape:
            raise EngineMismatch(f"{self._path}: made {made.shape} of {x.shape}, not {y.shape}; export it again")
        y[...] = made

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": import_silent("onnxruntime").__version__}

    def arithmetic(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing to do: the session goes when the last run has let go of it."""


def _checked_ports(session: Any, path: Path, manifest: Manifest, size: tuple[int, int]) -> tuple[str, Any]:
    """Name and dtype of the input. Raises EngineMismatch unless the ports are one of each, as the manifest says."""
    ports = (*session.get_inputs(), *session.get_outputs())
    if len(ports) != 2 or ports[0].type not in _FLOATS:
        raise EngineMismatch(f"{path}: an engine has one float input and one output, not {_describe(ports)}")
    given, made = ([side if isinstance(side, int) else None for side in port.shape] for port in ports)
    check_shapes(path, manifest, size, given, made or [None] * 4)
    return str(ports[0].name), _FLOATS[ports[0].type]


def _session(path: Path, options: Options) -> Any:
    onnxruntime = import_silent("onnxruntime")
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _LOG_NOTHING
    if (threads := thread_limit(options.threads)) is not None:
        settings.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(_readable(path), settings, providers=["CPUExecutionProvider"])
    except NoKernel as error:
        raise EngineMismatch(
            f"{path}: ONNX Runtime cannot run it on a CPU ({_gist(error)}); use --runtime openvino or export in fp32"
        ) from error
    except Exception as error:  # its exceptions share no base class of their own
        raise EngineCorrupt(f"{path}: ONNX Runtime cannot read it ({_gist(error)}); export it again") from error


def _readable(path: Path) -> str | bytes:
    """Its name, or what is in it where the name is no Unicode."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)


def _gist(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _describe(ports: tuple[Any, ...]) -> str:
    return ", ".join(f"{port.name} {port.type} {port.shape}" for port in ports)
