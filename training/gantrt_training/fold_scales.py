"""Constant factors of channels belong into the weights of the convolution behind them.

U-GAT-IT's attention (Kim et al. 2020, eq. 2, arXiv:1907.10830) scales the features twice by constants, stacks both and
mixes them by a 1x1 convolution: conv(cat(a*x, b*x), W) = conv(x, W_1 diag(a) + W_2 diag(b)). Exact but for the order of
sums; half of the work. An int8 graph needs it: OpenVINO 2026.4 takes the factors for those of a dequantisation, and
returns other pictures.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper


def fold_scales(model: ModelProto) -> None:
    """Fold every such pattern of a float32 graph, in place."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    gone: set[str] = set()
    for conv in graph.node:
        stack = maker.get(conv.input[0]) if conv.op_type == "Conv" and conv.input[1] in weights else None
        if stack is None or stack.op_type != "Concat" or _uses(model, stack.output[0]) != 1:
            continue
        factors = [_factor(maker.get(name), weights) for name in stack.input]
        sources = {source for source, _ in factors}
        weight = numpy_helper.to_array(weights[conv.input[1]])
        if len(sources) != 1 or None in sources or weight.shape[1] != sum(value.size for _, value in factors):
            continue
        parts = np.split(weight, len(factors), axis=1)
        folded = sum(part * value.reshape(1, -1, 1, 1) for part, (_, value) in zip(parts, factors, strict=True))
        name = f"{conv.input[1]}.folded"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(folded, np.float32), name))
        conv.input[0], conv.input[1] = str(sources.pop()), name
        gone |= {stack.output[0], *stack.input}
    dead = [node for node in graph.node if node.output[0] in gone and not _uses(model, node.output[0])]
    while dead:
        for node in dead:
            graph.node.remove(node)
        dead = [node for node in graph.node if node.output[0] in gone and not _uses(model, node.output[0])]
    used = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]


def _uses(model: ModelProto, name: str) -> int:
    return sum(name in node.input for node in model.graph.node)


def _factor(node: NodeProto | None, weights: dict[str, TensorProto]) -> tuple[str | None, NDArray[np.float32]]:
    """What a Mul scales, and by how much each channel; (None, nothing) of any other node."""
    nothing = (None, np.empty(0, np.float32))
    if node is None or node.op_type != "Mul":
        return nothing
    for source, factor in (node.input, reversed(node.input)):
        tensor = weights.get(factor)
        if tensor is not None:
            value = numpy_helper.to_array(tensor)
            whole = value.ndim == 4 and value.shape[0] == 1 and math.prod(value.shape[2:]) == 1
            return (source, value) if whole else nothing
    return nothing
