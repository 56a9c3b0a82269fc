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
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..engine_file import inlined
from ..errors import DeviceUnavailable, EngineCorrupt, EngineMismatch, UsageError
from ..manifest import Manifest
from ..model_cache import Kept, ModelCache, key_of
from ..telemetry import import_silent
from ..threads import numa_nodes, thread_limit
from . import Options, check_shapes, fit_size

SUFFIXES = (".onnx",)
DEVICES = ("cpu",)
PRIORITY = 20

log = logging.getLogger("gantrt")

_SIZES_KEPT = 4
_MULTIPLYING = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}  # our names -> OpenVINO's


def missing() -> str | None:
    return None if importlib.util.find_spec("openvino") else "openvino is not installed; pip install openvino"


def open(path: Path, manifest: Manifest, options: Options) -> OpenVINOEngine:
    return OpenVINOEngine(path, manifest, options)


class OpenVINOEngine:
    """A network on OpenVINO's CPU plugin. `run` works in place on the caller's memory and releases the GIL."""

    name = "openvino"
    device: Literal["cpu", "cuda"] = "cpu"
    smaller_batches = True

    def __init__(self, path: Path, manifest: Manifest, options: Options) -> None:
        self.manifest = manifest
        self._path, self._size = path, options.size
        self._properties = _properties(path, manifest, options)
        self._lock = threading.Lock()  # guards _compiled; held while compiling, so no size is compiled twice
        self._compiled: OrderedDict[tuple[int, int, int], _Compiled] = OrderedDict()  # by batch and size
        # The size most frames will have is kept on disk; the others of a dynamic engine would only fill it.
        size = options.size or (manifest.input.height, manifest.input.width)
        self.from_cache, first = self._kept(ModelCache.open(options.cache_dir), size)
        self._check(first, size, manifest.batch)
        self._compiled[(manifest.batch, *size)] = first
        self.precision = "int8" if manifest.precision == "int8" else first.precision()

    def fit(self, height: int, width: int) -> tuple[int, int]:
        return fit_size(self.manifest, self._size, height, width)

    def run(self, x: NDArray[np.float32], y: NDArray[np.float32], stream: int | None = None) -> None:
        with self._at((x.shape[0], x.shape[2], x.shape[3])).request() as request:
            request.run(x, y)

    def versions(self) -> dict[str, str]:
        return {"openvino": _version(), "cpu": str(core().get_property("CPU", "FULL_DEVICE_NAME"))}

    def arithmetic(self) -> dict[str, int]:
        """Layers that multiply (convolutions, matrix products), counted by the precision they really compute in."""
        with self._lock:
            return next(iter(self._compiled.values())).arithmetic()

    def threads(self) -> int:
        """CPU threads the network runs on."""
        with self._lock:
            return int(next(iter(self._compiled.values())).model.get_property("INFERENCE_NUM_THREADS"))

    def close(self) -> None:
        with self._lock:
            self._compiled.clear()

    def _at(self, size: tuple[int, int, int]) -> _Compiled:
        """The network compiled for this size; a dynamic engine forgets the size it has not used for longest."""
        with self._lock:
            if size not in self._compiled:
                compiled = self._compile(size[1:], size[0])
                self._check(compiled, size[1:], size[0])
                self._compiled[size] = compiled
            self._compiled.move_to_end(size)
            if len(self._compiled) > _SIZES_KEPT:
                self._compiled.popitem(last=False)
            return self._compiled[size]

    def _check(self, compiled: _Compiled, size: tuple[int, int], batch: int) -> None:
        check_shapes(self._path, replace(self.manifest, batch=batch), size, *compiled.shapes())

    def _kept(self, cache: ModelCache | None, size: tuple[int, int]) -> tuple[bool, _Compiled]:
        """Whether it came from the cache, and the network compiled for this size: from there, or for the next start."""
        if cache is None:
            return False, self._compile(size)
        key = key_of(
            self._path, {"openvino": _version(), "cpu": _cpu(), "properties": self._properties, "size": list(size)}
        )
        if (kept := cache.read(key)) is not None:
            try:
                return True, _imported(kept, self._properties)
            except RuntimeError as error:
                log.info("openvino: its kept model of %s is refused (%s); compiling anew", self._path, _gist(error))
                cache.drop(key)
        compiled = self._compile(size)
        cache.write(key, compiled.model.export_model().getbuffer())
        return False, compiled

    def _compile(self, size: tuple[int, int], batch: int | None = None) -> _Compiled:
        model = self._model.clone()
        batch = batch or self.manifest.batch
        try:
            if model.inputs[0].partial_shape.is_dynamic or batch != self.manifest.batch:
                model.reshape([batch, self.manifest.input.channels, *size])
            return _Compiled(core().compile_model(model, "CPU", self._properties))
        except (RuntimeError, ValueError) as error:
            raise EngineMismatch(
                f"{self._path}: OpenVINO cannot compile it for {size[0]}x{size[1]} ({_gist(error)}); "
                "try --runtime onnxruntime, or export it again"
            ) from error

    @functools.cached_property
    def _model(self) -> Any:
        """The network as read, not needed while the cache knows all sizes asked for."""
        return _read(self._path)


class _Compiled:
    """A compiled model and its idle infer requests: as many as callers were ever in `run` at once."""

    def __init__(self, model: Any, memory: Any = None) -> None:
        self.model = model
        self._memory = memory  # what the model was imported from, and may still read its weights from
        self._idle: deque[_Request] = deque()  # its pop and append are atomic

    @contextlib.contextmanager
    def request(self) -> Iterator[_Request]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = _Request(self.model.create_infer_request())
        yield request  # after an error in its run it is not used again
        self._idle.append(request)

    def precision(self) -> str:
        """What it computes in, by our name: the hint as the plugin took it."""
        return _our_name(self.model.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def shapes(self) -> tuple[list[int | None], list[int | None]]:
        """Of what it takes and of what it makes; None for a side that is open."""
        taken, made = (
            [side.get_length() if side.is_static else None for side in port.partial_shape]
            if port.partial_shape.rank.is_static
            else []
            for port in (self.model.inputs[0], self.model.outputs[0])
        )
        return taken, made

    def arithmetic(self) -> dict[str, int]:
        layers = [node.get_rt_info() for node in self.model.get_runtime_model().get_ops()]
        counted = Counter(
            _our_name(str(layer["runtimePrecision"].value))
            for layer in layers
            if str(layer["layerType"].value) in _MULTIPLYING
        )
        return dict(counted.most_common())


class _Request:
    """An infer request that stays bound to the arrays it was last given: an application's are the same every frame."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._x: NDArray[np.float32] | None = None
        self._y: NDArray[np.float32] | None = None

    def run(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        from openvino import Tensor

        if x is not self._x:
            self._request.set_input_tensor(Tensor(x, shared_memory=True))
            self._x = x
        if y is not self._y:
            self._request.set_output_tensor(Tensor(y, shared_memory=True))
            self._y = y
        try:
            self._request.infer(share_outputs=True)  # otherwise its return value is a copy of y
        except RuntimeError as error:
            raise EngineMismatch(
                f"openvino: this network cannot be run ({_gist(error)}); export it again, or try --runtime onnxruntime"
            ) from error


def _imported(kept: Kept, properties: dict[str, Any]) -> _Compiled:
    from openvino import Tensor

    memory = Tensor(kept.model, shared_memory=True)
    compiled = _Compiled(core().import_model(memory, "CPU", properties), (kept, memory))
    kept.release()  # OpenVINO has packed the weights its own way
    return compiled


def _version() -> str:
    return str(import_silent("openvino").__version__.partition("-")[0])


def _cpu() -> list[str]:
    """What a compiled model was made for: the processor, and the instructions OpenVINO sees in it."""
    return [str(core().get_property("CPU", name)) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]


def _our_name(theirs: str) -> str:
    """Our name of a precision, by any of OpenVINO's: "f32", "bf16", "u8"; other names as they are."""
    if theirs in ("i8", "u8"):
        return "int8"
    return next((ours for ours, name in _TYPES.items() if name == theirs), theirs)


def core() -> Any:
    """The process's one Core: it owns the plugin and its thread pool. It is never let go before the process ends.

    The CPU plugin replaces the thread's alternate signal stack and puts back, when it is unloaded, the one it found
    (2026.4). Let two Cores go in the order they came, and the next signal is delivered on freed memory.

    Raises DeviceUnavailable in a process forked from one that had a Core: its threads, and who held which lock, did
    not come along, and sooner or later it would wait for them for ever.
    """
    process, core = _core_and_process()
    if process != os.getpid():
        raise DeviceUnavailable(
            f"openvino: process {process} used it before it forked this one; start processes with "
            "multiprocessing.get_context('spawn'), or load engines in the children only"
        )
    return core


@functools.cache
def _core_and_process() -> tuple[int, Any]:
    """A forked child keeps the parent's as well: it would wait for ever to let go of it."""
    return os.getpid(), import_silent("openvino").Core()


def _read(path: Path) -> Any:
    """The model with our op inlined, float32 in and out whatever its own types are."""
    from openvino import Type
    from openvino.preprocess import PrePostProcessor

    content = inlined(path)
    try:
        model = core().read_model(content)
    except (RuntimeError, ValueError) as error:
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
    """What OpenVINO is told. One stream: the whole CPU works on one frame; more: each frame gets its share.

    It would pin each thread to a core. Beside a decoder, a window or another process a pinned thread waits for its
    core while others are free, and the rest of the network waits for it: only where memory has several nodes, and
    threads must stay near theirs, is that left on.
    """
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if options.streams > 1:
        properties = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": options.streams}
    if numa_nodes() == 1:
        properties["ENABLE_CPU_PINNING"] = False
    if (threads := thread_limit(options.threads)) is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
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


def _gist(error: Exception) -> str:
    """The last line of OpenVINO's text that says something: the first ones are source positions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("Exception from")), "no reason given")
