"""Exact rewrites of a traced graph: the same function with less work, or in a form that engines run faster.

One file each; the folder is the registry. A rewrite has `apply(graph)`, which returns in how many places it did
something. It matches one pattern and leaves alone whatever merely resembles it. None needs another to go before it;
they are applied in the order of their names.

What it gains where is measured by bench/rewrites.py and told in docs/engines.md; that it is exact is proved, on random
weights, by tests/test_rewrites.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

from onnx import ModelProto

from ..onnx_graph import Graph


@cache
def list_rewrites() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def rewrite(model: ModelProto, names: Iterable[str] | None = None) -> dict[str, int]:
    """Apply the rewrites, all or those named, to a graph with bare NormAct nodes, in place.

    Returns name -> in how many places, of those that found any.
    """
    found: dict[str, int] = {}
    for name in list_rewrites() if names is None else names:
        graph = Graph(model)
        places = importlib.import_module(f"{__name__}.{name}").apply(graph)
        if places:
            graph.drop_unused()
            found[name] = places
    return found
