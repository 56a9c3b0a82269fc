"""The engine file: one .onnx that carries its weights, its manifest, and the definition of our op.

Nothing of it lies beside the file, and any ONNX Runtime can run it: gantrt::NormAct is a model-local function.
The .plan compiled from it carries the manifest, too (plan_file.py).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from .atomic import atomic_path
from .errors import BuildFailed, EngineCorrupt, EngineMismatch, GantrtError, UsageError
from .external_data import damaged, external_files, understood
from .graph_limits import check_graph
from .int8_forms import is_quantised, quantise_before_pads
from .manifest import KEY, LARGEST_SIDE, InputSpec, Manifest
from .norm_act_bodies import DOMAIN, attach_bodies, norm_act_nodes
from .plan_file import PLAN_SUFFIX, read_plan_manifest

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

__all__ = [
    "attach_bodies",
    "guess_manifest",
    "inlined",
    "load_model",
    "norm_act_nodes",
    "read_manifest",
    "serialized",
    "weight_bytes",
    "write_engine",
]

_PROTOBUF_LIMIT = 2**31 - 1
_MOST_PACKED = 8  # a protobuf's zero of eight bytes takes one
_ASSUMED_SIZE = 256  # of a foreign file that leaves height and width open
_ASSUMED_MULTIPLE = 4  # what generators with two halvings need, and harmless to those without


def read_manifest(path: str | Path) -> Manifest | None:
    """The manifest of an engine file, .onnx or .plan; None for a sound one that has none.

    Of an .onnx only the outermost fields are read, not the weights: a 1 GB engine takes as long as a small one.
    Raises EngineCorrupt if the file is missing, damaged or no engine, EngineMismatch if a newer gantrt wrote it.
    """
    path = Path(path)
    if path.suffix.lower() == PLAN_SUFFIX:
        return read_plan_manifest(path)
    try:
        with path.open("rb") as file:
            text = _metadata(file).get(KEY)
    except OSError as error:
        raise EngineCorrupt(_unreadable(path, error)) from error
    except (ValueError, EOFError) as error:
        raise EngineCorrupt(f"{path}: not an engine, or damaged ({error}); export it again") from error
    if text is None:
        return None
    try:
        return Manifest.from_json(text)
    except (EngineCorrupt, EngineMismatch) as error:
        raise type(error)(f"{path}: {error}") from error


def guess_manifest(
    path: str | Path, *, range: tuple[float, float] = (-1.0, 1.0), color: Literal["rgb", "bgr"] = "rgb"
) -> Manifest:
    """What can be told of a file without manifest from its one input, which must be float32, NCHW, of 1 or 3 channels.

    Its value range and the order of its colours are the caller's to know.
    Of a .plan only its runtime can tell the size: what is said of it here is a guess.
    Raises EngineMismatch, naming what the file takes, if it is no such network.
    """
    if Path(path).suffix.lower() == PLAN_SUFFIX:
        return Manifest(range=range, color=color, norm_mode="none")
    model = load_model(path)
    with understood(path):
        return _guessed(path, model, range, color)


def _guessed(path: str | Path, model: ModelProto, range: tuple[float, float], color: Literal["rgb", "bgr"]) -> Manifest:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise EngineMismatch(
            f"{path}: has {len(inputs)} inputs and {len(model.graph.output)} outputs, not one picture in and one out"
        )
    element, shape = _type_of(inputs[0])
    if element != "FLOAT" or len(shape) != 4 or shape[1] not in (1, 3):
        shown = "x".join(str(size or "?") for size in shape)
        raise EngineMismatch(f"{path}: takes {element.lower()} {shown}, not float NCHW of 1 or 3 channels")
    batch, channels, height, width = shape
    if not all(0 <= side <= LARGEST_SIDE for side in shape):
        raise EngineMismatch(f"{path}: takes pictures of {height}x{width}, {batch} at once, which nobody has")
    dynamic = not (height and width)
    spec = InputSpec(
        channels=channels,
        height=height or _ASSUMED_SIZE,
        width=width or _ASSUMED_SIZE,
        multiple=_ASSUMED_MULTIPLE if dynamic else 1,
        dynamic=dynamic,
    )
    return Manifest(
        input=spec, range=range, color="gray" if channels == 1 else color, norm_mode="none", batch=batch or 1
    )


def load_model(path: str | Path, *, weights: bool = True) -> ModelProto:
    """The whole .onnx, weights and all; `weights` False leaves those out that lie beside it.

    Raises EngineCorrupt as `read_manifest` does, and for a graph no runtime should be given; UsageError for a .plan.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    if path.suffix.lower() == PLAN_SUFFIX:
        raise UsageError(f"{path}: a plan is compiled, and holds no graph; give the .onnx it was built from")
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise EngineCorrupt(_unreadable(path, error)) from error
    except (DecodeError, ValueError) as error:
        raise EngineCorrupt(damaged(path, error)) from error
    if not model.HasField("graph") or not model.graph.node:
        raise EngineCorrupt(f"{path}: holds no network; export it again")
    with understood(path):
        check_graph(path, model)
        beside = external_files(path, model)
        held = sum(file.stat().st_size for file in (path, *beside))
        if weight_bytes(model) > _MOST_PACKED * held or any(
            size < 0 for t in model.graph.initializer for size in t.dims
        ):
            raise EngineCorrupt(
                f"{path}: damaged: its weights are more than the {held} bytes it holds; export it again"
            )
        if beside and weights:
            onnx.load_external_data_for_model(model, str(path.parent))
    return model


def write_engine(model: ModelProto, path: str | Path, manifest: Manifest, *, overwrite: bool = True) -> None:
    """Write `model` as one file that carries `manifest` and the bodies of its NormAct nodes.

    Both are put into `model`, too. The file appears whole or not at all.
    Raises BuildFailed if it would exceed what a protobuf can hold, GantrtError if it cannot be written.
    """
    attach_bodies(model)
    for i, entry in reversed(list(enumerate(model.metadata_props))):
        if entry.key == KEY:
            del model.metadata_props[i]
    model.metadata_props.add(key=KEY, value=manifest.to_json())
    data = serialized(model)
    with atomic_path(path, overwrite=overwrite) as temporary:
        try:
            temporary.write_bytes(data)
        except OSError as error:
            raise GantrtError(f"{path}: cannot be written ({error.strerror or error})") from error


def inlined(source: ModelProto | str | Path) -> bytes:
    """The engine as bytes, every local function replaced by its body: for engines that do not know functions."""
    import onnx

    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
    else:
        model = load_model(source)
    with understood("the model" if isinstance(source, onnx.ModelProto) else source):
        if model.functions:
            _inline(model)
            if is_quantised(model):
                quantise_before_pads(model)
        return serialized(model)


def serialized(model: ModelProto) -> bytes:
    """`model` as bytes. Raises BuildFailed where a protobuf cannot hold it."""
    size = weight_bytes(model)
    if size >= _PROTOBUF_LIMIT:
        raise BuildFailed(
            f"{size / 2**30:.1f} GiB of weights do not fit into one .onnx (2 GiB); export a smaller network, or fp16"
        )
    data: bytes = model.SerializeToString()
    return data


def weight_bytes(model: ModelProto) -> int:
    """How much its initializers hold."""
    import onnx.helper

    return sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )


def _inline(model: ModelProto) -> None:
    """Inline all functions of `model`, in place. The weights stay where they are: they may be a gigabyte."""
    import onnx.helper
    import onnx.inliner

    graph = model.graph
    bones = onnx.helper.make_model(
        onnx.helper.make_graph(graph.node, graph.name, graph.input, graph.output, value_info=graph.value_info),
        functions=model.functions,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    flat = onnx.inliner.inline_local_functions(bones)
    del graph.node[:], graph.value_info[:], model.functions[:], model.opset_import[:]
    graph.node.extend(flat.graph.node)
    graph.value_info.extend(flat.graph.value_info)
    model.opset_import.extend(entry for entry in flat.opset_import if entry.domain != DOMAIN)


def _type_of(value: ValueInfoProto) -> tuple[str, list[int]]:
    """Element type and shape; 0 where a size is open."""
    import onnx

    tensor = value.type.tensor_type
    return onnx.TensorProto.DataType.Name(tensor.elem_type), [dim.dim_value for dim in tensor.shape.dim]


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: no such engine"
    return f"{path}: cannot be read as an engine ({error.strerror or error})"


# Note [reading a protobuf's outer fields]
# A ModelProto is a sequence of (tag, value); tag = number << 3 | type. Varints have type 0, everything with a length,
# the graph too, type 2. So one can step over the graph by its length. Numbers are onnx.proto's.
_IR_VERSION, _GRAPH, _METADATA_PROPS, _ANY_FIELD = 1, 7, 14, range(1, 64)
_VARINT, _LENGTH = 0, 2


def _metadata(file: BinaryIO) -> dict[str, str]:
    """metadata_props of the ModelProto in `file`. Raises ValueError or EOFError if it is none, or cut short."""
    seen, props = set(), {}
    for number, value in _fields(file, _METADATA_PROPS):
        seen.add(number)
        if value is not None:
            entry = {n: v.decode() for n, v in _fields(io.BytesIO(value)) if v is not None}
            props[entry.get(1, "")] = entry.get(2, "")
    if not {_IR_VERSION, _GRAPH} <= seen:
        raise ValueError("no ONNX model")
    return props


def _fields(file: BinaryIO, wanted: int | None = None) -> Iterator[tuple[int, bytes | None]]:
    """(number, bytes) of each field; None instead of the bytes of varints and of fields not `wanted`."""
    end = file.seek(0, io.SEEK_END)
    position = file.seek(0)
    while position < end:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if number not in _ANY_FIELD or kind not in (_VARINT, _LENGTH):
            raise ValueError("no ONNX model")
        length = _varint(file)
        position = file.tell()
        if kind == _VARINT:
            yield number, None
            continue
        if position + length > end:
            raise EOFError("cut short")
        yield number, file.read(length) if wanted in (None, number) else None
        position = file.seek(position + length)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("cut short")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("no ONNX model")
