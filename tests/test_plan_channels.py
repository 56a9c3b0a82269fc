"""Channels by eights, before TensorRT-RTX sees the graph: the same numbers, and nothing widened that others read."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from gantrt.plans.channels import by_eights
from onnx import ModelProto, TensorProto, helper, numpy_helper

Kernel = tuple[int, ...]


def graph_of(nodes: list[onnx.NodeProto], kernels: dict[str, Kernel], outputs: tuple[str, ...] = ("y",)) -> ModelProto:
    rng = np.random.default_rng(0)
    constants = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in kernels.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 12])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], results, constants), ir_version=10)
    model.opset_import[0].version = 18
    return onnx.shape_inference.infer_shapes(model)


def run(model: ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(1).normal(size=(1, 3, 8, 12)).astype(np.float32)})


def chain() -> ModelProto:
    """3 -> 6 -> 5 -> 12 channels, with a transposed convolution within, and biases."""
    return graph_of(
        [
            helper.make_node("Conv", ["x", "a", "p"], ["1"]),
            helper.make_node("LeakyRelu", ["1"], ["2"], alpha=0.2),
            helper.make_node("ConvTranspose", ["2", "b", "q"], ["3"], strides=[2, 2]),
            helper.make_node("Relu", ["3"], ["4"]),
            helper.make_node("Conv", ["4", "c"], ["5"]),
            helper.make_node("Tanh", ["5"], ["y"]),
        ],
        {"a": (6, 3, 3, 3), "p": (6,), "b": (6, 5, 4, 4), "q": (5,), "c": (12, 5, 3, 3)},
    )


@pytest.mark.parametrize(("ends", "widened", "last"), [(False, 2, 12), (True, 3, 16)])
def test_wider_convolutions_make_the_same_numbers(ends: bool, widened: int, last: int) -> None:
    model = chain()
    expected = run(model)
    assert by_eights(model, ends=ends) == widened
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert (shapes["a"], shapes["p"], shapes["b"], shapes["q"], shapes["c"]) == (
        [8, 3, 3, 3],
        [8],
        [8, 8, 4, 4],
        [8],
        [last, 8, 3, 3],
    )
    for made, wanted in zip(run(model), expected, strict=True):
        np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-5)
    assert by_eights(model, ends=False) == 0


def two_takers() -> ModelProto:
    return graph_of(
        [
            helper.make_node("Conv", ["x", "a"], ["1"]),
            helper.make_node("Conv", ["1", "b"], ["y"]),
            helper.make_node("Relu", ["1"], ["z"]),
        ],
        {"a": (6, 3, 3, 3), "b": (8, 6, 3, 3)},
        ("y", "z"),
    )


def one_kernel_for_two() -> ModelProto:
    return graph_of(
        [
            helper.make_node("Conv", ["x", "a"], ["1"]),
            helper.make_node("Conv", ["1", "a"], ["2"]),
            helper.make_node("Conv", ["2", "b"], ["y"]),
        ],
        {"a": (3, 3, 3, 3), "b": (8, 3, 3, 3)},
    )


def groups() -> ModelProto:
    return graph_of(
        [helper.make_node("Conv", ["x", "a"], ["1"]), helper.make_node("Conv", ["1", "b"], ["y"], group=2)],
        {"a": (6, 3, 3, 3), "b": (8, 3, 3, 3)},
    )


def a_function_of_all_channels() -> ModelProto:
    return graph_of(
        [
            helper.make_node("Conv", ["x", "a"], ["1"]),
            helper.make_node("Softmax", ["1"], ["2"], axis=1),
            helper.make_node("Conv", ["2", "b"], ["y"]),
        ],
        {"a": (6, 3, 3, 3), "b": (8, 6, 3, 3)},
    )


@pytest.mark.parametrize("made", [two_takers, one_kernel_for_two, groups, a_function_of_all_channels])
def test_what_others_read_keeps_its_channels(made) -> None:
    model = made()
    before = model.SerializeToString()
    assert by_eights(model, ends=False) == 0
    assert model.SerializeToString() == before
