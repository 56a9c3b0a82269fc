"""Channels scaled by constants, joined, and convolved: the scales belong to the kernel.

    conv([s x, t x]; [V, W]) = conv(x; V s + W t),   s and t one number for each channel

U-GAT-IT's attention in a generator (nets/ugatit.py): half the channels, and neither products nor a joined copy.
An int8 graph needs it: OpenVINO 2026.4 takes the factors for those of a dequantisation, and returns other pictures.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from ..onnx_graph import Graph, Window, attributes


def apply(graph: Graph) -> int:
    places = 0
    for conv in graph.nodes("Conv"):
        kernel, concat = graph.constant(conv.input[1]), graph.maker(conv.input[0], "Concat")
        if kernel is None or concat is None or Window.of(conv).group != 1 or attributes(concat).get("axis") != 1:
            continue
        if graph.only_taker(conv.input[0]) is not conv:
            continue
        muls = [graph.maker(name, "Mul") for name in concat.input]
        scaled = [_scaled(graph, mul, concat) for mul in muls]
        sources = {pair[0] for pair in scaled if pair}
        if None in scaled or len(sources) != 1:
            continue
        scales = np.stack([pair[1] for pair in scaled if pair])  # (parts, C)
        if scales.size != kernel.shape[1]:
            continue
        parts = kernel.reshape(kernel.shape[0], *scales.shape, *kernel.shape[2:]).astype(np.float64)
        folded = np.einsum("oicyx,ic->ocyx", parts, scales.astype(np.float64)).astype(kernel.dtype)
        conv.input[0], conv.input[1] = sources.pop(), graph.add_constant(f"{conv.name}.folded", folded)
        for node in (*muls, concat):
            if node is not None:
                graph.proto.node.remove(node)
        places += 1
    return places


def _scaled(graph: Graph, mul: NodeProto | None, concat: NodeProto) -> tuple[str, np.ndarray] | None:
    """(x, one number for each of its channels) of a product that only `concat` takes."""
    if mul is None or graph.only_taker(mul.output[0]) is not concat:
        return None
    for x, factor in (mul.input, mul.input[::-1]):
        scale = graph.constant(factor)
        if (
            scale is not None
            and graph.constant(x) is None
            and scale.shape in ((1, scale.size, 1, 1), (scale.size, 1, 1))
        ):
            return x, scale.ravel()
    return None
