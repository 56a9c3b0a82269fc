"""Networks small enough for tests, written as engine files: no torch, no training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from gantrt.engine_file import write_engine
from gantrt.manifest import InputSpec, Manifest
from onnx import TensorProto, helper, numpy_helper


def write_pointwise(path: Path, gain: float = 1.0, **options: Any) -> Path:
    """y = gain * x. With gain 1 a translation is its frame, with -1 its negative."""
    channels = options.get("channels", 3)
    kernel = (np.eye(channels) * gain).astype(np.float32).reshape(channels, channels, 1, 1)
    return _write(path, [helper.make_node("Conv", ["input", "w"], ["output"])], {"w": kernel}, **options)


def write_swap(path: Path, **options: Any) -> Path:
    """y = x with red and blue exchanged: a network that sees the order of the channels."""
    kernel = np.eye(3, dtype=np.float32)[::-1].copy().reshape(3, 3, 1, 1)
    return _write(path, [helper.make_node("Conv", ["input", "w"], ["output"])], {"w": kernel}, **options)


def write_generator(path: Path, seed: int = 0, width: int = 16, **options: Any) -> Path:
    """Conv, InstanceNorm, ReLU, Conv, Tanh: each picture's output depends on all its pixels, and on no other's."""
    channels = options.get("channels", 3)
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.normal(0, 0.3, (width, channels, 3, 3)).astype(np.float32),
        "scale": random.normal(1, 0.1, width).astype(np.float32),
        "shift": random.normal(0, 0.1, width).astype(np.float32),
        "w2": random.normal(0, 0.1, (channels, width, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("InstanceNormalization", ["c1", "scale", "shift"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["c2"], ["output"]),
    ]
    return _write(path, nodes, weights, **options)


def write_convolutions(path: Path, depth: int = 8, width: int = 8, **options: Any) -> Path:
    """`depth` 3x3 convolutions with ReLU between: sees `depth` pixels around each, and no statistics of the picture."""
    random = np.random.default_rng(0)
    sizes = [3, *[width] * (depth - 1), 3]
    weights, nodes, x = {}, [], "input"
    for i, (before, after) in enumerate(pairwise(sizes)):
        kernel = random.normal(0, (2.6 / (9 * before)) ** 0.5, (after, before, 3, 3))
        weights[f"w{i}"] = kernel.astype(np.float32)
        last = i == depth - 1
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Tanh" if last else "Relu", [f"c{i}"], ["output" if last else f"r{i}"]))
        x = f"r{i}"
    return _write(path, nodes, weights, norm_mode="none", **options)


def write_bfloat16(path: Path) -> Path:
    """y = x, rounded to bfloat16 by operations of which ONNX Runtime has no such kind on a CPU."""
    nodes = [
        helper.make_node("Cast", ["input"], ["b"], to=TensorProto.BFLOAT16),
        helper.make_node("Pad", ["b", "pads"], ["p"], mode="reflect"),
        helper.make_node("Cast", ["p"], ["output"], to=TensorProto.FLOAT),
    ]
    return _write(path, nodes, {"pads": np.zeros(8, np.int64)}, opset=22, precision="bf16")


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    channels: int = 3,
    size: tuple[int, int] = (16, 24),
    batch: int = 1,
    dynamic: bool = False,
    multiple: int = 1,
    half: bool = False,
    manifest: bool = True,
    color: Any = "rgb",
    precision: Any = "fp32",
    norm_mode: Any = "instance",
    opset: int = 17,
) -> Path:
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    shape = [batch, channels, *(["height", "width"] if dynamic else size)]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", element, shape)],
        [helper.make_tensor_value_info("output", element, shape)],
        [numpy_helper.from_array(w.astype(np.float16) if half else w, name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    if not manifest:
        onnx.save(model, path)
        return path
    spec = InputSpec(channels, *size, multiple=multiple, dynamic=dynamic)
    color = "gray" if channels == 1 else color
    write_engine(model, path, Manifest(input=spec, batch=batch, color=color, precision=precision, norm_mode=norm_mode))
    return path
