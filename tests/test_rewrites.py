"""Exact rewrites: the same function, wherever the pattern stands, and nothing done to what merely resembles it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from gantrt.engine_file import attach_bodies, inlined
from gantrt_training.export import Request, export_generator
from gantrt_training.onnx_graph import Graph, Window
from gantrt_training.rewrites import list_rewrites, rewrite
from onnx import ModelProto, numpy_helper
from test_export import a_source, graph_of, in_onnxruntime, in_torch, operations

ort = pytest.importorskip("onnxruntime")
ov = pytest.importorskip("openvino")

Array = np.ndarray
NORM = 'gantrt.NormAct <eps = 1e-05, slope = 0.0, pad = 0, rpad = 0, plugin_namespace = "gantrt", plugin_version = "1"'
RESIZE = 'Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
DOUBLE = Window(strides=(2, 2), pads=(1, 1, 1, 1))


def a_graph(
    body: str, shapes: dict[str, tuple[int, ...]], x: tuple[int, ...], values: dict[str, tuple[int, ...]] | None = None
) -> ModelProto:
    """`body` makes y of x; weights have the shapes given, and values are described as an exporter would."""

    def declared(shape: tuple[Any, ...], name: str) -> str:
        return f"float[{', '.join(map(str, shape))}] {name}"

    known = ", ".join(declared(shape, name) for name, shape in (values or {}).items())
    sides = values["y"] if values and "y" in values else (x[0], "C", "H", "W")
    known = ", ".join(declared(shape, name) for name, shape in (values or {}).items() if name != "y")
    text = (
        f'<ir_version: 10, opset_import: ["": 18, "gantrt": 1]>\n'
        f"g ({declared(x, 'x')}) => ({declared(sides, 'y')}) <{known}> {{\n{body}\n}}"
    )
    model = onnx.parser.parse_model(text.replace("<>", ""))
    random = np.random.default_rng(0)
    constants = {"border": np.array([0, 0, 1, 1] * 2), "scales": np.array([1, 1, 2, 2], np.float32)}
    constants |= {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items() if name in used)
    return model


def in_both(model: ModelProto, x: Array) -> list[Array]:
    attach_bodies(model)
    data = inlined(model)
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [
        ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {model.graph.input[0].name: x})[0],
        compiled([x])[0],
    ]


core = ov.Core()


def assert_equal_before_and_after(model: ModelProto, name: str, shape: tuple[int, ...], truth: Any = None) -> None:
    """`name` fires once, and both runtimes then make what they made; and what float64 says, where that is given."""
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    before, _ = in_both(_copy(model), x)
    after = _copy(model)
    assert rewrite(after, [name]) == {name: 1}
    onnx.checker.check_model(after)
    used = {name for node in after.graph.node for name in node.input}
    assert {tensor.name for tensor in after.graph.initializer} <= used
    wanted = before if truth is None else truth(torch.from_numpy(x).double(), _weights(model)).numpy()
    for made in (before, *in_both(after, x)):
        assert made.shape == wanted.shape
        np.testing.assert_allclose(made, wanted, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


def _copy(model: ModelProto) -> ModelProto:
    return ModelProto.FromString(model.SerializeToString())


def _weights(model: ModelProto) -> dict[str, torch.Tensor]:
    return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()).double() for t in model.graph.initializer}


# Each equals what it replaces


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 3)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("bias", ["", ", b"])
def test_thin_transposed_convolution_is_a_convolution_of_pixels(size, batch, bias) -> None:
    body = f"y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w{bias})"
    model = a_graph(body, {"w": (6, 3, 4, 4), "b": (3,)}, (batch, 6, *size))
    assert_equal_before_and_after(
        model,
        "thin_transposed_conv",
        (batch, 6, *size),
        lambda x, w: F.conv_transpose2d(x, w["w"], w.get("b"), stride=2, padding=1),
    )


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 2)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_convolution_of_a_doubled_image_is_one_of_the_image(size, batch, mode) -> None:
    body = f'up = {RESIZE} (x, , scales) \n p = Pad <mode = "{mode}"> (up, border) \n y = Conv (p, w, b)'
    model = a_graph(body, {"w": (7, 5, 3, 3), "b": (7,)}, (batch, 5, *size))

    def truth(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
        doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return F.conv2d(F.pad(doubled, (1,) * 4, mode="reflect"), w["w"], w["b"])

    assert_equal_before_and_after(model, "resized_conv", (batch, 5, *size), truth)


@pytest.mark.parametrize(
    ("size", "pads", "kernel"), [((14, 18), 0, 7), ((8, 10), 3, 7), ((6, 8), 2, 5), ((11, 9), 1, 6)]
)
@pytest.mark.parametrize("batch", [1, 2])
def test_thin_convolution_is_one_of_pixels(size, pads, kernel, batch) -> None:
    made = tuple(side + 2 * pads - kernel + 1 for side in size)
    body = f"y = Conv <pads = {[pads] * 4}> (x, w, b)"
    model = a_graph(body, {"w": (3, 6, kernel, kernel), "b": (3,)}, (batch, 6, *size), {"y": (batch, 3, *made)})
    assert_equal_before_and_after(
        model, "thin_conv", (batch, 6, *size), lambda x, w: F.conv2d(x, w["w"], w["b"], padding=pads)
    )


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("order", ["x, s", "s, x"])
def test_scales_in_front_of_a_convolution_belong_to_its_kernel(kernel, order) -> None:
    body = f"a = Mul ({order}) \n c = Mul (x, t) \n d = Concat <axis = 1> (a, c) \n y = Conv (d, w, b)"
    shapes = {"s": (1, 6, 1, 1), "t": (6, 1, 1), "w": (4, 12, kernel, kernel), "b": (4,)}

    def truth(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
        return F.conv2d(torch.cat([x * w["s"], x * w["t"]], 1), w["w"], w["b"])

    model = a_graph(body, shapes, (2, 6, 5, 8))
    assert_equal_before_and_after(model, "attention_fold", (2, 6, 5, 8), truth)


@pytest.mark.parametrize(("size", "kernel", "pads"), [((2, 2), 4, 1), ((1, 1), 3, 1), ((3, 3), 5, 1)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_convolution_of_or_to_a_pixel_keeps_what_it_sees(size, kernel, pads, transposed, batch) -> None:
    op = "ConvTranspose" if transposed else "Conv"
    body = f"y = {op} <strides = [2, 2], pads = {[pads] * 4}> (x, w, b)"
    x, y = (batch, 6, *size), (batch, 5, 1, 1)
    if transposed:
        x, y = (batch, 6, 1, 1), (batch, 5, *size)
    convolve = F.conv_transpose2d if transposed else F.conv2d
    model = a_graph(
        body, {"w": (6, 5, kernel, kernel) if transposed else (5, 6, kernel, kernel), "b": (5,)}, x, {"y": y}
    )
    assert_equal_before_and_after(
        model, "single_pixel", x, lambda x, w: convolve(x, w["w"], w["b"], stride=2, padding=pads)
    )
    rewrite(model)
    assert _weights(model)[model.graph.node[0].input[1]].shape[2:] == size


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_bias_in_front_of_an_instance_norm_counts_for_nothing(op) -> None:
    model = a_graph(f"a = {op} (x, w, b) \n y = {NORM}> (a, s, t)", *_normed(op))
    assert_equal_before_and_after(model, "dead_bias", (2, 4, 6, 7))


def _normed(op: str = "Conv") -> tuple[dict[str, tuple[int, ...]], tuple[int, ...], dict[str, tuple[int, ...]]]:
    size = (4, 5) if op == "Conv" else (8, 9)
    weights = {"w": (4, 4, 3, 3), "b": (4,), "s": (4,), "t": (4,), "rho": (4,)}
    return weights, (2, 4, 6, 7), {"a": (2, 4, *size), "y": (2, 4, *size)}


# What merely resembles is left alone

_UP = f"up = {RESIZE} (x, , scales)"
_PAD = 'p = Pad <mode = "reflect"> (up, border)'
_CAM = "a = Mul (x, s) \n c = Mul (x, t) \n d = Concat <axis = 1> (a, c)"
_CAM_SHAPES = {"s": (1, 6, 1, 1), "t": (1, 6, 1, 1), "w": (4, 12, 1, 1)}
LEFT_ALONE: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "many channels": ("y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", {"w": (6, 5, 4, 4)}),
    "output padding": (
        "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]> (x, w)",
        {"w": (6, 3, 4, 4)},
    ),
    "no padding": ("y = ConvTranspose <strides = [2, 2]> (x, w)", {"w": (6, 3, 4, 4)}),
    "stride 1": ("y = ConvTranspose <pads = [1, 1, 1, 1]> (x, w)", {"w": (6, 3, 4, 4)}),
    "kernel 3": ("y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", {"w": (6, 3, 3, 3)}),
    "transposed in groups": (
        "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], group = 2> (x, w)",
        {"w": (6, 1, 4, 4)},
    ),
    "auto pad": ('y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w)', {"w": (6, 3, 4, 4)}),
    "kernel made at run time": (
        "v = Mul (w, w) \n y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, v)",
        {"w": (6, 3, 4, 4)},
    ),
    "odd sides": ("y = Conv (x, w)", {"w": (3, 6, 6, 6)}),
    "thin stride": ("y = Conv <strides = [2, 2], pads = [3, 3, 3, 3]> (x, w)", {"w": (3, 6, 7, 7)}),
    "thin dilated": ("y = Conv <dilations = [2, 2], pads = [6, 6, 6, 6]> (x, w)", {"w": (3, 6, 7, 7)}),
    "thin in groups": ("y = Conv <group = 3, pads = [3, 3, 3, 3]> (x, w)", {"w": (3, 2, 7, 7)}),
    "small thin kernel": ("y = Conv <pads = [1, 1, 1, 1]> (x, w)", {"w": (3, 6, 3, 3)}),
    "thick": ("y = Conv <pads = [3, 3, 3, 3]> (x, w)", {"w": (8, 6, 7, 7)}),
    "linear": (
        f'up = Resize <mode = "linear"> (x, , scales) \n {_PAD} \n y = Conv (p, w)',
        {"w": (7, 6, 3, 3)},
    ),
    "other rounding": (
        f'up = Resize <mode = "nearest", coordinate_transformation_mode = "align_corners"> (x, , scales) \n {_PAD}'
        "\n y = Conv (p, w)",
        {"w": (7, 6, 3, 3)},
    ),
    "zeros around": (f"{_UP} \n p = Pad (up, border) \n y = Conv (p, w)", {"w": (7, 6, 3, 3)}),
    "doubled, stride 2": (f"{_UP} \n {_PAD} \n y = Conv <strides = [2, 2]> (p, w)", {"w": (7, 6, 3, 3)}),
    "doubled, 5x5": (f"{_UP} \n {_PAD} \n y = Conv (p, w)", {"w": (7, 6, 5, 5)}),
    "doubled image seen twice": (
        f"{_UP} \n {_PAD} \n c = Conv (p, w) \n y = Add (c, up)",
        {"w": (6, 6, 3, 3)},
    ),
    "padded image seen twice": (
        f"{_UP} \n {_PAD} \n c = Conv (p, w) \n d = Conv (p, w) \n y = Add (c, d)",
        {"w": (6, 6, 3, 3)},
    ),
    "scale of each pixel": (f"{_CAM} \n y = Conv (d, w)", _CAM_SHAPES | {"t": (1, 6, 8, 8)}),
    "one not scaled": ("a = Mul (x, s) \n d = Concat <axis = 1> (a, x) \n y = Conv (d, w)", _CAM_SHAPES),
    "of two images": (
        "z = Relu (x) \n a = Mul (x, s) \n c = Mul (z, t) \n d = Concat <axis = 1> (a, c) \n y = Conv (d, w)",
        _CAM_SHAPES,
    ),
    "scaled image seen twice": (
        f"{_CAM} \n e = Conv (d, w) \n f = Conv (a, v) \n y = Add (e, f)",
        _CAM_SHAPES | {"v": (4, 6, 1, 1)},
    ),
    "joined image seen twice": (f"{_CAM} \n e = Conv (d, w) \n f = Conv (d, w) \n y = Add (e, f)", _CAM_SHAPES),
    "joined in groups": (f"{_CAM} \n y = Conv <group = 2> (d, w)", _CAM_SHAPES | {"w": (4, 6, 1, 1)}),
    "joined below": (
        "a = Mul (x, s) \n c = Mul (x, t) \n d = Concat <axis = 2> (a, c) \n y = Conv (d, w)",
        _CAM_SHAPES | {"w": (4, 6, 1, 1)},
    ),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_resembles_is_left_alone(case) -> None:
    body, shapes = LEFT_ALONE[case]
    plain = a_graph(body, shapes, (2, 6, 8, 8))
    made = ort.InferenceSession(plain.SerializeToString()).run(None, {"x": np.zeros((2, 6, 8, 8), np.float32)})[0]
    model = a_graph(body, shapes, (2, 6, 8, 8), {"y": made.shape})
    before = model.SerializeToString()
    assert rewrite(model) == {}
    assert model.SerializeToString() == before


def test_bias_that_layer_norm_or_another_sees_is_kept() -> None:
    for body in (
        f"a = Conv (x, w, b) \n y = {NORM}> (a, s, t, rho)",
        f"a = Conv (x, w, b) \n n = {NORM}> (a, s, t) \n y = Add (n, a)",
        f"a = Conv (x, w, b) \n y = {NORM}> (a, s, t, , a)",
        f"a = Conv (x, w, b) \n r = Relu (a) \n y = {NORM}> (r, s, t)",
    ):
        assert rewrite(a_graph(body, *_normed())) == {}


def test_a_constant_that_two_nodes_share_stays_for_the_other() -> None:
    up = "ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]>"
    model = a_graph(f"a = {up} (x, w) \n c = {up} (a, w) \n y = Relu (c)", {"w": (3, 3, 4, 4)}, (1, 3, 4, 4))
    before = in_both(_copy(model), x := np.ones((1, 3, 4, 4), np.float32))
    assert rewrite(model, ["thin_transposed_conv"]) == {"thin_transposed_conv": 2}
    for made, wanted in zip(in_both(model, x), before, strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("symbol", "even"), [("4*height", True), ("3*height", False), ("height", False), ("2*s + 1", False)]
)
def test_open_sides_are_even_if_the_graph_says_so(symbol, even) -> None:
    model = a_graph("y = Relu (x)", {}, (1, 3, 8, 8), {"y": (1, 3, "H", 8)})
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = symbol
    assert Graph(model).has_even_sides("y") == even


# In the families' networks

FIRES: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "resnet": ("cyclegan", {"n_blocks": 2}, {"dead_bias": 9, "thin_conv": 1}),
    "resnet, resized": ("cyclegan", {"upsample": "resize"}, {"dead_bias": 7, "resized_conv": 2, "thin_conv": 1}),
    "unet": ("pix2pix", {}, {"single_pixel": 2, "thin_transposed_conv": 1}),
    "discogan": ("discogan", {"size": 64, "bottleneck": 5}, {"thin_transposed_conv": 1}),
    "ugatit": ("ugatit", {}, {"attention_fold": 1, "resized_conv": 2, "thin_conv": 1}),
    "ugatit full": ("ugatit", {"light": False}, {"attention_fold": 1, "resized_conv": 2, "thin_conv": 1}),
}


@pytest.mark.parametrize("case", FIRES)
def test_the_families_networks_are_rewritten_and_make_the_same_pictures(case) -> None:
    name, overrides, fires = FIRES[case]
    source = a_source(name, **{"ngf": 8} | overrides)
    plain = graph_of(source, Request(rewrites=False))
    model = _copy(plain)
    assert rewrite(model) == fires
    assert rewrite(model) == {}
    assert set(fires) <= set(list_rewrites())
    side = source.config.size
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, side, side)).astype(np.float32)
    for made, wanted in zip(in_both(model, x), in_both(plain, x), strict=True):
        np.testing.assert_allclose(made, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix", "ugatit"])
def test_rewritten_engines_take_other_sizes_and_batches(name, tmp_path) -> None:
    source, out = a_source(name), tmp_path / "engine.onnx"
    export_generator(source, out, Request(dynamic=True, batch=2, samples=2))
    model = onnx.load(out)
    assert "DepthToSpace" in operations(model)
    multiple = 32 if name == "pix2pix" else 4
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 3, 3 * multiple, 5 * multiple)).astype(np.float32))
    np.testing.assert_allclose(in_onnxruntime(out, x), in_torch(source, x), atol=2e-4)


def test_without_rewrites_the_graph_is_as_it_was_written() -> None:
    plain = operations(graph_of(a_source("ugatit"), Request(rewrites=False)))
    assert not plain.keys() & {"DepthToSpace", "Slice"}
    assert (plain["Resize"], plain["Concat"]) == (2, 1)


@pytest.mark.parametrize("name", ["pix2pix", "discogan"])
def test_openvino_computes_a_rewritten_decoder_in_bfloat16(name) -> None:
    """As written, all transposed convolutions up to the output stay in float32; which is why it is rewritten."""
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    found = {}
    for rewrites in (False, True):
        model = graph_of(a_source(name, ngf=16), Request(rewrites=rewrites))
        attach_bodies(model)
        compiled = core.compile_model(core.read_model(inlined(model)), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
        infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        kinds = [info["runtimePrecision"] for info in infos if info["layerType"] == "Deconvolution"]
        found[rewrites] = {str(getattr(kind, "value", kind)) for kind in kinds}
    assert found == {False: {"f32"}, True: {"bf16"}}


def test_half_precision_comes_after() -> None:
    model = graph_of(a_source("ugatit", ngf=8), Request(precision="fp16"))
    types = {t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert types == {onnx.TensorProto.FLOAT16}
    assert operations(model)["DepthToSpace"] == 3
