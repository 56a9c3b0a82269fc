"""Is a graph one that a runtime can read in reasonable time? Asked before any is given it.

Of a cycle OpenVINO (2026.4) never comes back, branches within branches it reads in time that doubles with each level,
and functions that call the next one twice are a billion nodes after thirty. No generator comes near these limits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import EngineCorrupt

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_NODES = 20_000  # when functions are replaced by their bodies; a U-GAT-IT has 1000
MOST_BRANCHES = 6  # branches and loops within each other
MOST_CALLS = 64  # functions that call functions; one that calls itself has no end


def check_graph(path: str | Path, model: ModelProto) -> None:
    """Raises EngineCorrupt unless nodes come after what they read, and there are not too many of them."""
    _check_order(path, model.graph)
    nodes, branches = _Measure(path, model).of(model.graph, 0)
    if nodes > MOST_NODES:
        raise EngineCorrupt(f"{path}: has {nodes} nodes, more than the {MOST_NODES} that are read; export it again")
    if branches > MOST_BRANCHES:
        raise EngineCorrupt(
            f"{path}: has {branches} branches within each other, more than the {MOST_BRANCHES} that are read"
        )


class _Measure:
    """Of each graph and function (how many nodes, how many branches within each other), bodies in place of calls."""

    def __init__(self, path: str | Path, model: ModelProto) -> None:
        self._path = path
        self._functions = {(each.domain, each.name, each.overload): each for each in model.functions}
        self._known: dict[tuple[str, str, str], tuple[int, int]] = {}

    def of(self, graph: Any, calls: int) -> tuple[int, int]:
        if calls > MOST_CALLS:
            raise EngineCorrupt(f"{self._path}: its functions call each other more than {MOST_CALLS} deep, or for ever")
        nodes, branches = 0, 0
        for node in graph.node:
            nodes += 1
            for attribute in node.attribute:
                for inner in (attribute.g,) if attribute.HasField("g") else attribute.graphs:
                    more, within = self.of(inner, calls + 1)
                    nodes, branches = nodes + more, max(branches, within + 1)
            called = (node.domain, node.op_type, node.overload)
            if called in self._functions:
                if called not in self._known:
                    self._known[called] = self.of(self._functions[called], calls + 1)
                more, within = self._known[called]
                nodes, branches = nodes + more, max(branches, within)
        return nodes, branches


def _check_order(path: str | Path, graph: Any) -> None:
    known = {value.name for value in (*graph.input, *graph.initializer)}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        unknown = next((name for name in node.input if name and name not in known), None)
        if unknown is not None:
            raise EngineCorrupt(
                f"{path}: {node.op_type[:80]} reads {unknown[:80]!r}, which no earlier node makes: a cycle, or damage; "
                "export it again"
            )
        known.update(node.output)
