"""What of an .onnx lies in other files, and whether it may.

Ours has nothing beside it. Other exporters write large weights into a file beside the model, and the model names it: so
a stranger's model can name any file there is, and show its content.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import EngineCorrupt, GantrtError

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto


def external_files(path: Path, model: ModelProto | None = None) -> list[Path]:
    """The files that hold weights of the .onnx at `path`.

    model  what is in the .onnx, if it was read already
    Raises EngineCorrupt for one that is no plain file beside it.
    """
    import onnx

    if model is None:
        if not _may_have_some(path):
            return []
        with understood(path):
            model = onnx.load(path, load_external_data=False)
    with understood(path):
        tensors = [tensor for graph in (model.graph, *model.functions) for tensor in _tensors(graph)]
        apart = [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
        names = {entry.value: None for tensor in apart for entry in tensor.external_data if entry.key == "location"}
    for name in names:
        file = path.parent / name
        if name != Path(name).name or file.is_symlink() or not file.is_file() or file.stat().st_nlink > 1:
            raise EngineCorrupt(
                f"{path}: wants weights from {name[:200]!r}, which is no plain file beside it; not read"
            )
    return [path.parent / name for name in names]


@contextlib.contextmanager
def understood(path: str | Path) -> Iterator[None]:
    """What onnx raises for a model that is none, as EngineCorrupt: names that are no text, types that do not exist."""
    from onnx.checker import ValidationError

    try:
        yield
    except GantrtError:
        raise
    except (ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, OSError, ValidationError) as error:
        raise EngineCorrupt(damaged(path, error)) from error


def damaged(path: str | Path, error: Exception) -> str:
    gist = str(error).strip().partition("\n")[0][:200]
    return f"{path}: not an engine, or damaged ({gist}); export it again"


def _may_have_some(path: Path) -> bool:
    """Whether the bytes are there with which a tensor names its file; they may be there by chance as well."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(b"\x0a\x08location") >= 0
    except (OSError, ValueError) as error:
        raise EngineCorrupt(f"{path}: cannot be read as an engine ({error})") from error


def _tensors(graph: Any) -> Iterator[TensorProto]:
    """All tensors of a graph or function, also those in attributes and in graphs within it."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
