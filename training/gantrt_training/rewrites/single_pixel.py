"""Convolutions between a single pixel and a small image: rows of the kernel that only padding meets are left out.

A transposed convolution of one pixel writes its kernel, without what falls into the padding; a convolution that makes
one pixel sees as many rows of its kernel as its image has. At both ends of pix2pix's bottleneck that leaves 2x2 of
4x4: 12 % of its weights are never seen, and need neither be stored nor read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnx import NodeProto, helper

from ..onnx_graph import Graph, Window

_PIXEL = (1, 1)


def apply(graph: Graph) -> int:
    return sum(_trim(graph, conv) for conv in graph.nodes("Conv", "ConvTranspose"))


def _trim(graph: Graph, conv: NodeProto) -> bool:
    window, kernel = Window.of(conv), graph.constant(conv.input[1])
    if kernel is None or replace(window, strides=(1, 1), pads=(0,) * 4) != Window():
        return False
    if conv.op_type == "Conv":
        small, pixel = conv.input[0], conv.output[0]
    else:
        small, pixel = conv.output[0], conv.input[0]
    height, width = graph.plane(small)
    top, left, _, _ = window.pads
    seen = kernel[:, :, top : top + height, left : left + width]
    if graph.plane(pixel) != _PIXEL or seen.shape[2:] != (height, width) or seen.shape == kernel.shape:
        return False
    inputs = [conv.input[0], graph.add_constant(f"{conv.name}.seen", seen), *conv.input[2:]]
    said: dict[str, Any] = {"kernel_shape": seen.shape[2:], "strides": window.strides}
    graph.replace([conv], [helper.make_node(conv.op_type, inputs, list(conv.output), conv.name, **said)])
    return True
