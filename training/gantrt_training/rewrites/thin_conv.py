"""A large convolution to few channels: two by two pixels at once, as channels of an image of half the size.

    y[o, 2i + a, 2j + b] = sum_{c, k, l} x[c, 2i + k, 2j + l] w[o, c, k - a, l - b]

Vector units work on 8 or 16 outputs at a time, matrix units on more; a generator's last convolution has 3. With 12 it
is faster though its kernel grows by a row and a column of zeros, and it is the same sum: bitwise, in many engines.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..onnx_graph import Graph, Window
from . import _subpixel

_FEW = 4  # channels: with more, lanes are not what is missing
_LARGE = 5  # kernel: in a smaller one the zeros are too large a part


def apply(graph: Graph) -> int:
    places = 0
    for conv in graph.nodes("Conv"):
        kernel, window = graph.constant(conv.input[1]), Window.of(conv)
        if kernel is None or not _subpixel.has_constants(graph, conv) or replace(window, pads=(0,) * 4) != Window():
            continue
        if kernel.shape[0] > _FEW or min(kernel.shape[2:]) < _LARGE or not graph.has_even_sides(conv.output[0]):
            continue
        height, width = kernel.shape[2:]
        blocks = np.zeros((2, 2, *kernel.shape[:2], height + 1, width + 1), kernel.dtype)
        for a, b in np.ndindex(2, 2):
            blocks[a, b, :, :, a : a + height, b : b + width] = kernel
        nodes = _subpixel.convolution(graph, conv, conv.input[0], blocks, conv.output[0], window.pads, stride=2)
        graph.replace([conv], nodes)
        places += 1
    return places
