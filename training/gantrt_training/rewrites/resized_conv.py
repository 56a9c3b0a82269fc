"""Nearest neighbour to twice the size, reflect pad, 3x3 convolution: 2x2 convolutions of the small image.

Of three neighbours in the large image two are the same pixel of the small one. Along an axis, with x[-1] = x[0] and
x[n] = x[n - 1], which is what the reflection of a doubled border comes to,

    y[2i]     = w0 x[i - 1] + (w1 + w2) x[i]
    y[2i + 1] = (w0 + w1) x[i] + w2 x[i + 1]

4 products in the place of 9, and no large image is written to be read again.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from ..onnx_graph import Graph, Window, attributes
from . import _subpixel

# (place in the block, tap, kernel's row): a block begins one pixel early, at y[2i - 1], y[2i], made of x[i - 1], x[i].
_TAPS = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], np.float64)
_BORDER = [0, 0, 1, 1, 0, 0, 1, 1]


def apply(graph: Graph) -> int:
    places = 0
    for conv in graph.nodes("Conv"):
        pad = graph.maker(conv.input[0], "Pad")
        resize = graph.maker(pad.input[0], "Resize") if pad is not None else None
        if pad is None or resize is None or not _matches(graph, resize, pad, conv):
            continue
        kernel = graph.constant(conv.input[1])
        assert kernel is not None
        blocks = np.einsum("aky,blx,ocyx->abockl", _TAPS, _TAPS, kernel.astype(np.float64)).astype(kernel.dtype)
        padded, border = (
            graph.new_name(f"{conv.name}.padded"),
            graph.add_constant(f"{conv.name}.border", np.array(_BORDER)),
        )
        edge = helper.make_node("Pad", [resize.input[0], border], [padded], pad.name, mode="edge")
        convolution = _subpixel.shifted_convolution(graph, conv, padded, blocks, (0, 0, 0, 0))
        graph.replace([resize, pad, conv], [edge, *convolution])
        places += 1
    return places


def _matches(graph: Graph, resize: NodeProto, pad: NodeProto, conv: NodeProto) -> bool:
    kernel = graph.constant(conv.input[1])
    if kernel is None or kernel.shape[2:] != (3, 3) or not _subpixel.has_constants(graph, conv):
        return False
    border = graph.constant(pad.input[1]) if len(pad.input) == 2 else None
    scales = graph.constant(resize.input[2]) if len(resize.input) == 3 else None
    how = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    return (
        Window.of(conv) == Window()
        and border is not None
        and border.tolist() == _BORDER
        and attributes(pad).get("mode") in (b"reflect", b"edge")
        and scales is not None
        and scales.tolist() == [1, 1, 2, 2]
        and attributes(resize).items() >= how.items()
        and graph.only_taker(resize.output[0]) is pad
        and graph.only_taker(pad.output[0]) is conv
    )
