"""Engines: the folder is the registry. A file here named `<runtime>.py` is the engine `<runtime>`.

Each exports
    SUFFIXES        file endings it opens, e.g. (".onnx",)
    DEVICES         what it can run on, e.g. ("cpu",)
    PRIORITY        among engines that fit, the highest wins
    missing()       None when its library is here, else one line with the command that installs it
    open(path, manifest, options) -> Engine
and imports its own library inside those functions only.
"""

from __future__ import annotations

import functools
import importlib
import logging
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from ..engine_file import guess_manifest, read_manifest
from ..errors import DeviceUnavailable, EngineCorrupt, EngineMismatch, UsageError
from ..manifest import Manifest
from ..plan_file import PLAN_SUFFIX

log = logging.getLogger("gantrt")

Shape = Sequence[int | None]


@dataclass(frozen=True)
class Options:
    """How an engine is to be opened. None leaves the choice to the engine."""

    device: str = "cpu"  # "cpu", "cuda" or "cuda:N"; `open_engine` also takes "auto"
    precision: str | None = None  # "fp32" forces full precision where the engine would choose less
    threads: int | None = None  # CPU threads; None: $GANTRT_THREADS, the container's quota, or the engine's choice
    size: tuple[int, int] | None = None  # (height, width) for a dynamic engine
    streams: int = 1  # how many frames `run` is to work on at once
    cache_dir: str | None = None  # of compiled models; None: $GANTRT_CACHE or the user's cache folder; "": none
    trust: bool = False  # run a plan that gantrt did not make, see docs/tensorrt.md


class Engine(Protocol):
    """One network, ready to run. Arrays are the caller's: `run` reads `x` and fills `y`."""

    name: str  # the runtime, e.g. "openvino"
    device: Literal["cpu", "cuda"]
    manifest: Manifest
    precision: str  # what really runs, e.g. "bf16"
    from_cache: bool  # whether compiling it was spared by an earlier start
    smaller_batches: bool  # whether `run` takes fewer pictures than the manifest's batch

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) this engine will run a frame of the given size at."""
        ...

    def run(self, x: Any, y: Any, stream: int | None = None) -> None:
        """Fill y (N, C, H, W) float32 from x (N, C, H, W) float32, both in the manifest's range.

        What is bound to the arrays may be kept for the next call: giving the same ones again is fastest.
        Thread-safe. On "cpu" both are C-contiguous numpy arrays and y is complete on return;
        on "cuda" they are device arrays and y is complete when `stream` is.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Names and versions of the libraries and device used."""
        ...

    def arithmetic(self) -> dict[str, int]:
        """Layers that multiply, counted by the precision they really compute in; {} where the runtime does not say."""
        ...

    def close(self) -> None: ...


def output_like(manifest: Manifest, x: Any) -> Any:
    """An empty array for what the engine makes of x (N, C, H, W): as many channels as it makes, else the same."""
    import numpy as np

    return np.empty((x.shape[0], manifest.made_channels, *x.shape[2:]), x.dtype)


def check_shapes(path: Path, manifest: Manifest, size: tuple[int, int], given: Shape, made: Shape) -> None:
    """Raises EngineMismatch unless the network takes and makes what the manifest says, at (height, width) `size`.

    given, made  as the runtime has them; None for a side that is open
    """
    for what, shape, channels in (
        ("takes", given, manifest.input.channels),
        ("makes", made, manifest.made_channels),
    ):
        expected = (manifest.batch, channels, *size)
        if len(shape) != len(expected) or any(a is not None and a != b for a, b in zip(shape, expected, strict=True)):
            shown = "x".join("?" if side is None else str(side) for side in shape)
            raise EngineMismatch(
                f"{path}: {what} {shown}, not {'x'.join(map(str, expected))} as its manifest or its input says; "
                "export it again"
            )


def fit_size(manifest: Manifest, size: tuple[int, int] | None, height: int, width: int) -> tuple[int, int]:
    """What `Engine.fit` returns: the static size, the size asked for, or the frame's, rounded up to the multiple."""
    spec = manifest.input
    if not spec.dynamic:
        return spec.height, spec.width
    return size or (_round_up(height, spec.multiple), _round_up(width, spec.multiple))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def list_engines() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_engine(name: str) -> Any:
    """The module of the engine called `name`; UsageError, with the list of those that exist, if there is none."""
    if name not in list_engines():
        raise UsageError(f"there is no runtime {name!r}; there are {', '.join(list_engines())}")
    return importlib.import_module(f".{name}", __name__)


def open_engine(
    path: str | Path,
    options: Options,
    runtime: str | None = None,
    *,
    value_range: tuple[float, float] | None = None,
    color: Literal["rgb", "bgr"] | None = None,
) -> Engine:
    """Open the engine file at `path` with the best engine for its suffix and `options.device`, or with `runtime`.

    value_range, color  what the network takes and makes, for a file without manifest; a manifest must agree
    "auto" prefers CUDA and falls back to the CPU; any other device is used or refused.
    Raises EngineCorrupt, EngineMismatch, DeviceUnavailable, and UsageError for a request that makes no sense.
    """
    path = Path(path)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device):
        raise UsageError(f"device {options.device!r}: there are auto, cpu, cuda and cuda:N")
    modules = _that_open(path, runtime)
    manifest = _manifest(path, value_range, color, options.trust)
    modules = _that_built(path, manifest, modules, runtime)
    _check_size(path, manifest, options.size)

    refused: list[str] = []  # why each better engine was passed over
    for device, name, module in _candidates(modules, options.device):
        missing = module.missing()
        if missing:
            refused.append(missing)
            continue
        try:
            engine: Engine = module.open(path, manifest, replace(options, device=device))
        except DeviceUnavailable as error:
            if options.device != "auto" or device == "cpu":
                raise
            refused.append(str(error))
            continue
        if options.device == "auto" and device == "cpu":
            why = "; ".join(refused) or f"no CUDA engine runs a {path.suffix}"
            _say_once(f"device auto: {why}; running on the CPU with {name}")
        return engine
    raise DeviceUnavailable("; ".join(refused) or _no_engine(path, options.device, runtime))


def _that_open(path: Path, runtime: str | None) -> dict[str, Any]:
    """The engines that open files like this one, by name."""
    modules = {name: load_engine(name) for name in ([runtime] if runtime else list_engines())}
    fitting = {name: module for name, module in modules.items() if path.suffix.lower() in module.SUFFIXES}
    if fitting:
        return fitting
    if path.suffix.lower() == ".plan":
        raise EngineMismatch(f"{path}: a plan runs on TensorRT, not on {runtime}; give the .onnx it was built from")
    known = sorted({suffix for module in modules.values() for suffix in module.SUFFIXES})
    raise EngineCorrupt(f"{path}: not an engine file; {runtime or 'gantrt'} opens {', '.join(known)}")


def _that_built(path: Path, manifest: Manifest, modules: dict[str, Any], runtime: str | None) -> dict[str, Any]:
    """Of `modules` the one a plan was built by; all of them for an .onnx, or a plan that does not say."""
    built_by = manifest.target.get("runtime", "").replace("-", "_")
    if not built_by:
        return modules
    if built_by not in modules:
        raise EngineMismatch(f"{path}: was built by {manifest.target['runtime']}; {runtime or 'gantrt'} cannot run it")
    return {built_by: modules[built_by]}


def _candidates(modules: dict[str, Any], device: str) -> Iterator[tuple[str, str, Any]]:
    """(device, name, module) in the order in which they are to be tried."""
    by_priority = sorted(modules.items(), key=lambda item: -item[1].PRIORITY)
    for wanted in ("cuda", "cpu") if device == "auto" else (device,):
        for name, module in by_priority:
            if wanted.partition(":")[0] in module.DEVICES:
                yield wanted, name, module


def _no_engine(path: Path, device: str, runtime: str | None) -> str:
    who = runtime or "gantrt"
    if path.suffix == ".plan":
        return f"{path}: a plan runs on an NVIDIA GPU only; use --device cuda, or give the .onnx it was built from"
    if device.startswith("cuda") and path.suffix == ".onnx":
        return (
            f"{path}: {who} runs no .onnx on {device}; compile it with `gantrt export {path.name} -o "
            f"{path.stem}.plan` (needs an NVIDIA GPU and pip install 'gantrt[tensorrt]'), or use --device cpu"
        )
    return f"{path}: {who} does not run it on {device}; use --device auto"


def _manifest(
    path: Path, value_range: tuple[float, float] | None, color: Literal["rgb", "bgr"] | None, trust: bool
) -> Manifest:
    """The file's own manifest, or what can be told from its input and from the caller."""
    manifest = read_manifest(path)
    if path.suffix.lower() == PLAN_SUFFIX and not trust:
        _refuse_foreign(path, manifest)
    if manifest is None:
        return guess_manifest(path, range=value_range or (-1.0, 1.0), color=color or "rgb")
    for what, asked, says in (("range", value_range, manifest.range), ("color", color, manifest.color)):
        if asked not in (None, says):
            raise EngineMismatch(f"{path}: its manifest says {what} {says}, not {asked}; leave the {what} out")
    return manifest


def _refuse_foreign(path: Path, manifest: Manifest | None) -> None:
    """Raises EngineMismatch for a plan that gantrt did not make."""
    if manifest is not None and "gantrt" in manifest.made_by:
        return
    maker = "has no manifest" if manifest is None else f"names {', '.join(manifest.made_by) or 'nobody'} as its maker"
    raise EngineMismatch(
        f"{path}: {maker}, so gantrt did not make it, and a plan is a program: its maker can do here what you can; "
        "if you trust them, say --trust (in Python trust=True), or build your own: gantrt export MODEL.onnx -o OUT.plan"
    )


def _check_size(path: Path, manifest: Manifest, size: tuple[int, int] | None) -> None:
    spec = manifest.input
    if size is None:
        return
    if not spec.dynamic and size != (spec.height, spec.width):
        raise EngineMismatch(
            f"{path}: made for {spec.height}x{spec.width}, not {size[0]}x{size[1]}; "
            f"rebuild it with `gantrt export RUN -o OUT.onnx --size {size[0]}x{size[1]}`, or --dynamic"
        )
    if min(size) < 1 or size[0] % spec.multiple or size[1] % spec.multiple:
        raise UsageError(f"{path}: size {size[0]}x{size[1]} is not divisible by {spec.multiple}, as its network needs")


@functools.cache
def _say_once(text: str) -> None:
    log.info("%s", text)
