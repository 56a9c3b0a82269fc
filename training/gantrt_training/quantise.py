"""Int8: which convolutions compute in eight bits, and in which ranges. NNCF finds these on real pictures.

Each convolution gets a pair of QuantizeLinear and DequantizeLinear in front of its input, one range for the tensor,
and weights of int8 with one scale per output channel and no offset. Norms, sums and what NormAct does stay float32.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from gantrt.engine_file import inlined
from gantrt.errors import DeviceUnavailable
from gantrt.telemetry import import_silent
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

CONVOLUTIONS = ("Conv", "ConvTranspose")
LARGE_WEIGHT = 1 << 24  # values from which a fully connected layer is bound by reading its weights

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Int8Layer:
    """One convolution in eight bits: input ~ scale * (q - zero), weight ~ weight_scale * weight."""

    scale: NDArray[np.float32]  # ()
    zero: NDArray[Any]  # (), uint8 or int8: the type of q
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]  # (output channels,)
    axis: int  # of the output channels in the weight
    bias: NDArray[np.float32] | None  # moved by what the rounding shifts on average


def quantisable(model: ModelProto) -> list[str]:
    """The names of the nodes that `calibrate` makes layers of, in order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type in CONVOLUTIONS and n.input[1] in weights]


def calibrate(model: ModelProto, batches: Sequence[Array]) -> dict[str, Int8Layer]:
    """Ranges and weights of every convolution of `model`, which is float32 and has the bodies of its NormAct nodes.

    batches  what the network is shown, each (N, C, H, W); the result depends on nothing else
    Raises DeviceUnavailable if NNCF is not installed.
    """
    names = quantisable(model)
    flat = onnx.load_from_string(inlined(model))  # NNCF asks ONNX Runtime, and loses a model's functions on the way
    for index, node in enumerate(flat.graph.node):
        node.name = node.name or f"body.{index}"
    others = sorted({node.name for node in flat.graph.node} - set(names))
    with _quiet_nncf() as nncf:
        quantised = nncf.quantize(
            flat,
            nncf.Dataset(batches, lambda batch: {"input": batch}),
            preset=nncf.QuantizationPreset.PERFORMANCE,  # around zero, by the largest values
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )
    graph = _Graph(quantised)
    return {node.name: _layer(graph, node) for node in quantised.graph.node if node.name in names}


def assemble(model: ModelProto, layers: Mapping[str, Int8Layer]) -> ModelProto:
    """A copy of `model` in which the convolutions that `layers` names compute in int8."""
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    nodes: list[NodeProto] = []
    tensors: dict[str, NDArray[Any]] = {}
    pairs: dict[tuple[str, str, float, int], str] = {}  # a tensor two layers take alike is quantised once
    for node in graph.node:
        layer = layers.get(node.name)
        if layer is not None:
            key = (node.input[0], str(layer.zero.dtype), float(layer.scale), int(layer.zero))
            if key not in pairs:
                pairs[key] = name = f"{node.name}.input"
                tensors[f"{name}.scale"], tensors[f"{name}.zero"] = layer.scale, layer.zero
                nodes += _pair(node.input[0], name)
            weight = f"{node.name}.weight.int8"
            tensors[weight], tensors[f"{weight}.scale"] = layer.weight, layer.weight_scale
            nodes.append(_dequantise(weight, f"{node.name}.weight.float", axis=layer.axis))
            bias = list(node.input[2:])
            node.input[:] = [f"{pairs[key]}.float", f"{node.name}.weight.float", *bias]
            if layer.bias is not None:
                tensors[f"{node.name}.bias.int8"] = layer.bias
                node.input[2:] = [f"{node.name}.bias.int8"]
        nodes.append(node)
    _replace(made, nodes, tensors)
    return made


def compress_large_layers(model: ModelProto, at_least: int = LARGE_WEIGHT) -> list[str]:
    """Store the weights of large fully connected layers as int8, in place; returns their nodes' names.

    Only the weights: what the layer multiplies and sums stays float32. One scale per output, no offset.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    tensors: dict[str, NDArray[Any]] = {}
    changed = []
    for node in graph.node:
        large = node.op_type in ("Gemm", "MatMul") and node.input[1] in weights
        if large and np.prod(weights[node.input[1]].dims) >= at_least:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            axis, name = 0 if transposed else 1, f"{node.name}.weight.int8"
            tensors[name], tensors[f"{name}.scale"] = _int8(numpy_helper.to_array(weights[node.input[1]]), axis)
            nodes.append(_dequantise(name, f"{node.name}.weight.float", axis=axis))
            node.input[1] = f"{node.name}.weight.float"
            changed.append(node.name)
        nodes.append(node)
    _replace(model, nodes, tensors)
    return changed


def _int8(weight: Array, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Row by row: the weight may be a gigabyte."""
    rows = np.moveaxis(weight, axis, 0)
    scale = np.maximum(np.abs(rows).max(axis=tuple(range(1, rows.ndim))), np.float32(1e-30)) / np.float32(127)
    rounded = np.empty(weight.shape, np.int8)
    for row, to, step in zip(rows, np.moveaxis(rounded, axis, 0), scale, strict=True):
        to[...] = np.rint(row / step)
    return rounded, scale.astype(np.float32)


# What NNCF made, read back


class _Graph:
    """Who makes a tensor, and what a constant holds."""

    def __init__(self, model: ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._maker = {name: node for node in model.graph.node for name in node.output}

    def maker(self, name: str) -> NodeProto | None:
        return self._maker.get(name)

    def constant(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._tensors[name])


def _layer(graph: _Graph, node: NodeProto) -> Int8Layer:
    given, weight = _dequantiser(graph, node.input[0]), _dequantiser(graph, node.input[1])
    scale, zero = (graph.constant(name) for name in given.input[1:3])
    axis = next((a.i for a in weight.attribute if a.name == "axis"), 1)
    return Int8Layer(
        scale.reshape(()).astype(np.float32),
        zero.reshape(()),
        graph.constant(weight.input[0]),
        graph.constant(weight.input[1]).reshape(-1).astype(np.float32),
        axis,
        graph.constant(node.input[2]).astype(np.float32) if len(node.input) > 2 and node.input[2] else None,
    )


def _dequantiser(graph: _Graph, name: str) -> NodeProto:
    """The DequantizeLinear a tensor comes from, perhaps by way of operations that only move values."""
    node = graph.maker(name)
    while node is not None and node.op_type != "DequantizeLinear":
        node = graph.maker(node.input[0])
    if node is None:
        raise AssertionError(f"NNCF left {name} in float32")
    return node


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """NNCF without its progress bars, its log, and its wish to report usage to its makers."""
    if importlib.util.find_spec("nncf") is None:
        raise DeviceUnavailable('export: int8 needs NNCF; pip install "gantrt[int8]"')
    logger = logging.getLogger("nncf")
    level = logger.level
    with contextlib.redirect_stdout(io.StringIO()):
        nncf = import_silent("nncf")
        logger.setLevel(logging.ERROR)
        try:
            yield nncf
        finally:
            logger.setLevel(level)


# Writing a graph


def _pair(given: str, name: str) -> list[NodeProto]:
    about = [f"{name}.scale", f"{name}.zero"]
    return [
        helper.make_node("QuantizeLinear", [given, *about], [f"{name}.quantised"], f"{name}.QuantizeLinear"),
        helper.make_node("DequantizeLinear", [f"{name}.quantised", *about], [f"{name}.float"], f"{name}.Dequantise"),
    ]


def _dequantise(constant: str, made: str, *, axis: int) -> NodeProto:
    return helper.make_node(
        "DequantizeLinear", [constant, f"{constant}.scale"], [made], f"{made}.Dequantise", axis=axis
    )


def _replace(model: ModelProto, nodes: list[NodeProto], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Give `model` these nodes and constants; what nobody takes any more goes."""
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    graph = model.graph
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items())
    used = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
