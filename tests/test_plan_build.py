"""Building TensorRT-RTX plans, which takes no GPU: what comes out, what is refused, and what stays behind."""

from __future__ import annotations

import _thread
import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from gantrt import _core
from gantrt.cli import main
from gantrt.engine_file import inlined, read_manifest
from gantrt.errors import BuildFailed, UsageError
from gantrt.plan_file import read_plan_manifest
from gantrt.plans import build as building
from gantrt.plans import graph, norm_act
from gantrt.plans.build import Request, build_plan
from gantrt.plans.census import census
from gantrt.plans.targets import TENSORRT, TENSORRT_RTX
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from plan_networks import tiny_model, write_tiny
from tiny_networks import write_generator

trt = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13==1.7.1.116")
ort = pytest.importorskip("onnxruntime")

SM89 = Request(capabilities=(89,), progress=False)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.onnx")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "tiny.plan"


def export(*words: object) -> int:
    return main(["export", *map(str, words), "--no-progress"])


def test_a_plan_is_built_checked_and_described(engine, plan, capsys) -> None:
    assert export(engine, "-o", plan, "--target", "tensorrt-rtx", "--compute-capability", "8.9", "8.6") == 0
    assert "tensorrt-rtx" in capsys.readouterr().out
    manifest = read_manifest(plan)
    assert manifest.family == "tiny"
    assert manifest.plugins == ({"name": "gantrt::NormAct", "version": "1"},)
    assert manifest.target["compute_capability"] == "8.9,8.6"
    assert manifest.target["version"] == trt.__version__
    assert manifest.target["source"] == str(engine)
    assert sum(launch.is_plugin for launch in census(plan)) == 3


def test_without_plugins_there_is_nothing_of_ours_in_it(engine, plan, capsys) -> None:
    words = [engine, "-o", plan, "--target", "tensorrt-rtx", "--compute-capability", "7.5", "--no-plugins", "--json"]
    assert export(*words) == 0
    assert json.loads(capsys.readouterr().out)["plugins"] == []
    assert not any(launch.is_plugin for launch in census(plan))
    assert read_manifest(plan).target["options"] == "--no-plugins"


def test_the_same_engine_gives_the_same_bytes(engine, plan, tmp_path) -> None:
    build_plan(engine, plan, SM89)
    build_plan(engine, tmp_path / "again.plan", SM89)
    assert plan.read_bytes() == (tmp_path / "again.plan").read_bytes()


def test_a_foreign_onnx_becomes_a_plan(tmp_path, plan) -> None:
    build_plan(write_generator(tmp_path / "foreign.onnx", manifest=False), plan, SM89)
    manifest = read_plan_manifest(plan)
    assert (manifest.family, manifest.input.height, manifest.input.width) == ("unknown", 16, 24)


def test_a_dynamic_engine_becomes_a_plan_of_some_sizes_or_of_one(tmp_path, plan) -> None:
    engine = write_tiny(tmp_path / "dynamic.onnx", None)
    sizes = ["--dynamic", "8x8:16x24:64x64"]
    words = [engine, "-o", plan, "--target", "tensorrt-rtx", "--compute-capability", "8.9", "--overwrite"]
    assert export(*words, *sizes) == 0
    manifest = read_plan_manifest(plan)
    assert manifest.input.dynamic
    assert manifest.target["options"] == " ".join(sizes)
    assert sum(launch.is_plugin for launch in census(plan)) == 3
    assert export(*words, "--size", "32x48") == 0
    spec = read_plan_manifest(plan).input
    assert (spec.height, spec.width, spec.dynamic) == (32, 48, False)


def test_several_sizes_share_a_plan(tmp_path, plan) -> None:
    engine = write_tiny(tmp_path / "dynamic.onnx", None)
    words = [engine, "-o", plan, "--target", "tensorrt-rtx", "--compute-capability", "8.9"]
    assert export(*words, "--size", "32x48", "16x16") == 0
    manifest = read_plan_manifest(plan)
    assert (manifest.input.height, manifest.input.width, manifest.input.dynamic) == (32, 48, True)
    assert manifest.target["sizes"] == "32x48,16x16"
    assert manifest.target["options"] == "--size 32x48 16x16"
    assert export(*words, "--overwrite", "--size", "32x48", "32x48") == 2
    assert export(*words, "--overwrite", "--size", "32x48", "16x16", "--dynamic", "8x8:16x24:64x64") == 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "--compute-capability 8.9"),
        (["--target", "tensorrt"], 4, "pip install"),
        (["--compute-capability", "9.0"], 2, "it knows 7.5"),
        (["--compute-capability", "ampere"], 2, "such as 8.9"),
        (["--compute-capability", "8.9", "--size", "32x32"], 2, "16x24 only"),
        (["--compute-capability", "8.9", "--dynamic", "8x8:16x16:32x32"], 2, "16x24 only"),
        (["--compute-capability", "8.9", "--precision", "fp16"], 2, "precision fp32"),
        (["--compute-capability", "8.9", "--batch", "2"], 2, "batch 1"),
    ],
)
@pytest.mark.skipif(not building.driver.missing(), reason="says what a machine without a GPU says")
def test_what_cannot_be_met_ends_with_its_code_and_one_line(engine, plan, words, code, text, capsys) -> None:
    if "tensorrt" in words and not TENSORRT.missing():
        text = "builds on the GPU"
    assert export(engine, "-o", plan, *words) == code
    printed, logged = capsys.readouterr()
    assert not printed
    assert text in logged
    assert logged.count("\n") == 1
    assert [path.name for path in engine.parent.iterdir()] == ["tiny.onnx"]


def test_what_tensorrt_refuses_is_a_failed_build_with_its_reason(tmp_path, plan) -> None:
    path = tmp_path / "strings.onnx"
    node = helper.make_node("StringNormalizer", ["input"], ["output"])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("input", "output")]
    onnx.save(helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:])), path)
    with pytest.raises(BuildFailed, match="StringNormalizer") as caught:
        build_plan(path, plan, SM89)
    assert "\n" not in str(caught.value)
    assert not plan.exists()


def test_the_reason_is_the_first_thing_tensorrt_complains_of(tmp_path, plan) -> None:
    """And a bfloat16 plugin, which takes planes, does not end the process."""
    engine = write_tiny(tmp_path / "half.onnx", half="bf16")
    build_plan(engine, plan, SM89)
    assert sum(launch.is_plugin for launch in census(plan)) == 3
    with pytest.raises(BuildFailed, match=r"no plan: .*Could not infer output types"):
        build_plan(write_tiny(tmp_path / "up.onnx", half="bf16", op="ConvTranspose"), plan, SM89, overwrite=True)


def test_a_graph_of_another_precision_than_its_manifest_is_refused(tmp_path, plan) -> None:
    with pytest.raises(BuildFailed, match="the engine file says fp16"):
        build_plan(write_tiny(tmp_path / "lies.onnx", precision="fp16"), plan, SM89)
    assert not plan.exists()


def test_ctrl_c_ends_a_build_and_leaves_nothing(engine, plan, monkeypatch) -> None:
    steps = []

    def step(self, phase: str) -> bool:
        steps.append(phase)
        _thread.interrupt_main()
        end = time.monotonic() + 5
        while not self.stop.is_set() and time.monotonic() < end:
            time.sleep(0.01)
        return not self.stop.is_set()

    monkeypatch.setattr(building.Watch, "step", step)
    with pytest.raises(KeyboardInterrupt):
        build_plan(engine, plan, SM89)
    assert len(steps) < 6  # it did not go on to the end
    assert [path.name for path in engine.parent.iterdir()] == ["tiny.onnx"]


def test_sizes_that_make_no_sense_are_refused(tmp_path, plan) -> None:
    engine = write_tiny(tmp_path / "dynamic.onnx", None)
    for sizes, text in (
        (((8, 8), (16, 16), (12, 32)), "must not shrink"),
        (((6, 8), (16, 16), (32, 32)), "multiples of 4"),
    ):
        with pytest.raises(UsageError, match=text):
            build_plan(engine, plan, Request(capabilities=(89,), span=sizes))


# The plugin computes what the bodies do


class _FromPlugin(OpRun):
    """What the plugin would do with a node: its attributes and inputs as TensorRT hands them over, our CPU kernel."""

    op_domain, op_schema = "gantrt", None

    def _run(self, x, scale, shift, *rest, **given):
        fields = [SimpleNamespace(name=name, data=np.array(value)) for name, value in given.items()]
        a, rest = norm_act.Attributes.of(fields), list(rest)
        rho = rest.pop(0) if a.mixed else None
        act = {1.0: "none", 0.0: "relu"}.get(a.slope, "leaky_relu")
        y = _core.norm_act(
            *map(np.ascontiguousarray, (x, scale, shift)),
            rho=rho,
            residual=rest[0] if rest else None,
            eps=a.eps,
            unbiased=bool(a.unbiased),
            act=act,
            slope=a.slope,
            pad=a.pad,
            rpad=a.rpad,
        )
        return (y,)


def test_the_graph_with_plugins_makes_the_pictures_of_the_graph_with_bodies(engine) -> None:
    x = np.random.default_rng(1).normal(size=(1, 3, 16, 24)).astype(np.float32)
    wanted = ort.InferenceSession(inlined(engine)).run(None, {"input": x})[0]
    bare = onnx.load_from_string(graph.with_plugins(onnx.load(engine)))
    assert not bare.functions
    _FromPlugin.__name__ = "NormAct"
    made = ReferenceEvaluator(bare, new_ops=[_FromPlugin]).run(None, {"input": x})[0]
    np.testing.assert_allclose(made, wanted, atol=2e-5)


@pytest.mark.parametrize("node", [0, 1, 2])
def test_enqueue_hands_every_pointer_and_attribute_to_the_kernel(node, monkeypatch) -> None:
    """With host memory, and the CPU kernel in the place of the CUDA one."""
    model = onnx.load_from_string(graph.with_plugins(tiny_model()))
    proto = [n for n in model.graph.node if n.op_type == "NormAct"][node]
    given = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    fields = [SimpleNamespace(name=name, data=np.array(value)) for name, value in given.items()]
    plugin = norm_act._plugin_class(trt, TENSORRT_RTX)(norm_act.Attributes.of(fields)).clone()

    random, a = np.random.default_rng(node), plugin.attributes
    arrays = [random.normal(size=(2, 6, 7, 8))]
    arrays += [random.normal(size=(2, 8) if node == 2 else (8,)) for _ in range(2)]
    arrays += [random.uniform(size=8)] if a.mixed else []
    arrays += [random.normal(size=(2, 6 + 2 * a.rpad, 7 + 2 * a.rpad, 8))] if node else []
    arrays = [array.astype(np.float32) for array in arrays]
    y = np.zeros((2, 6 + 2 * a.pad, 7 + 2 * a.pad, 8), np.float32)
    seen = []

    def at(address: int, shape: tuple[int, ...]) -> np.ndarray | None:
        kind = ctypes.c_float * int(np.prod(shape))
        return np.ctypeslib.as_array(kind.from_address(address)).reshape(shape) if address else None

    def launch(x, *, scale, shift, rho, residual, y, shape, per_sample, pad, rpad, layout, **more):
        n, c, h, w = shape
        border = (n, h + 2 * rpad, w + 2 * rpad, c)
        numbers = {name: more.pop(name) for name in ("eps", "slope", "unbiased")}
        seen.append(more)
        _core.norm_act(
            at(x, (n, h, w, c)),
            *(at(each, (n, c) if per_sample else (c,)) for each in (scale, shift)),
            rho=at(rho, (c,)),
            residual=at(residual, border),
            act="leaky_relu",
            pad=pad,
            rpad=rpad,
            layout=layout,
            **numbers,
            out=at(y, (n, h + 2 * pad, w + 2 * pad, c)),
        )

    monkeypatch.setattr(_core, "norm_act_launch", launch)
    descs = [_desc(array) for array in arrays]
    assert plugin.enqueue(descs, [_desc(y)], [a.ctypes.data for a in arrays], [y.ctypes.data], 77, 88) == 0
    wanted = _core.norm_act(
        *arrays[:3],
        rho=arrays[3] if a.mixed else None,
        residual=arrays[-1] if node else None,
        layout="nhwc",
        act="leaky_relu",
        **{name: given[name] for name in ("eps", "slope", "pad", "rpad")},
        unbiased=bool(given["unbiased"]),
    )
    np.testing.assert_array_equal(y, wanted)
    bound = _core.norm_act_workspace_bound(2, 8)
    assert seen == [{"dtype": "float32", "workspace": 77, "workspace_bytes": bound, "stream": 88}]


def _desc(array: np.ndarray) -> SimpleNamespace:
    dims = array.shape if array.ndim < 4 else tuple(np.moveaxis(array, 3, 1).shape)
    return SimpleNamespace(dims=dims, type=trt.float32, format=trt.TensorFormat.HWC)


def test_a_failed_launch_is_told_to_tensorrt_and_never_thrown_into_it(monkeypatch) -> None:
    monkeypatch.delattr(_core, "norm_act_launch")
    plugin = norm_act._plugin_class(trt, TENSORRT_RTX)(norm_act.Attributes())
    descs = [_desc(np.zeros((1, 4, 4, 8), np.float32)), *(_desc(np.zeros(8, np.float32)) for _ in range(2))]
    assert plugin.enqueue(descs, descs[:1], [1, 1, 1], [1], 0, 0) == 1


@pytest.mark.parametrize(("transposed", "bias"), [(0, False), (1, True)])
def test_a_gemm_as_a_convolution_is_the_same_product(transposed, bias) -> None:
    random = np.random.default_rng(0)
    weights = {"m": random.normal(size=(5, 7) if transposed else (7, 5)), "c": random.normal(size=5)}
    node = helper.make_node("Gemm", ["x", "m", *(["c"] * bias)], ["y"], "fc", transB=transposed)
    model = helper.make_model(
        helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 7])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])],
            [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    x = random.normal(size=(2, 7)).astype(np.float32)
    wanted = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    graph.gemms_to_convolutions(model)
    assert [node.op_type for node in model.graph.node] == ["Unsqueeze", "Conv", "Squeeze"]
    made = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(made, wanted, rtol=1e-5)


def test_where_the_parser_would_abort_the_build_fails_in_one_line(engine, plan) -> None:
    """In a process of its own, whose alias does not help: TensorRT aborts the trial, and the trial alone."""
    code = """
import sys
from gantrt.plans import rtx_alias
from gantrt.errors import BuildFailed
rtx_alias.subprocess.run = (lambda run: lambda words, **how: run(
    [words[0], "-c", "from gantrt.plans import rtx_alias; rtx_alias._load = lambda: None; rtx_alias._trial()"], **how
))(rtx_alias.subprocess.run)
try:
    rtx_alias.provide()
except BuildFailed as error:
    sys.exit(0 if "--no-plugins" in str(error) else 1)
sys.exit(2)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
