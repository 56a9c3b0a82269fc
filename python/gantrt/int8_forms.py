"""The forms an int8 graph takes: as OpenVINO is fastest with it, and as TensorRT accepts it.

An engine file rounds right in front of its convolutions, behind NormAct and its padding, to uint8 where values are not
negative. All here is exact but for `signed_symmetric`, which says what it costs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

_COPIES = ("reflect", "edge")  # pads that make no new values


def is_quantised(model: ModelProto) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def quantise_before_pads(model: ModelProto) -> None:
    """Round ahead of reflection padding instead of behind it, in place; the bodies of NormAct must be inlined.

    x -> Pad -> Quantize -> Dequantize becomes x -> Quantize -> Dequantize -> Pad: the norm before it can then round as
    it writes, and a quarter of the bytes is padded. A crop that takes away what the pad added becomes its input.
    """
    import onnx

    graph = model.graph
    constants = _constants(model)
    takers = _takers(model)
    outputs = {value.name for value in graph.output}
    behind: dict[str, list[NodeProto]] = defaultdict(list)  # DequantizeLinear's output -> the pads to follow it
    gone: set[str] = set()  # outputs of nodes that are not needed any more
    renamed: dict[str, str] = {}
    for pad in graph.node:
        if pad.op_type != "Pad" or _mode(pad) not in _COPIES or pad.output[0] in outputs:
            continue
        left = 0
        for taker in takers[pad.output[0]]:
            if taker.op_type == "QuantizeLinear" and _takes_only_values(taker, pad.output[0]):
                taker.input[0] = pad.input[0]
                for back in takers[taker.output[0]]:
                    moved = onnx.NodeProto()
                    moved.CopyFrom(pad)
                    moved.input[0], moved.output[0] = back.output[0], f"{back.output[0]}.padded"
                    moved.name = f"{back.output[0]}.Pad"
                    for user in takers[back.output[0]]:
                        _rename(user, back.output[0], moved.output[0])
                    behind[back.output[0]].append(moved)
            elif _undoes(taker, pad, constants):
                gone.add(taker.output[0])
                renamed[taker.output[0]] = pad.input[0]
            else:
                left += 1
        if not left:
            gone.add(pad.output[0])
    nodes = []
    for node in graph.node:
        if node.output[0] not in gone:
            for index, name in enumerate(node.input):
                while name in renamed:
                    name = renamed[name]
                node.input[index] = name
            nodes += [node, *behind[node.output[0]]]
    _set_nodes(model, nodes)


def signed_symmetric(model: ModelProto) -> None:
    """Make every rounding of activations int8 around zero, in place: TensorRT takes no uint8 and no offsets.

    The range of values stays covered. Where it begins at zero half of the codes go unused: one bit, up to 6 dB of that
    tensor's rounding noise.
    """
    import numpy as np
    from onnx import numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    steps: dict[tuple[str, str], str] = {}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3 or not node.input[2]:
            continue
        scale, zero = (numpy_helper.to_array(tensors[name]) for name in node.input[1:3])
        if zero.dtype == np.int8 and not zero.any():
            continue
        key = (node.input[1], node.input[2])
        if key not in steps:
            bounds = np.iinfo(zero.dtype)
            reach = max(float(zero) - bounds.min, bounds.max - float(zero)) * np.float32(scale)
            steps[key] = f"{node.input[1]}.symmetric"
            graph.initializer.append(numpy_helper.from_array(np.asarray(reach / 127, np.float32), steps[key]))
            graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), f"{steps[key]}.zero"))
        node.input[1:] = [steps[key], f"{steps[key]}.zero"]
    types = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    for index in reversed(range(len(graph.value_info))):
        if graph.value_info[index].name in types:
            del graph.value_info[index]
    used = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]


def _constants(model: ModelProto) -> dict[str, NDArray[np.int64]]:
    """The lists of integers that nodes take: pads, starts, ends, axes."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    found: dict[str, Any] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT64
    }
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value_ints":
                    found[node.output[0]] = np.array(attribute.ints)
                elif attribute.name == "value" and attribute.t.data_type == TensorProto.INT64:
                    found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found


def _takers(model: ModelProto) -> dict[str, list[NodeProto]]:
    takers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in set(node.input):
            takers[name].append(node)
    return takers


def _mode(pad: NodeProto) -> str:
    return next((attribute.s.decode() for attribute in pad.attribute if attribute.name == "mode"), "constant")


def _takes_only_values(quantise: NodeProto, name: str) -> bool:
    return quantise.input[0] == name and name not in quantise.input[1:]


def _undoes(node: NodeProto, pad: NodeProto, constants: dict[str, NDArray[np.int64]]) -> bool:
    """Whether `node` crops exactly what `pad` added to height and width."""
    if node.op_type != "Slice" or len(node.input) != 4 or not {pad.input[1], *node.input[1:]} <= constants.keys():
        return False
    pads = constants[pad.input[1]].tolist()
    start, end, axes = (constants[name].tolist() for name in node.input[1:])
    first, last = [0, 0, 0, 0], [0, 0, 0, 0]
    for axis, begin, stop in zip(axes, start, end, strict=True):
        first[axis], last[axis] = begin, -stop
    return bool(pads == [*first, *last] and min(pads) >= 0)


def _rename(node: NodeProto, old: str, new: str) -> None:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def _set_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    import onnx

    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
