"""The graph as TensorRT's parser takes it: our op as a plugin or as its bodies, and sizes as asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine_file import inlined, serialized
from ..norm_act_bodies import DOMAIN, norm_act_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def set_size(model: ModelProto, batch: int, channels: int, height: int, width: int) -> None:
    """Make the one size static, in place."""
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (batch, channels, height, width), strict=True):
            dim.dim_value = size
    del model.graph.value_info[:]  # of the dynamic graph
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")


def with_bodies(model: ModelProto) -> bytes:
    """For a plan that any TensorRT runs: each NormAct is its definition."""
    return inlined(model)


def with_plugins(model: ModelProto) -> bytes:
    """For a plan that runs our kernels. Changes `model`.

    Without bodies, as the parser would prefer them to the plugin; and a plugin has no optional inputs, so that those
    left out are taken out, and `mixed` says whether rho is among the rest.
    """
    import onnx.helper

    for node in norm_act_nodes(model):
        node.ClearField("overload")
        mixed = len(node.input) > 3 and bool(node.input[3])
        node.attribute.append(onnx.helper.make_attribute("mixed", int(mixed)))
        given = [name for name in node.input if name]
        del node.input[:]
        node.input.extend(given)
    others = [function for function in model.functions if function.domain != DOMAIN]
    del model.functions[:]
    model.functions.extend(others)
    return serialized(model)


def gemms_to_convolutions(model: ModelProto) -> None:
    """Make each float32 Gemm with constant weights a 1x1 convolution, in place.

    TensorRT-RTX 1.7 has no float32 matrix product for compute capability 7.5; convolutions it has.
    """
    import onnx
    import onnx.helper
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    axes = "gantrt.plane"
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        matrix = weights.get(node.input[1]) if node.op_type == "Gemm" else None
        plain = (attributes.get("alpha", 1.0), attributes.get("beta", 1.0), attributes.get("transA", 0)) == (1, 1, 0)
        if matrix is None or matrix.data_type != TensorProto.FLOAT or not plain:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(matrix)
        kernel = (values if attributes.get("transB", 0) else values.T)[:, :, None, None].copy()
        x, y, w = f"{node.name}.plane", f"{node.name}.conv", f"{node.name}.kernel"
        graph.initializer.append(numpy_helper.from_array(kernel, w))
        nodes += [
            onnx.helper.make_node("Unsqueeze", [node.input[0], axes], [x], f"{node.name}.unsqueeze"),
            onnx.helper.make_node("Conv", [x, w, *node.input[2:]], [y], node.name),
            onnx.helper.make_node("Squeeze", [y, axes], list(node.output), f"{node.name}.squeeze"),
        ]
    if len(nodes) > len(graph.node):
        import numpy as np

        graph.initializer.append(numpy_helper.from_array(np.array([2, 3], np.int64), axes))
        del graph.node[:]
        graph.node.extend(nodes)
