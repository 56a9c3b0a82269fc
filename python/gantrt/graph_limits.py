"""Is a graph one that a runtime can read in reasonable time? Asked before any is given it.

Of a cycle OpenVINO (2026.4) never comes back, branches within branches it reads in time that doubles with each level, and
functions that call the next one twice are a billion nodes after thirty. No generator comes near these limits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import EngineCorrupt

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_NODES = 20_000  # when functions are replaced by their bodies; a U-GAT-IT has 1000
DEEPEST = 6  # branches and loops within each other, functions that call functions


def check_graph(path: str | Path, model: ModelProto) -> None:
    """Raises EngineCorrupt unless nodes come after what they read, and there are not too many of them."""
    functions = {(function.domain, function.name, function.overload): function for function in model.functions}
    counted: dict[int, int] = {}

    def count(graph: Any, depth: int) -> int:
        if depth > DEEPEST:
            raise EngineCorrupt(f"{path}: nests deeper than {DEEPEST} graphs; no generator does; export it again")
        if id(graph) not in counted:
            counted[id(graph)] = sum(1 + inside(node, depth) for node in graph.node)
        return counted[id(graph)]

    def inside(node: Any, depth: int) -> int:
        graphs = [graph for a in node.attribute for graph in ((a.g,) if a.HasField("g") else (*a.graphs,))]
        called = functions.get((node.domain, node.op_type, node.overload))
        return sum(count(graph, depth + 1) for graph in (*graphs, *([called] if called is not None else [])))

    graph = model.graph
    _check_order(path, graph)
    total = count(graph, 0)
    if total > MOST_NODES:
        raise EngineCorrupt(f"{path}: has {total} nodes, more than the {MOST_NODES} that are read; export it again")


def _check_order(path: str | Path, graph: Any) -> None:
    known = {value.name for value in (*graph.input, *graph.initializer)}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        unknown = next((name for name in node.input if name and name not in known), None)
        if unknown is not None:
            raise EngineCorrupt(
                f"{path}: {node.op_type[:80]} reads {unknown[:80]!r}, which no node before it makes: a cycle, or damaged; "
                "export it again"
            )
        known.update(node.output)
