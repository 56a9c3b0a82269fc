"""A plan, running: deserialised once, with one execution context for each frame that is translated at the same time."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..engines import Options, fit_size, output_like
from ..errors import EngineCorrupt, EngineMismatch, GantrtError, UsageError
from ..frame_pipelines import FramePipelines, Network
from ..manifest import Manifest
from . import driver, norm_act
from .check import check
from .targets import Target, make_logger

Size = tuple[int, int]

log = logging.getLogger("gantrt")


class PlanEngine:
    """A network on TensorRT or TensorRT-RTX. `run` takes numpy arrays, or arrays on its GPU and the caller's stream."""

    device: Literal["cpu", "cuda"] = "cuda"
    from_cache = False
    smaller_batches = False

    def __init__(self, target: Target, path: Path, manifest: Manifest, options: Options) -> None:
        trt = target.load()
        self.name = target.name
        self._path, self._trt, self._size = path, trt, options.size
        self._device = int(options.device.partition(":")[2] or 0)
        _check_options(path, manifest, options)
        check(path, manifest, target, str(trt.__version__), self._device)
        self._logger = make_logger(trt)
        with driver.on_device(self._device):
            self._runtime = trt.Runtime(self._logger)
            if manifest.plugins:
                norm_act.register(trt, self._runtime.get_plugin_registry(), target)
            self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineCorrupt(f"{path}: {target.name} {trt.__version__} cannot read it: {self._logger.gist()}")
        self._input, self._output = _ports(trt, self._engine, path)
        self.manifest = manifest if manifest.target else _learned(path, self._engine, self._input, manifest)
        self.precision = self.manifest.precision
        # Of a plan of several sizes each has its optimisation profile; of any other plan all have the first.
        self._sizes = [_size_of(text) for text in manifest.target.get("sizes", "").split(",") if text]
        profiles = range(max(1, len(self._sizes)))
        self._idle = [deque[_Context]() for _ in profiles]  # by profile; its pop and append are atomic
        self._making = threading.Lock()  # contexts are made one at a time
        self._test_itself()

    def fit(self, height: int, width: int) -> Size:
        if self._sizes and self._size is None:
            return _best(self._sizes, height, width)
        return fit_size(self.manifest, self._size, height, width)

    def run(self, x: Any, y: Any, stream: int | None = None) -> None:
        with driver.on_device(self._device), self._context(self._profile(tuple(x.shape[2:]))) as context:
            if isinstance(x, np.ndarray):
                context.run_on_host(x, y)
            else:
                context.enqueue(_address(x), _address(y), tuple(x.shape), stream or 0)

    def frames(self, color: Literal["rgb", "bgr"], slots: int) -> FramePipelines | None:
        """Whole frames as CUDA graphs around this network; None where it takes more than one picture at a time.

        color  of the frames, in the order frame_to_tensor is told
        """
        taken, made = self._dtype(self._input), self._dtype(self._output)
        if self.manifest.batch != 1 or taken is None or made is None or not _core.cuda_built():
            return None
        spec = self.manifest.input
        channels = (spec.channels, self.manifest.made_channels)
        network = Network(
            self._prepare, self.fit, channels, taken, made, range=self.manifest.range, device=self._device
        )
        return FramePipelines(network, slots=slots, color=color)

    def _prepare(self, slots: int, size: Size) -> Callable[[int, int, int, int], None]:
        """A context of its own for each slot: one that is in a captured graph runs nothing else."""
        with driver.on_device(self._device), self._making:
            contexts = [_Context(self, self._profile(size)) for _ in range(slots)]
        shape = (1, self.manifest.input.channels, *size)

        def enqueue(slot: int, x: int, y: int, stream: int) -> None:
            contexts[slot].enqueue(x, y, shape, stream)

        return enqueue

    def _dtype(self, name: str) -> str | None:
        trt = self._trt
        names = {trt.float32: "float32", trt.float16: "float16", trt.bfloat16: "bfloat16"}
        return names.get(self._engine.get_tensor_dtype(name))

    def _test_itself(self) -> None:
        """One picture through the network: a plan that makes no numbers is refused before it shows any."""
        spec = self.manifest.input
        ramp = np.linspace(*self.manifest.range, spec.width, dtype=np.float32)
        x = np.broadcast_to(ramp, (self.manifest.batch, spec.channels, spec.height, spec.width)).copy()
        y = output_like(self.manifest, x)
        self.run(x, y)
        if not np.isfinite(y).all():
            raise EngineCorrupt(
                f"{self._path}: makes no numbers of a plain picture; export it again, in fp32 if need be"
            )
        if y.max() == y.min():
            log.warning("%s: makes a picture of one value of a plain picture; compare it with its .onnx", self._path)

    def versions(self) -> dict[str, str]:
        return {self.name: str(self._trt.__version__), "gpu": driver.name(self._device)}

    def arithmetic(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        with driver.on_device(self._device):
            for idle in self._idle:
                while idle:
                    idle.pop().close()

    def _profile(self, size: tuple[int, ...]) -> int:
        """Of a picture of this size; where there is none for it, TensorRT will say so."""
        return self._sizes.index(size) if size in self._sizes else 0

    @contextlib.contextmanager
    def _context(self, profile: int) -> Iterator[_Context]:
        try:
            context = self._idle[profile].pop()
        except IndexError:
            with self._making:
                context = _Context(self, profile)
        yield context  # after an error in its run it is not used again
        self._idle[profile].append(context)


class _Context:
    """An execution context with a stream and device memory of its own."""

    def __init__(self, owner: PlanEngine, profile: int) -> None:
        self._owner, self._context = owner, owner._engine.create_execution_context()
        if self._context is None:
            raise GantrtError(f"{owner._path}: no execution context: {owner._logger.gist()}; close other programs")
        self._stream = driver.Stream()
        if profile:  # a context begins with the first
            self._context.set_optimization_profile_async(profile, self._stream.handle)
            self._stream.synchronize()
        self._buffers: dict[str, driver.Buffer] = {}
        self._shape: tuple[int, ...] = ()
        self._made: NDArray[Any] = np.zeros(0)

    def run_on_host(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Fill y from x through memory of our own; done on return."""
        owner = self._owner
        given = np.ascontiguousarray(x, owner._trt.nptype(owner._engine.get_tensor_dtype(owner._input)))
        made = self._host_result(y.shape)
        source, result = self._buffer(owner._input, given.nbytes), self._buffer(owner._output, made.nbytes)
        source.upload(given.ctypes.data, self._stream)
        self.enqueue(source.address, result.address, given.shape, self._stream.handle)
        result.download(made.ctypes.data, self._stream)
        self._stream.synchronize()
        y[...] = made

    def enqueue(self, x: int, y: int, shape: tuple[int, ...], stream: int) -> None:
        """Queue one run on `stream`, from and to device addresses."""
        owner, context = self._owner, self._context
        if shape != self._shape and not context.set_input_shape(owner._input, shape):
            raise EngineMismatch(f"{owner._path}: does not take {'x'.join(map(str, shape))}: {owner._logger.gist()}")
        self._shape = shape
        context.set_tensor_address(owner._input, x)
        context.set_tensor_address(owner._output, y)
        if not context.execute_async_v3(stream):
            raise GantrtError(f"{owner._path}: {owner.name} could not run it: {owner._logger.gist()}")

    def _host_result(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Host memory of the output's type, kept as long as the shape stays."""
        if self._made.shape != shape:
            owner = self._owner
            self._made = np.zeros(shape, owner._trt.nptype(owner._engine.get_tensor_dtype(owner._output)))
        return self._made

    def _buffer(self, name: str, size: int) -> driver.Buffer:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size != size:
            if buffer is not None:
                buffer.close()
            buffer = self._buffers[name] = driver.Buffer(size)
        return buffer

    def close(self) -> None:
        with contextlib.suppress(GantrtError):  # of a GPU that is gone there is nothing to wait for
            self._stream.synchronize()
        for buffer in self._buffers.values():
            buffer.close()
        self._stream.close()


def _size_of(text: str) -> Size:
    height, width = text.split("x")
    return int(height), int(width)


def _best(sizes: list[Size], height: int, width: int) -> Size:
    """The smallest that the frame fits in, else the largest."""
    fits = [size for size in sizes if size[0] >= height and size[1] >= width]
    return min(fits, key=math.prod) if fits else max(sizes, key=math.prod)


def _check_options(path: Path, manifest: Manifest, options: Options) -> None:
    sizes = manifest.target.get("sizes", "")
    if sizes and options.size and f"{options.size[0]}x{options.size[1]}" not in sizes.split(","):
        raise UsageError(
            f"{path}: this plan is for {sizes.replace(',', ', ')}, not {options.size[0]}x{options.size[1]}"
        )
    if options.precision not in (None, manifest.precision):
        raise UsageError(
            f"{path}: a plan computes as it was built, in {manifest.precision}; "
            f"for {options.precision} build one: gantrt export RUN -o OUT.plan --precision {options.precision}"
        )


def _ports(trt: Any, engine: Any, path: Path) -> tuple[str, str]:
    """The names of the one input and the one output. Raises EngineMismatch if there are others."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise EngineMismatch(f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; an engine has one of each")
    return inputs[0], outputs[0]


def _learned(path: Path, engine: Any, name: str, manifest: Manifest) -> Manifest:
    """The manifest of another program's plan: what the plan says of its input."""
    shape = tuple(engine.get_tensor_shape(name))
    dynamic = -1 in shape
    if dynamic:
        shape = tuple(engine.get_tensor_profile_shape(name, 0)[1])
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise EngineMismatch(f"{path}: its input is {'x'.join(map(str, shape))}, not NCHW of 1 or 3 channels")
    batch, channels, height, width = shape
    spec = replace(manifest.input, channels=channels, height=height, width=width, dynamic=dynamic)
    return replace(manifest, input=spec, batch=batch, color="gray" if channels == 1 else manifest.color)


def _address(array: Any) -> int:
    """Where a device array begins."""
    return int(array.__cuda_array_interface__["data"][0])
