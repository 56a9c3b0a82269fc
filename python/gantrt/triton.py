"""A model repository for Triton Inference Server: an engine file in the folders, and with the words, that it reads.

Facts: https://docs.nvidia.com/deeplearning/triton-inference-server, "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from .atomic import atomic_path
from .engine_file import load_model
from .errors import EngineMismatch, UsageError
from .manifest import Manifest

_VERSION = "1"
_TYPES = {1: "TYPE_FP32", 10: "TYPE_FP16", 16: "TYPE_BF16"}  # onnx.TensorProto's
_PLATFORMS = {".onnx": 'backend: "onnxruntime"', ".plan": 'platform: "tensorrt_plan"'}


def write_repository(engine: Path, manifest: Manifest, folder: Path, *, overwrite: bool = False) -> Path:
    """Write FOLDER/NAME/config.pbtxt and FOLDER/NAME/1/model.onnx (.plan), NAME the engine's; return FOLDER/NAME.

    The batch an engine was made with is part of its shape, so max_batch_size is 0. A side that any size fits is -1.
    Raises UsageError for a plan with our plugin, which Triton has no Python for, or where there is such a model.
    """
    check(engine, manifest)
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", engine.stem)
    model = folder / name
    if model.exists() and not overwrite:
        raise UsageError(f"export: {model}: exists already; give --overwrite to replace it")
    with atomic_path(model / _VERSION / f"model{engine.suffix}") as temporary:  # Triton may be looking
        shutil.copyfile(engine, temporary)
    with atomic_path(model / "config.pbtxt") as temporary:
        temporary.write_text(configuration(engine, manifest, name))
    return model


def check(engine: Path, manifest: Manifest) -> None:
    """Raises UsageError for a plan that Triton cannot load."""
    if engine.suffix != ".plan":
        return
    if manifest.target.get("runtime") == "tensorrt-rtx":
        raise UsageError(f"export: {engine}: Triton runs TensorRT's plans, not TensorRT-RTX's; give --target tensorrt")
    if manifest.plugins:
        raise UsageError(f"export: {engine}: Triton cannot load a plan with our plugin; build it with --no-plugins")


def configuration(engine: Path, manifest: Manifest, name: str) -> str:
    """The text of config.pbtxt."""
    (taken, taken_type), (made, made_type) = _ports(engine, manifest)
    spec = manifest.input
    sides = [-1, -1] if spec.dynamic else [spec.height, spec.width]
    dims = {
        "input": [manifest.batch, spec.channels, *sides],
        "output": [manifest.batch, manifest.made_channels, *sides],
    }
    told = {
        "family": manifest.family,
        "direction": manifest.direction,
        "range": f"{manifest.range[0]:g} {manifest.range[1]:g}",
        "color": manifest.color,
        "precision": manifest.precision,
    }
    lines = [
        f"# {manifest.family} {manifest.direction}: NCHW, {manifest.color}, values {told['range']}",
        f"name: {json.dumps(name)}",
        _PLATFORMS[engine.suffix],
        "max_batch_size: 0",
        _port("input", taken, taken_type, dims["input"]),
        _port("output", made, made_type, dims["output"]),
        *(
            f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}"
            for key, value in told.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _port(kind: str, name: str, data_type: str, dims: list[int]) -> str:
    return f"{kind} [ {{ name: {json.dumps(name)} data_type: {data_type} dims: [ {', '.join(map(str, dims))} ] }} ]"


def _ports(engine: Path, manifest: Manifest) -> tuple[tuple[str, str], tuple[str, str]]:
    """Name and type of the one input and the one output. A plan has those of the engine file it was built from."""
    if engine.suffix != ".onnx":
        return ("input", "TYPE_FP32"), ("output", "TYPE_FP32")
    graph = load_model(engine).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise EngineMismatch(
            f"{engine}: has {len(inputs)} inputs and {len(graph.output)} outputs; an engine has one of each"
        )
    first, second = ((value.name, _TYPES[value.type.tensor_type.elem_type]) for value in (inputs[0], graph.output[0]))
    return first, second
