"""A transposed 4x4 convolution of stride 2 to few channels: a 2x2 convolution whose channels are pixels.

Along an axis, with x = 0 beyond its ends,

    y[2i - 1] = w2 x[i - 1] + w0 x[i]
    y[2i]     = w3 x[i - 1] + w1 x[i]

U-Nets and DiscoGAN end with it. There it uses 12 lanes of a vector unit where 3 were used; and OpenVINO, which works
in bfloat16 only in front of the last convolution that is not transposed, does so in the whole decoder. Further in,
where channels are many, engines run the transposed form as fast, without the border that is cut off here.
"""

from __future__ import annotations

import numpy as np

from ..onnx_graph import Graph, Window
from . import _subpixel

_FEW = 4  # channels
_ROWS = [[2, 0], [3, 1]]  # of the kernel: for each place in the block, for x[i - 1] and x[i]
_HALVED = Window(strides=(2, 2), pads=(1, 1, 1, 1))


def apply(graph: Graph) -> int:
    places = 0
    for conv in graph.nodes("ConvTranspose"):
        kernel = graph.constant(conv.input[1])
        if kernel is None or not _subpixel.has_constants(graph, conv) or Window.of(conv) != _HALVED:
            continue
        if kernel.shape[1] > _FEW or kernel.shape[2:] != (4, 4):
            continue
        rows = np.array(_ROWS)
        taps = kernel[:, :, rows[:, None, :, None], rows[None, :, None, :]]  # (C, O, a, b, k, l)
        blocks = taps.transpose(2, 3, 1, 0, 4, 5)
        graph.replace([conv], _subpixel.shifted_convolution(graph, conv, conv.input[0], blocks, (1, 1, 1, 1)))
        places += 1
    return places
