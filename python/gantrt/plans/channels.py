"""Channels by eights, as tensor cores take them, for TensorRT-RTX: left to itself it pads and cuts off in launches.

Between two convolutions the padding is zeros of both kernels, which change no number. What the last convolution makes
beyond its channels is cut off in the graph, where that merges into the launch behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_EIGHT = 8
_KEEP_CHANNELS = ("Relu", "LeakyRelu", "Tanh", "Sigmoid", "Identity", "Cast")  # each by itself, and finite at 0
_MADE = {"Conv": 0, "ConvTranspose": 1}  # axis of the kernel
_TAKEN = {"Conv": 1, "ConvTranspose": 0}


def by_eights(model: ModelProto, *, ends: bool) -> int:
    """Widen convolutions whose channels are not a multiple of eight, in place; returns how many.

    ends  those too that no convolution follows, which costs a Slice
    """
    graph = _Graph(model)
    return sum(_widen(graph, node, ends) for node in list(model.graph.node) if graph.is_plain(node))


class _Graph:
    def __init__(self, model: ModelProto) -> None:
        self.proto = model.graph
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.takers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
        self.results = {value.name for value in model.graph.output}

    def is_plain(self, node: NodeProto) -> bool:
        """A convolution in one group, of constants that no other node uses."""
        if node.op_type not in _MADE or any(a.name == "group" and a.i != 1 for a in node.attribute):
            return False
        return all(name in self.constants and len(self.takers[name]) == 1 for name in node.input[1:])

    def follower(self, node: NodeProto) -> NodeProto | None:
        """The convolution that alone reads what `node` makes, through functions of single numbers at most."""
        while True:
            name = node.output[0]
            takers = self.takers.get(name, [])
            if len(takers) != 1 or name in self.results:
                return None
            node = takers[0]
            if node.op_type in _MADE:
                return node if node.input[0] == name and self.is_plain(node) else None
            if node.op_type not in _KEEP_CHANNELS:
                return None

    def pad(self, name: str, axis: int, more: int) -> None:
        from onnx import numpy_helper

        values: NDArray[np.generic] = numpy_helper.to_array(self.constants[name])
        zeros = np.zeros((*values.shape[:axis], more, *values.shape[axis + 1 :]), values.dtype)
        self.constants[name].CopyFrom(numpy_helper.from_array(np.concatenate([values, zeros], axis), name))

    def constant(self, name: str, value: int) -> str:
        from onnx import numpy_helper

        self.proto.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
        return name

    def forget_shapes(self, names: set[str]) -> None:
        kept = [value for value in self.proto.value_info if value.name not in names]
        del self.proto.value_info[:]
        self.proto.value_info.extend(kept)


def _widen(graph: _Graph, node: NodeProto, ends: bool) -> bool:
    made = graph.constants[node.input[1]].dims[_MADE[node.op_type]]
    more, follower = -made % _EIGHT, graph.follower(node)
    if not more or (follower is None and not ends):
        return False
    for name, axis in zip(node.input[1:], (_MADE[node.op_type], 0), strict=False):
        graph.pad(name, axis, more)
    if follower is None:
        _cut_off(graph, node, made)
        return True
    graph.pad(follower.input[1], _TAKEN[follower.op_type], more)
    between = {node.output[0]}
    while (taker := graph.takers[node.output[0]][0]) is not follower:
        node = taker
        between.add(node.output[0])
    graph.forget_shapes(between)
    return True


def _cut_off(graph: _Graph, node: NodeProto, made: int) -> None:
    import onnx.helper

    result, wide = node.output[0], f"{node.output[0]}.wide"
    node.output[0] = wide
    ends = [graph.constant(f"{wide}.{name}", value) for name, value in (("from", 0), ("to", made), ("axis", 1))]
    at = list(graph.proto.node).index(node) + 1
    graph.proto.node.insert(at, onnx.helper.make_node("Slice", [wide, *ends], [result], f"{node.name}.cut"))
