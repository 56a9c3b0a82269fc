"""Convolutions that make two by two pixels at once, as channels of an image of half the size.

    y[n, o, 2i + a, 2j + b] = sum_{c, k, l} x[n, c, s i + k, s j + l] w[a, b, o, c, k, l]

is one convolution with 4 O outputs and DepthToSpace (Shi et al. 2016, arXiv:1609.05158).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from ..onnx_graph import Graph

Array = NDArray[Any]


def convolution(
    graph: Graph, node: NodeProto, x: str, kernel: Array, y: str, pads: tuple[int, ...] = (0, 0, 0, 0), stride: int = 1
) -> list[NodeProto]:
    """Nodes that make `y` from `x` in the place of `node`, whose bias they keep.

    kernel  (r, r, O, C, h, w): the row and the column of the pixel in its block, then as Conv's
    """
    block, name = kernel.shape[0], node.name or node.output[0]
    weight = graph.add_constant(f"{name}.kernel", kernel.reshape(-1, *kernel.shape[3:]))
    inputs, channels = [x, weight], graph.new_name(f"{name}.pixels")
    bias = graph.constant(node.input[2]) if len(node.input) > 2 else None
    if bias is not None:
        inputs.append(graph.add_constant(f"{name}.bias", np.tile(bias, block * block)))
    window: dict[str, Any] = {"kernel_shape": kernel.shape[4:], "pads": pads, "strides": (stride, stride)}
    return [
        helper.make_node("Conv", inputs, [channels], name, **window),
        helper.make_node("DepthToSpace", [channels], [y], f"{name}.DepthToSpace", blocksize=block, mode="DCR"),
    ]


def shifted_convolution(graph: Graph, node: NodeProto, x: str, kernel: Array, pads: tuple[int, ...]) -> list[NodeProto]:
    """As `convolution`, for blocks that begin one pixel above and left of the image: its border is cut off again."""
    name = node.name or node.output[0]
    wide = graph.new_name(f"{name}.wide")
    ends = {"starts": [1, 1], "ends": [-1, -1], "axes": [2, 3]}
    names = [graph.add_constant(f"{name}.{end}", np.array(value)) for end, value in ends.items()]
    crop = helper.make_node("Slice", [wide, *names], list(node.output), f"{name}.Slice")
    return [*convolution(graph, node, x, kernel, wide, pads), crop]


def has_constants(graph: Graph, node: NodeProto) -> bool:
    """Whether the kernel of a convolution, and its bias if it has one, are known."""
    return all(graph.constant(name) is not None for name in node.input[1:])
