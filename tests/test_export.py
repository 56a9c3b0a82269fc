"""Export: whatever the family, direction, size and precision, the engine makes torch's pictures, or there is none."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT
from gantrt.engine_file import inlined, load_model, norm_act_nodes, read_manifest
from gantrt.errors import BuildFailed, GantrtError, UsageError
from gantrt.manifest import Direction, InputSpec
from gantrt_training import checkpoint, comparison, tracing
from gantrt_training.comparison import synthetic
from gantrt_training.export import Request, export, export_generator, manifest_of
from gantrt_training.family import list_families, load_family
from gantrt_training.parity import Parity
from gantrt_training.recipe import Recipe
from gantrt_training.tracing import Source, as_tested
from onnx import ModelProto, TensorProto
from tiny_pictures import make_pairs, make_sides
from torch import nn

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SMALL = {"size": 32, "ngf": 4, "ndf": 4, "n_blocks": 1, "light": True, "batch": 2}
DIRECTIONS = [(name, direction) for name in list_families() for direction in load_family(name).generators]


def a_source(name: str, direction: Direction = "a2b", **overrides: Any) -> Source:
    """A small generator of a family, with weights and statistics that show every mistake."""
    family = load_family(name)
    known = {field.name for field in dataclasses.fields(family.Config)}
    config = family.Config(**{key: value for key, value in (SMALL | overrides).items() if key in known})
    torch.manual_seed(0)
    nets = family.build(config)
    for network in nets.values():
        make_lively(network)
    return Source(family, config, nets[family.generators[direction]], direction, family.norm_mode(config), "abc")


@torch.no_grad()
def make_lively(network: nn.Module) -> None:
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if not value.is_floating_point():
            continue
        if "rho" in name or "running_var" in name:
            value.uniform_(0.1, 1)
        elif value.dim() > 1:
            nn.init.kaiming_normal_(value)
        else:
            value.add_(torch.randn_like(value) * 0.3)


def in_onnxruntime(path: Path, x: torch.Tensor) -> np.ndarray:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})[0]


def in_torch(source: Source, x: torch.Tensor, norm_mode: str = "running") -> np.ndarray:
    with as_tested(source.generator, norm_mode):
        return source.family.image(source.generator, x).numpy()


def operations(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "engine.onnx"


@pytest.mark.parametrize(("name", "direction"), DIRECTIONS)
def test_engine_makes_torchs_pictures(name, direction, out) -> None:
    source = a_source(name, direction)
    manifest = export_generator(source, out, Request(direction=direction))
    assert manifest == read_manifest(out)
    assert {"onnxruntime_max_abs", "openvino_max_abs"} <= manifest.parity.keys()
    assert manifest.parity["max_abs"] <= 2e-4
    assert manifest.parity["samples"] == 4
    assert (manifest.family, manifest.direction, manifest.network) == (name, direction, source.network)
    assert manifest.input == InputSpec(3, 32, 32, source.family.size_rule(source.config).multiple)
    assert manifest.source_sha256 == "abc"
    assert manifest.made_by["torch"] == torch.__version__

    model = load_model(out)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "output"]
    assert not operations(model).keys() & {"BatchNormalization", "Dropout", "ConstantOfShape", "Constant"}
    assert bool(manifest.plugins) == bool(norm_act_nodes(model))
    parameters = {name for node in norm_act_nodes(model) for name in node.input[1:4]}
    computed = parameters - {"", *(tensor.name for tensor in model.graph.initializer)}
    assert bool(computed) == (name == "ugatit")  # AdaLIN's; all others are constants that a plugin can keep

    flat = onnx.load_from_string(inlined(out))
    onnx.checker.check_model(flat, full_check=True)
    assert {node.domain for node in flat.graph.node} == {""}


@pytest.mark.parametrize("name", list_families())
def test_dynamic_engine_takes_every_size_of_its_rule(name, out) -> None:
    source = a_source(name)
    manifest = export_generator(source, out, Request(dynamic=True, samples=2))
    multiple = manifest.input.multiple
    assert manifest.input.dynamic
    assert manifest.parity["max_abs"] <= 2e-4
    smallest = max(multiple, 16)
    for height, width in [(smallest, smallest), (3 * smallest, 2 * smallest)]:
        x = synthetic(3)(1, height, width)
        np.testing.assert_allclose(in_onnxruntime(out, x), in_torch(source, x), atol=2e-4)


# Full width and size: what the exporter makes of it, without running it.
CENSUS: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "resnet 9": (
        "cyclegan",
        {"ndf": 1},
        {"NormAct": 23, "Conv": 22, "ConvTranspose": 2, "DepthToSpace": 1} | {"Pad": 1, "Tanh": 1},
    ),
    "unet 256": (
        "pix2pix",
        {"ndf": 1},
        {"NormAct": 13, "Conv": 9, "ConvTranspose": 7, "DepthToSpace": 1, "Slice": 1, "Concat": 7}
        | {"LeakyRelu": 1, "Relu": 8, "Tanh": 1},
    ),
    "ugatit light": (
        "ugatit",
        {"light": True, "ndf": 1},
        {"NormAct": 21, "Conv": 23, "Pad": 4, "Gemm": 4, "DepthToSpace": 3, "Slice": 2, "Relu": 3, "Tanh": 1}
        | {"ReduceMean": 1, "Reshape": 1},
    ),
    "discogan": (
        "discogan",
        {"unit_range": False},
        {"Conv": 5, "ConvTranspose": 3, "DepthToSpace": 1, "Slice": 1, "LeakyRelu": 4, "Relu": 3, "Tanh": 1},
    ),
}


@pytest.mark.parametrize("case", CENSUS)
def test_graph_holds_these_operations_and_no_others(case) -> None:
    name, overrides, expected = CENSUS[case]
    family = load_family(name)
    config = family.Config(**overrides)
    generator = family.build(config)[family.generators["a2b"]]
    source = Source(family, config, generator, norm_mode=family.norm_mode(config))
    model = graph_of(source)
    assert operations(model) == expected
    mixed = [node for node in norm_act_nodes(model) if len(node.input) > 3 and node.input[3]]
    assert len(mixed) == (10 if name == "ugatit" else 0)  # 8 AdaLIN, 2 LIN
    assert all(node.name.startswith("g_ab.") for node in norm_act_nodes(model))


def graph_of(source: Source, request: Request | None = None) -> ModelProto:
    """The graph alone, without the rest of an export."""
    request = request or Request()
    return tracing.graph_of(source, manifest_of(source, request), rewrites=request.rewrites)


def test_batch_norm_goes_by_the_mode_asked_for(out) -> None:
    source = a_source("pix2pix")
    x = synthetic(3)(1, 32, 32)
    made = {}
    for mode, norms in (("running", 0), ("instance", 7)):
        manifest = export_generator(source, out, Request(norm_mode=mode, samples=1), overwrite=True)
        made[mode] = in_onnxruntime(out, x)
        np.testing.assert_allclose(made[mode], in_torch(source, x, mode), atol=2e-4)
        assert manifest.norm_mode == mode
        assert len(norm_act_nodes(load_model(out))) == norms
    assert np.abs(made["running"] - made["instance"]).max() > 0.1
    assert manifest_of(a_source("pix2pix", batch=1), Request()).norm_mode == "instance"
    assert manifest_of(a_source("cyclegan"), Request()).norm_mode == "instance"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_engine_computes_in_half_and_speaks_float(precision, out) -> None:
    manifest = export_generator(a_source("ugatit"), out, Request(precision=precision, samples=1))
    model = load_model(out)
    half = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    assert manifest.precision == precision
    assert manifest.parity["psnr_db"] > 40
    assert ("onnxruntime_max_abs" in manifest.parity) == (precision == "fp16")
    ends = (*model.graph.input, *model.graph.output)
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    kept = {name for node in norm_act_nodes(model) for name in node.input[1:4]}
    kept |= {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    floats = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    assert floats <= kept
    assert {t.data_type for t in model.graph.initializer if t.dims and len(t.dims) > 1} == {half}


def test_weights_that_half_cannot_hold_are_refused(out) -> None:
    source = a_source("discogan")
    with torch.no_grad():
        source.generator.first.weight.view(-1)[0] = 1e5
    with pytest.raises(BuildFailed, match="fp16 cannot hold"):
        export_generator(source, out, Request(precision="fp16"))
    assert not list(out.parent.iterdir())


def test_batch_and_size_are_built_in(out) -> None:
    source = a_source("cyclegan", channels_a=1, lambda_identity=0.0)
    manifest = export_generator(source, out, Request(batch=2, size=(24, 40), samples=3))
    assert (manifest.batch, manifest.color, manifest.parity["samples"]) == (2, "gray", 4)
    (given,), (made,) = load_model(out).graph.input, load_model(out).graph.output
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (given, made)]
    assert shapes == [[2, 1, 24, 40], [2, 3, 24, 40]]


REFUSED: dict[str, tuple[str, dict[str, Any], Request, type[GantrtError], str]] = {
    "odd size": ("cyclegan", {}, Request(size=(30, 33)), UsageError, "multiples of 4; try 32x32"),
    "no size": ("cyclegan", {}, Request(size=(0, 32)), UsageError, "multiples of 4"),
    "no batch": ("cyclegan", {}, Request(batch=0), UsageError, "batch"),
    "full size": ("ugatit", {"light": False}, Request(size=(64, 64)), UsageError, "32x32 only"),
    "full dynamic": ("ugatit", {"light": False}, Request(dynamic=True), UsageError, "32x32 only"),
    "no batch norm": ("cyclegan", {}, Request(norm_mode="running"), UsageError, "no BatchNorm"),
    "int8": ("cyclegan", {}, Request(precision="int8"), UsageError, "calibration"),
    "single pixels": (
        "discogan",
        {"bottleneck": 4},
        Request(norm_mode="instance"),
        BuildFailed,
        "narrow.norm.* single pixels",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(case, out) -> None:
    name, overrides, request, error, text = REFUSED[case]
    with pytest.raises(error, match=text) as caught:
        export_generator(a_source(name, **overrides), out, request)
    assert "\n" not in str(caught.value)
    assert not list(out.parent.iterdir())


def test_an_engine_of_other_pictures_is_not_released(out, monkeypatch) -> None:
    def spoil(model: ModelProto) -> None:
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) * 1.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))

    transforms = tracing._transforms
    monkeypatch.setattr(tracing, "_transforms", lambda *asked: [*transforms(*asked), spoil])
    with pytest.raises(BuildFailed, match="not torch's: off by"):
        export_generator(a_source("discogan"), out)
    assert not list(out.parent.iterdir())


def test_engine_tells_nothing_of_the_machine_and_is_the_same_each_time(out) -> None:
    source = a_source("discogan")
    source.generator.train()
    export_generator(source, out)
    first = out.read_bytes()
    assert source.generator.training
    assert all(str(word).encode() not in first for word in (ROOT, Path.home(), "stack_trace", "site-packages"))
    export_generator(source, out, overwrite=True)
    assert out.read_bytes() == first


def test_an_engine_that_exists_is_kept(out) -> None:
    out.write_bytes(b"precious")
    with pytest.raises(GantrtError, match="--overwrite"):
        export_generator(a_source("discogan"), out)
    assert out.read_bytes() == b"precious"
    assert list(out.parent.iterdir()) == [out]


# From a RUN folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, **overrides: Any) -> Path:
        family = load_family(name)
        source = a_source(name, **overrides)
        data = (make_pairs if family.paired else make_sides)(tmp_path / "data")
        nets = family.build(source.config)
        for network in nets.values():
            make_lively(network)
        run = tmp_path / "run"
        description = checkpoint.describe(family, "paper", source.config, nets)
        path = checkpoint.weights_path(run, 0)
        path.parent.mkdir(parents=True)
        checkpoint.save_weights(path, description, nets)
        Recipe(name, "paper", source.config, str(data)).save(run / "recipe.json")
        return run

    return make


def test_a_run_is_compared_on_its_own_test_pictures(make_run, out, monkeypatch) -> None:
    run = make_run("pix2pix")
    seen = []
    measure = comparison.measure
    monkeypatch.setattr(
        comparison, "measure", lambda path, precision, pairs: (seen.extend(pairs), measure(path, precision, pairs))[1]
    )
    manifest = export(run, out, Request(size=(64, 96), samples=2))
    loaded = checkpoint.load_run(run)
    assert manifest.source_sha256 == loaded.sha256
    assert (manifest.direction, manifest.norm_mode) == ("a2b", loaded.description.norm_mode)
    assert [x.shape for x, _ in seen] == [(1, 3, 64, 96)] * 2
    assert not np.array_equal(seen[0][0], seen[1][0])
    assert not np.array_equal(seen[0][0], synthetic(3)(1, 64, 96).numpy())
    with pytest.raises(UsageError, match="no generator b2a; it has a2b"):
        export(run, out, Request(direction="b2a"), overwrite=True)


def test_a_run_whose_pictures_are_gone_is_compared_on_made_up_ones(make_run, out, tmp_path, caplog) -> None:
    run = make_run("discogan")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with caplog.at_level("INFO", "gantrt"):
        assert export(run, out, Request(samples=1)).parity["samples"] == 1
    assert "made-up pictures" in caplog.text


@pytest.mark.parametrize(
    ("max_abs", "longest_sum", "released"),
    [(1.9e-4, 0, True), (2.1e-4, 0, False), (2.1e-4, 1 << 20, True), (5.1e-4, 1 << 20, False), (math.inf, 0, False)],
)
def test_an_engine_too_far_from_torch_is_not_released(max_abs: float, longest_sum: int, released: bool) -> None:
    assert (Parity("any", max_abs, 100.0).fault("fp32", longest_sum) is None) == released
