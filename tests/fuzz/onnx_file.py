"""An .onnx: its outer fields as we read them, and the whole as onnx does."""

from __future__ import annotations

import onnx
from gantrt.engine_file import guess_manifest, inlined, read_manifest
from gantrt.errors import GantrtError
from gantrt.manifest import KEY, InputSpec, Manifest
from gantrt.summary import summary
from onnx import helper, numpy_helper

from . import each_reads, scratch_file
from . import manifest as manifest_target

ALLOWED = (GantrtError,)


def seeds() -> list[bytes]:
    import numpy as np

    weights = [
        numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w"),
        numpy_helper.from_array(np.ones(3, np.float32), "s"),
    ]
    shape = [1, 3, 8, "w"]
    found = []
    for norm in (False, True):
        nodes = [helper.make_node("Conv", ["input", "w"], ["c"])]
        if norm:
            nodes.append(
                helper.make_node("NormAct", ["c", "s", "s"], ["output"], domain="gantrt", name="n", slope=0.0, pad=1)
            )
        else:
            nodes.append(helper.make_node("Tanh", ["c"], ["output"]))
        graph = helper.make_graph(
            nodes, "g",
            [helper.make_tensor_value_info("input", 1, shape)], [helper.make_tensor_value_info("output", 1, shape)],
            weights, value_info=[helper.make_tensor_value_info("c", 1, shape)],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("gantrt", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        if norm:
            from gantrt.norm_act_bodies import attach_bodies

            attach_bodies(model)
            model.metadata_props.add(key=KEY, value=Manifest(input=InputSpec(3, 8, 8)).to_json())
        found.append(model.SerializeToString())
    bare = onnx.ModelProto(ir_version=10)
    bare.graph.node.add(op_type="Identity")
    return [*found, bare.SerializeToString()]


def run(data: bytes) -> None:
    path = scratch_file("engine.onnx", data)
    each_reads(path, (_manifest, guess_manifest, summary, inlined))


def _manifest(path) -> None:
    manifest = read_manifest(path)
    if manifest is not None:
        manifest_target.check(manifest)
