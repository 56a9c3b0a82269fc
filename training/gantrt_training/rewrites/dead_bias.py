"""A bias in front of an instance norm, which takes it off again with the mean:  n(x + b) = n(x).

Not so where layer norm is mixed in (rho): between channels the bias counts.
"""

from __future__ import annotations

from ..onnx_graph import Graph


def apply(graph: Graph) -> int:
    places = 0
    for conv in graph.nodes("Conv", "ConvTranspose"):
        norm = graph.only_taker(conv.output[0])
        if len(conv.input) < 3 or norm is None or norm.op_type != "NormAct" or norm.input[0] != conv.output[0]:
            continue
        if len(norm.input) < 4 or not norm.input[3]:
            del conv.input[2]
            places += 1
    return places
