"""Int8: convolutions that really run in eight bits, a gate that refuses, and the same file each time."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
import onnx
import pytest
import torch
from gantrt.engine_file import attach_bodies, inlined, load_model, norm_act_nodes, read_manifest
from gantrt.engines.openvino import core
from gantrt.errors import GateFailed, UnsupportedInput, UsageError
from gantrt.int8_forms import quantise_before_pads, signed_symmetric
from gantrt.norm_act_bodies import DOMAIN
from gantrt_training import fidelity, quantise
from gantrt_training.calibration import Calibration
from gantrt_training.export import Request, export_generator, manifest_of
from gantrt_training.family import list_families, load_family
from gantrt_training.parity import psnr, run_in_openvino
from gantrt_training.tracing import Source, graph_of
from onnx import ModelProto, helper, numpy_helper
from tiny_pictures import make_pairs, make_sides, picture, write

pytest.importorskip("nncf")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Twelve pictures with large and small structure."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(12):
        coarse = picture(n, 4, 5).astype(np.float32).repeat(12, 0).repeat(12, 1)
        write(folder / f"{n:02}.png", (0.8 * coarse + 0.2 * picture(50 + n, 48, 60)).astype(np.uint8))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "engine.onnx"


def a_source(name: str, **overrides: Any) -> Source:
    """A small generator of a family, with the weights a training begins with: random ones of ours amplify rounding."""
    family = load_family(name)
    known = {field.name for field in dataclasses.fields(family.Config)}
    small = {"size": 32, "ngf": 8, "ndf": 4, "n_blocks": 1, "light": True, "batch": 2} | overrides
    config = family.Config(**{key: value for key, value in small.items() if key in known})
    torch.manual_seed(0)
    generator = family.build(config)[family.generators["a2b"]]
    return Source(family, config, generator, norm_mode=family.norm_mode(config))


def request(pictures: Path, **more: Any) -> Request:
    return Request(precision="int8", calibration=pictures, **more)


def kernels(data: bytes) -> Counter[tuple[str, str]]:
    """(layer, type of the kernel that runs it) in OpenVINO, weights and views left out."""
    compiled = core().compile_model(core().read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    words = [(info["layerType"].astype(str), info["primitiveType"].astype(str)) for info in infos]
    return Counter((layer, kind.rpartition("_")[2].lower()) for layer, kind in words)


def float_graph(source: Source) -> ModelProto:
    """The fp32 graph, as quantisation gets it."""
    model = graph_of(source, manifest_of(source, Request()))
    attach_bodies(model)
    return model


def batches(pictures: Path, size: int = 32) -> list[np.ndarray]:
    return Calibration.of(pictures, 3, "a2b").batches(size, size, 1)


@pytest.mark.parametrize("name", list_families())
def test_convolutions_of_every_family_run_in_eight_bits(name, pictures, out) -> None:
    source = a_source(name)
    manifest = export_generator(source, out, request(pictures))
    assert manifest == read_manifest(out)
    assert (manifest.precision, manifest.int8["kept_fp"]) == ("int8", "")
    assert {"onnxruntime_psnr_db", "openvino_psnr_db"} <= manifest.parity.keys()
    assert manifest.parity["psnr_db"] >= 33

    model = load_model(out)
    onnx.checker.check_model(model)
    assert len(norm_act_nodes(model)) == len(norm_act_nodes(float_graph(source)))
    many = [node for node in model.graph.node if node.op_type in quantise.CONVOLUTIONS]
    found = kernels(inlined(out))
    assert found["Convolution", "i8"] + found["Deconvolution", "i8"] == len(many)
    assert not found["Convolution", "f32"]

    with gantrt.load(out, cache_dir="") as translator:
        assert translator.info.precision == "int8"
        assert translator(picture(3, 40, 50)).shape == (40, 50, 3)


def test_weights_are_symmetric_and_of_each_output_channel(pictures) -> None:
    model = float_graph(a_source("discogan"))
    layers = quantise.calibrate(model, batches(pictures))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    assert list(layers) == quantise.quantisable(model)
    for name, layer in layers.items():
        wanted = weights[nodes[name].input[1]]
        shape = [1] * wanted.ndim
        shape[layer.axis] = -1
        step = layer.weight_scale.reshape(shape)
        assert layer.axis == (1 if nodes[name].op_type == "ConvTranspose" else 0)
        assert layer.weight.dtype == np.int8
        assert (np.abs(layer.weight * step - wanted) <= 0.51 * step).all()
        assert layer.zero == 0


def test_activations_that_are_never_negative_use_all_codes(pictures) -> None:
    layers = quantise.calibrate(float_graph(a_source("cyclegan")), batches(pictures))
    types = {name: layer.zero.dtype.name for name, layer in layers.items()}
    assert types["g_ab.stem.conv.Conv"] == "int8"  # pictures
    assert types["g_ab.down.0.conv.Conv"] == "uint8"  # behind a ReLU


def test_a_tensor_two_convolutions_take_is_rounded_once(pictures) -> None:
    model = float_graph(a_source("ugatit"))
    made = quantise.assemble(model, quantise.calibrate(model, batches(pictures)))
    rounded = [node.input[0] for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert len(rounded) == len(set(rounded))


def test_the_same_pictures_make_the_same_file(pictures, tmp_path) -> None:
    files = [tmp_path / name for name in ("one.onnx", "two.onnx")]
    for file in files:
        export_generator(a_source("discogan"), file, request(pictures))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_batches_and_dynamic_sizes_are_quantised_too(pictures, tmp_path) -> None:
    manifest = export_generator(a_source("cyclegan"), tmp_path / "batch.onnx", request(pictures, batch=2))
    assert (manifest.batch, manifest.precision) == (2, "int8")
    manifest = export_generator(a_source("cyclegan"), tmp_path / "any.onnx", request(pictures, dynamic=True))
    with gantrt.load(tmp_path / "any.onnx", cache_dir="", size=(48, 40)) as translator:
        assert manifest.input.dynamic
        assert translator(picture(1, 48, 40)).shape == (48, 40, 3)


# The gate


def test_a_gate_that_is_not_met_names_what_to_keep_and_that_passes(pictures, out, monkeypatch) -> None:
    source = a_source("cyclegan")
    reached = export_generator(source, out, request(pictures)).parity["psnr_db"]
    out.unlink()
    monkeypatch.setitem(fidelity.LEAST_DB, "int8", reached + 3)
    with pytest.raises(GateFailed, match=r"held-out pictures, at least .* --keep-fp g_ab\.") as caught:
        export_generator(source, out, request(pictures))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 6
    assert not list(out.parent.iterdir())

    names = re.findall(r"g_ab[\w.]+", str(caught.value))
    manifest = export_generator(source, out, request(pictures, keep_fp=tuple(names)))
    assert manifest.int8["kept_fp"] == ", ".join(names)
    assert manifest.parity["psnr_db"] > reached + 2
    assert kernels(inlined(out))["Convolution", "i8"] < len(quantise.quantisable(float_graph(source)))
    automatic = export_generator(source, out, request(pictures, keep_fp=("auto",)), overwrite=True)
    assert automatic.int8 == manifest.int8


def test_a_gate_no_int8_can_meet_says_so(pictures, out, monkeypatch) -> None:
    monkeypatch.setitem(fidelity.LEAST_DB, "int8", 150.0)
    with pytest.raises(GateFailed, match="no convolution can stay int8; export bf16"):
        export_generator(a_source("discogan"), out, request(pictures, keep_fp=("auto",)))


def test_layers_are_kept_by_pattern(pictures, out) -> None:
    manifest = export_generator(a_source("cyclegan"), out, request(pictures, keep_fp=("g_ab.up.*", "g_ab.head*")))
    kept = manifest.int8["kept_fp"].split(", ")
    assert len(kept) == 3
    assert {name.split(".")[1] for name in kept} == {"up", "head"}
    with pytest.raises(UsageError, match=r"no such convolution; there are g_ab\.stem"):
        export_generator(a_source("cyclegan"), out, request(pictures, keep_fp=("nose",)), overwrite=True)


# Pictures


def test_pictures_are_held_out_and_prepared_as_the_runtime_does(pictures) -> None:
    chosen = Calibration.of(pictures, 3, "a2b")
    assert (len(chosen.shown), len(chosen.held_out)) == (10, 2)
    assert not set(chosen.shown) & set(chosen.held_out)
    assert chosen == Calibration.of(pictures, 3, "a2b")
    first = gantrt.frame_to_tensor(chosen._read(chosen.held_out[0]), size=(20, 24))
    np.testing.assert_array_equal(chosen.draw(5, 20, 24)[4], first[0])
    assert chosen.draw(1, 20, 24).dtype == torch.float32


def test_a_folder_for_training_gives_the_side_the_network_starts_from(tmp_path) -> None:
    sides = make_sides(tmp_path / "sides", a=12, b=14)
    names = {d: {s.path.parent.name for s in Calibration.of(sides, 3, d).shown} for d in ("a2b", "b2a")}
    assert names == {"a2b": {"trainA"}, "b2a": {"trainB"}}
    assert {s.path.parent.name for s in Calibration.of(sides, 3, "a2b").held_out} == {"testA"}
    pairs = make_pairs(tmp_path / "pairs", train=12)
    assert {source.half for source in Calibration.of(pairs, 3, "a2b").shown} == {0}
    assert {source.half for source in Calibration.of(pairs, 3, "a2b", swap=True).shown} == {1}


@pytest.mark.parametrize("case", ["missing", "file", "empty", "few", "damaged"])
def test_pictures_that_will_not_do_are_refused_in_one_line(case, tmp_path, pictures, out) -> None:
    folder = tmp_path / "given"
    wanted = {"missing": "no such folder", "file": "is a file", "empty": "holds 0 pictures", "few": "holds 3 pictures"}
    if case == "file":
        folder.write_bytes(b"x")
    elif case != "missing":
        for n in range({"empty": 0, "few": 3, "damaged": 20}[case]):
            write(folder / f"{n}.png", picture(n))
        folder.mkdir(exist_ok=True)
    if case == "damaged":
        for n in range(20):
            (folder / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    text = wanted.get(case, r"20 of 20 pictures cannot be used: .*\.png.*; and 17 more")
    with pytest.raises(UnsupportedInput, match=text) as caught:
        export_generator(a_source("discogan"), out, request(folder))
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_int8_without_pictures_is_refused(out) -> None:
    with pytest.raises(UsageError, match="--calibration"):
        export_generator(a_source("discogan"), out, Request(precision="int8"))
    with pytest.raises(UsageError, match="for int8, not fp32"):
        export_generator(a_source("discogan"), out, Request(calibration=out.parent))


# Large fully connected layers


def test_the_large_layer_of_full_ugatit_keeps_int8_weights(pictures, tmp_path, monkeypatch) -> None:
    source = a_source("ugatit", light=False, ngf=16)
    export_generator(source, tmp_path / "fp32.onnx", Request(samples=1))
    monkeypatch.setattr(quantise.compress_large_layers, "__defaults__", (1 << 15,))
    manifest = export_generator(source, tmp_path / "int8.onnx", request(pictures))
    assert manifest.parity["psnr_db"] >= 33
    sizes = [(tmp_path / name).stat().st_size for name in ("int8.onnx", "fp32.onnx")]
    assert sizes[0] < 0.3 * sizes[1]
    large = [node for node in load_model(tmp_path / "int8.onnx").graph.node if node.op_type == "Gemm"]
    assert any(node.input[1].endswith("weight.float") for node in large)


def test_int8_weights_of_a_large_layer_stay_int8_in_openvino() -> None:
    random = np.random.default_rng(0)
    weight, x = random.normal(0, 0.01, (16, 4096)).astype(np.float32), random.normal(size=(1, 4096)).astype(np.float32)
    ports = [helper.make_tensor_value_info("input", 1, [1, 4096]), helper.make_tensor_value_info("output", 1, [1, 16])]
    nodes = [
        helper.make_node("Gemm", ["input", "w"], ["y"], "fc", transB=1),
        helper.make_node("Relu", ["y"], ["output"]),
    ]
    graph = helper.make_graph(nodes, "fc", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert quantise.compress_large_layers(model, at_least=weight.size + 1) == []
    assert quantise.compress_large_layers(model, at_least=weight.size) == ["fc"]
    exact = np.maximum(x @ weight.T, 0)
    for made in (in_onnxruntime(model, x), run_in_openvino(model.SerializeToString(), "f32")(x)):
        np.testing.assert_allclose(made, exact, atol=0.02)  # of values about 0.6
    compiled = core().compile_model(
        core().read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    types = {info["layerType"].astype(str): info["runtimePrecision"].astype(str) for info in infos}
    assert types["FullyConnected"] == "i8"


# Forms


def test_rounding_ahead_of_the_padding_changes_no_value(pictures) -> None:
    model = float_graph(a_source("cyclegan"))
    made = quantise.assemble(model, quantise.calibrate(model, batches(pictures)))
    attach_bodies(made)
    ahead = onnx.load_from_string(inlined(made))
    behind = onnx.inliner.inline_local_functions(made)
    count = {op: [sum(n.op_type == op for n in m.graph.node) for m in (ahead, behind)] for op in ("Pad", "Slice")}
    assert count["Pad"][0] == count["Pad"][1] > 0
    assert count["Slice"][0] < count["Slice"][1]  # crops of what is no longer padded
    for node in ahead.graph.node:
        if node.op_type == "QuantizeLinear":
            maker = next((m for m in ahead.graph.node if node.input[0] in m.output), None)
            assert maker is None or maker.op_type != "Pad"
    x = batches(pictures)[0]
    np.testing.assert_allclose(in_onnxruntime(ahead, x), in_onnxruntime(behind, x), atol=1e-5)


def test_the_form_for_tensorrt_is_signed_and_without_offsets(pictures) -> None:
    model = float_graph(a_source("cyclegan"))
    x = batches(pictures)[0]
    exact = run_in_openvino(inlined(model), "f32")(x).copy()
    made = quantise.assemble(model, quantise.calibrate(model, batches(pictures)))
    signed_symmetric(made)
    attach_bodies(made)
    onnx.checker.check_model(made)
    zeros = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear":
            assert (zeros[node.input[2]].dtype, int(zeros[node.input[2]])) == (np.int8, 0)
    assert not [t.name for t in made.graph.initializer if t.data_type == onnx.TensorProto.UINT8]
    assert psnr(lambda x: in_onnxruntime(made, x), [(x, exact)])[1] > 30


def test_forms_leave_a_graph_without_int8_alone(pictures) -> None:
    model = onnx.load_from_string(inlined(float_graph(a_source("cyclegan"))))
    before = model.SerializeToString()
    signed_symmetric(model)
    assert model.SerializeToString() == before
    assert DOMAIN not in {node.domain for node in model.graph.node}
    quantise_before_pads(model)  # crops that undo pads aside


def in_onnxruntime(model: ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]
