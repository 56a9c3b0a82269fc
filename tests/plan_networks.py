"""A network of a few nodes that plans are built of: every way in which NormAct is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from gantrt.engine_file import attach_bodies, write_engine
from gantrt.manifest import InputSpec, Manifest
from gantrt_training.half import retype
from onnx import ModelProto, numpy_helper

PLUGIN = ({"name": "gantrt::NormAct", "version": "1"},)

# ReLU and padding; LIN, leaky, with a padded residual; per sample, by a Gemm, as in U-GAT-IT.
_TINY = """
<ir_version: 10, opset_import: ["": 18, "gantrt": 1]>
tiny (float[1, 3, H, W] input) => (float[1, 3, H, W] output)
<float[1, 8, H, W] a, float[1, 8, P, Q] b, float[1, 8, H, W] c, float[1, 8, P, Q] d, float[1, 8] g, float[1, 8, H, W] e>
{
  a = Conv <pads = [1, 1, 1, 1]> (input, w1)
  b = gantrt.NormAct <eps = 1e-05, unbiased = 0, slope = 0.0, pad = 1, rpad = 0, plugin_namespace = "gantrt",
                      plugin_version = "1"> (a, s, t)
  c = Conv (b, w2)
  d = gantrt.NormAct <eps = 1e-05, unbiased = 1, slope = 0.2, pad = 1, rpad = 1, plugin_namespace = "gantrt",
                      plugin_version = "1"> (c, s, t, rho, b)
  means = ReduceMean <keepdims = 0> (d, plane)
  g = Gemm <transB = 1> (means, m, t)
  h = Conv (d, w2)
  e = gantrt.NormAct <eps = 1e-05, unbiased = 0, slope = 1.0, pad = 0, rpad = 1, plugin_namespace = "gantrt",
                      plugin_version = "1"> (h, g, g, , b)
  f = Conv <pads = [1, 1, 1, 1]> (e, w3)
  output = Tanh (f)
}
"""


def tiny_model(size: tuple[int, int] | None = (16, 24)) -> ModelProto:
    """Height and width open where `size` is None."""
    text = _TINY
    if size:
        height, width = size
        text = text.replace("H, W", f"{height}, {width}").replace("P, Q", f"{height + 2}, {width + 2}")
    model = onnx.parser.parse_model(text)
    h = model.graph.value_info.add()  # the parser has no way to say it twice
    h.CopyFrom(next(value for value in model.graph.value_info if value.name == "a"))
    h.name = "h"
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (3, 8, 3, 3), "s": (8,), "t": (8,), "m": (8, 8)}
    weights = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"rho": random.uniform(0, 1, 8).astype(np.float32), "plane": np.array([2, 3])}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def write_tiny(
    path: Path, size: tuple[int, int] | None = (16, 24), *, half: str = "", op: str = "Conv", **says: Any
) -> Path:
    """As an engine file; in `half` precision, or with another `op` for its last convolution."""
    height, width = size or (16, 24)
    spec = InputSpec(height=height, width=width, multiple=4, dynamic=size is None)
    model = tiny_model(size)
    last = next(node for node in model.graph.node if "w3" in node.input)
    if op != last.op_type:
        last.op_type = op
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w3")
        weight.dims[0], weight.dims[1] = weight.dims[1], weight.dims[0]
    if half:
        model.opset_import[0].version = 22
        attach_bodies(model)
        retype(model, half)
        says["precision"] = half
    write_engine(model, path, Manifest(family="tiny", input=spec, plugins=PLUGIN, **says))
    return path
