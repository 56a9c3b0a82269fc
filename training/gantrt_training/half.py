"""Half precision as a property of the graph: TensorRT 11 computes in the types that the graph says.

Weights and activations become float16 or bfloat16. What stays float32: input and output, so that a caller sees no
difference, and the parameters of NormAct, whose kernels take statistics in float32 anyway.
"""

from __future__ import annotations

from typing import Literal

import onnx
import torch
from gantrt.errors import BuildFailed
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

HALF_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_ELEMENTS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def retype(model: ModelProto, precision: Literal["fp16", "bf16"]) -> None:
    """Make `model` compute in `precision`, in place. Raises BuildFailed if a weight is too large for it."""
    graph, element = model.graph, _ELEMENTS[precision]
    _retype_weights(model, precision)

    # A parameter of NormAct that is computed (AdaLIN's gamma and beta) is computed in half and then widened.
    known = {value.name: value for value in graph.value_info}
    weights = {tensor.name for tensor in graph.initializer}
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = element
    nodes: list[NodeProto] = []
    widened: set[str] = set()
    for node in graph.node:
        for index in _kept_inputs(node):
            name = node.input[index]
            if name in weights:
                continue
            wide = f"{name}.float"
            if name not in widened:
                widened.add(name)
                nodes.append(helper.make_node("Cast", [name], [wide], wide, to=TensorProto.FLOAT))
                graph.value_info.add().CopyFrom(known[name])
                graph.value_info[-1].name = wide
                graph.value_info[-1].type.tensor_type.elem_type = TensorProto.FLOAT
            node.input[index] = wide
        nodes.append(node)
    _set_nodes(model, _between_casts(model, nodes, element))


def _kept_inputs(node: NodeProto) -> list[int]:
    """Which of a node's inputs stay float32: NormAct's scale, shift and rho, and what Resize defines to be float32."""
    if node.op_type in ("NormAct", "Resize"):
        count = {"NormAct": 4, "Resize": 3}[node.op_type]
        return [index for index in range(1, min(count, len(node.input))) if node.input[index]]
    return []


def _retype_weights(model: ModelProto, precision: str) -> None:
    graph = model.graph
    narrow: set[str] = set()  # names that some node takes in half
    wide: set[str] = set()
    for node in graph.node:
        for index, name in enumerate(node.input):
            (wide if index in _kept_inputs(node) else narrow).add(name)
    both = wide & narrow  # the exporter shares equal weights: a convolution's bias may be a norm's shift
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in both and index not in _kept_inputs(node):
                node.input[index] = f"{name}.half"
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or tensor.name not in narrow:
            continue
        half = _in_half(tensor, precision)
        if tensor.name in both:
            half.name = f"{tensor.name}.half"
            graph.initializer.append(half)
        else:
            tensor.CopyFrom(half)


def _in_half(tensor: TensorProto, precision: str) -> TensorProto:
    values = torch.from_numpy(numpy_helper.to_array(tensor).copy()).to(HALF_TYPES[precision])
    if not values.isfinite().all():
        raise BuildFailed(f"export: {tensor.name} has values that {precision} cannot hold; export bf16 or fp32")
    raw = values.contiguous().view(torch.int16).numpy().tobytes()
    return helper.make_tensor(tensor.name, _ELEMENTS[precision], list(tensor.dims), raw, raw=True)


def _between_casts(model: ModelProto, nodes: list[NodeProto], element: int) -> list[NodeProto]:
    """`nodes` with a Cast behind the input and one in front of the output."""
    (given,), (made,) = model.graph.input, model.graph.output
    inside, outside = f"{given.name}.half", f"{made.name}.half"
    for node in nodes:
        for index, name in enumerate(node.input):
            if name in (given.name, made.name):
                node.input[index] = f"{name}.half"
        for index, name in enumerate(node.output):
            if name == made.name:
                node.output[index] = outside
    first = helper.make_node("Cast", [given.name], [inside], "input.half", to=element)
    last = helper.make_node("Cast", [outside], [made.name], "output.float", to=TensorProto.FLOAT)
    for name, like in ((inside, given), (outside, made)):
        value = model.graph.value_info.add()
        value.CopyFrom(like)
        value.name = name
        value.type.tensor_type.elem_type = element
    return [first, *nodes, last]


def _set_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
