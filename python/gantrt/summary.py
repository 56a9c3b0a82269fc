"""What a file is: an engine, a checkpoint, or the RUN folder of a training. Reads headers; needs no torch."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engine_file import load_model, read_manifest, weight_bytes
from .errors import EngineCorrupt
from .external_data import understood
from .manifest import KEY, Manifest
from .plan_file import PLAN_SUFFIX
from .schemas import CHECKPOINT, RECIPE, refuse_newer

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_LARGEST_HEADER = 100 << 20  # what safetensors itself allows
_PER_BYTE = 8  # values of the smallest type there could be
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def summary(path: str | Path) -> dict[str, Any]:
    """What `path` is, as JSON would say it; `kind` is "engine", "plan", "checkpoint" or "run".

    Raises EngineCorrupt if it is none of these, or damaged, EngineMismatch if a newer gantrt wrote it.
    """
    path = Path(path)
    if path.is_dir():
        return _run(path)
    if path.suffix == ".safetensors":
        return _checkpoint(path)
    if path.suffix.lower() == PLAN_SUFFIX:
        return _plan(path)
    return _engine(path)


def _plan(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    return {
        "kind": "plan",
        "path": str(path),
        "bytes": path.stat().st_size,
        "manifest": dataclasses.asdict(manifest) if manifest else None,
    }


def _engine(path: Path) -> dict[str, Any]:
    manifest, model = read_manifest(path), load_model(path)
    with understood(path):
        return _described(path, manifest, model)


def _described(path: Path, manifest: Manifest | None, model: ModelProto) -> dict[str, Any]:
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    nodes = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph.node)
    return {
        "kind": "engine",
        "path": str(path),
        "bytes": path.stat().st_size,
        "manifest": dataclasses.asdict(manifest) if manifest else None,
        "inputs": [_port(value) for value in graph.input if value.name not in weights],
        "outputs": [_port(value) for value in graph.output],
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "nodes": dict(nodes.most_common()),
        "bodies": sorted(function.overload or function.name for function in model.functions),
        "weight_bytes": weight_bytes(model),
    }


def _port(value: ValueInfoProto) -> dict[str, Any]:
    import onnx

    tensor = value.type.tensor_type
    shape = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
    element = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return {"name": value.name, "type": {"float": "float32"}.get(element, element), "shape": shape}


def _run(path: Path) -> dict[str, Any]:
    checkpoints = sorted((path / "checkpoints").glob("step_*.safetensors"))
    recipe = path / "recipe.json"
    if not checkpoints and not recipe.is_file():
        raise EngineCorrupt(f"{path}: no RUN folder: it has neither recipe.json nor checkpoints")
    try:
        written = json.loads(recipe.read_text()) if recipe.is_file() else None
    except (OSError, ValueError, RecursionError) as error:
        raise EngineCorrupt(f"{recipe}: cannot be read ({error})") from error
    _refuse_newer(recipe, written, RECIPE)
    if not isinstance(written, dict | None):
        raise EngineCorrupt(f"{recipe}: is no recipe of a training")
    return {
        "kind": "run",
        "path": str(path),
        "recipe": written,
        "checkpoints": [checkpoint.name for checkpoint in checkpoints],
        "newest": _checkpoint(checkpoints[-1]) if checkpoints else None,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    header = _safetensors_header(path)
    text = header.pop("__metadata__", {}).get(KEY)
    networks: dict[str, dict[str, int]] = {}
    for name, tensor in header.items():
        network = networks.setdefault(name.partition(".")[0], {"tensors": 0, "values": 0, "bytes": 0})
        values = math.prod(tensor["shape"])
        network["tensors"] += 1
        network["values"] += values
        network["bytes"] += values * _BYTES.get(tensor["dtype"], 0)
    return {
        "kind": "checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "description": _description(path, text),
        "networks": networks,
    }


def _refuse_newer(path: Path, written: Any, known: int) -> None:
    if isinstance(written, dict) and isinstance(found := written.get("schema"), int):
        refuse_newer(path, found, known)


def _description(path: Path, text: str | None) -> dict[str, Any] | None:
    """What a checkpoint says of itself, if it says anything: an object whose config and made_by are objects, too."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise EngineCorrupt(f"{path}: what it says of itself cannot be read ({error})") from error
    _refuse_newer(path, found, CHECKPOINT)
    if not isinstance(found, dict) or not all(isinstance(found.get(key, {}), dict) for key in ("config", "made_by")):
        raise EngineCorrupt(f"{path}: what it says of itself makes no sense")
    return found


def _safetensors_header(path: Path) -> dict[str, Any]:
    """Name -> {dtype, shape, data_offsets}, and __metadata__: 8 bytes of length, little-endian, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _LARGEST_HEADER:
                raise EngineCorrupt(f"{path}: no .safetensors file, or damaged")
            header: dict[str, Any] = json.loads(file.read(length))
            size = path.stat().st_size - 8 - length
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        ends = [operator.index(tensor["data_offsets"][1]) for tensor in tensors]
        shapes = [[operator.index(side) for side in tensor["shape"]] for tensor in tensors]
        kinds = [tensor["dtype"] for tensor in tensors]
        header.get("__metadata__", {}).get(KEY)
    except OSError as error:
        raise EngineCorrupt(f"{path}: {'no such checkpoint' if not path.exists() else error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise EngineCorrupt(f"{path}: no .safetensors file, or damaged ({error})") from error
    possible = all(min(shape, default=0) >= 0 and math.prod(shape) <= _PER_BYTE * size for shape in shapes)
    if not possible or not all(isinstance(kind, str) for kind in kinds):
        raise EngineCorrupt(f"{path}: no .safetensors file, or damaged")
    if max(ends, default=0) != size:
        raise EngineCorrupt(f"{path}: damaged: it holds {size} bytes of weights, not {max(ends, default=0)}")
    return header
