"""OpenVINO: the engine of choice on a CPU.

Every size is compiled as a static model: OpenVINO plans memory and kernels far better when it knows the shape.
A dynamic engine keeps the sizes it used last.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..engine_file import inlined
from ..errors import DeviceUnavailable, EngineCorrupt, EngineMismatch, UsageError
from ..manifest import Manifest
from . import Options, fit_size

SUFFIXES = (".onnx",)
DEVICES = ("cpu",)
PRIORITY = 20

log = logging.getLogger("gantrt")

_SIZES_KEPT = 4
_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}  # our names -> OpenVINO's


def missing() -> str | None:
    return None if importlib.util.find_spec("openvino") else "openvino is not installed; pip install openvino"


def open(path: Path, manifest: Manifest, options: Options) -> OpenVINOEngine:
    return OpenVINOEngine(path, manifest, options)


class OpenVINOEngine:
    """A network on OpenVINO's CPU plugin. `run` works in place on the caller's memory and releases the GIL."""

    name = "openvino"
    device: Literal["cpu", "cuda"] = "cpu"

    def __init__(self, path: Path, manifest: Manifest, options: Options) -> None:
        self.manifest = manifest
        self._path, self._size = path, options.size
        self._properties = _properties(path, manifest, options)
        self._model = _read(path)
        self._lock = threading.Lock()  # guards _compiled; held while compiling, so no size is compiled twice
        self._compiled: OrderedDict[tuple[int, int], _Compiled] = OrderedDict()
        # The size most frames will have is kept on disk; the others of a dynamic engine would only fill it.
        size = options.size or (manifest.input.height, manifest.input.width)
        cache = _cache_folder(options.cache_dir)
        first = self._compile(size, {"CACHE_DIR": str(cache)} if cache else {})
        self._compiled[size] = first
        self.precision = "int8" if manifest.precision == "int8" else first.precision()

    def fit(self, height: int, width: int) -> tuple[int, int]:
        return fit_size(self.manifest, self._size, height, width)

    def run(self, x: NDArray[np.float32], y: NDArray[np.float32], stream: int | None = None) -> None:
        from openvino import Tensor

        with self._at((x.shape[2], x.shape[3])).request() as request:
            request.set_input_tensor(Tensor(x, shared_memory=True))
            request.set_output_tensor(Tensor(y, shared_memory=True))
            request.infer()

    def versions(self) -> dict[str, str]:
        import openvino

        cpu = str(core().get_property("CPU", "FULL_DEVICE_NAME"))
        return {"openvino": openvino.__version__.partition("-")[0], "cpu": cpu}

    def close(self) -> None:
        with self._lock:
            self._compiled.clear()

    def _at(self, size: tuple[int, int]) -> _Compiled:
        """The network compiled for this size; a dynamic engine forgets the size it has not used for longest."""
        with self._lock:
            if size not in self._compiled:
                self._compiled[size] = self._compile(size, {})
            self._compiled.move_to_end(size)
            if len(self._compiled) > _SIZES_KEPT:
                self._compiled.popitem(last=False)
            return self._compiled[size]

    def _compile(self, size: tuple[int, int], properties: dict[str, Any]) -> _Compiled:
        model = self._model.clone()
        try:
            if model.inputs[0].partial_shape.is_dynamic:
                model.reshape([self.manifest.batch, self.manifest.input.channels, *size])
            return _Compiled(core().compile_model(model, "CPU", self._properties | properties))
        except RuntimeError as error:
            raise EngineMismatch(
                f"{self._path}: OpenVINO cannot compile it for {size[0]}x{size[1]} ({_gist(error)}); "
                "try --runtime onnxruntime, or export it again"
            ) from error


class _Compiled:
    """A compiled model and its idle infer requests: as many as callers were ever in `run` at once."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._idle: deque[Any] = deque()  # its pop and append are atomic

    @contextlib.contextmanager
    def request(self) -> Iterator[Any]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.model.create_infer_request()
        yield request  # after an error in its run it is not used again
        self._idle.append(request)

    def precision(self) -> str:
        """What it computes in, by our name: the hint as the plugin took it."""
        name = self.model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return next((ours for ours, theirs in _TYPES.items() if theirs == name), str(name))


@functools.cache
def core() -> Any:
    """The process's one Core: it owns the plugin and its thread pool. It is never let go before the process ends.

    The CPU plugin replaces the thread's alternate signal stack and puts back, when it is unloaded, the one it found
    (2026.4). Let two Cores go in the order they came, and the next signal is delivered on freed memory.
    """
    import openvino

    return openvino.Core()


def _read(path: Path) -> Any:
    """The model with our op inlined, float32 in and out whatever its own types are."""
    from openvino import Type
    from openvino.preprocess import PrePostProcessor

    try:
        model = core().read_model(inlined(path))
    except RuntimeError as error:
        raise EngineCorrupt(f"{path}: OpenVINO cannot read it ({_gist(error)}); export it again") from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise EngineMismatch(
            f"{path}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs; an engine has one of each"
        )
    if all(port.element_type == Type.f32 for port in (*model.inputs, *model.outputs)):
        return model
    processor = PrePostProcessor(model)
    processor.input().tensor().set_element_type(Type.f32)
    processor.output().tensor().set_element_type(Type.f32)
    return processor.build()


def _properties(path: Path, manifest: Manifest, options: Options) -> dict[str, Any]:
    """What OpenVINO is told. One stream: the whole CPU works on one frame; more: each frame gets its share."""
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if options.streams > 1:
        properties = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": options.streams}
    if options.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = options.threads
    if options.precision == "int8":
        if manifest.precision != "int8":
            raise EngineMismatch(f"{path}: is {manifest.precision}; int8 is made by `gantrt export --precision int8`")
    elif options.precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = _supported_type(options.precision)
    return properties


def _supported_type(precision: str) -> str:
    """OpenVINO's name of a precision. It would take one the CPU lacks in silence, and compute in float32."""
    if precision not in _TYPES:
        raise UsageError(f"precision {precision!r}: there are {', '.join(_TYPES)} and int8")
    able = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision.upper() not in able:
        raise DeviceUnavailable(f"precision {precision}: this CPU has no {precision} arithmetic; leave it out, or fp32")
    return _TYPES[precision]


def _cache_folder(asked: str | None) -> Path | None:
    """Where compiled models are kept; None where there is none, or it cannot be written."""
    if asked == "":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(asked) if asked else Path(home) / "gantrt" / "openvino"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        log.debug("openvino: %s cannot be written; compiled models are not kept", folder)
    except OSError as error:
        log.debug("openvino: no cache folder (%s); compiled models are not kept", error)
    return None


def _gist(error: Exception) -> str:
    """The last line of OpenVINO's text that says something: the first ones are source positions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("Exception from")), "no reason given")
