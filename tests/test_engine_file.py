"""The engine file: its manifest, and bodies that compute what NormAct means, whichever engine runs them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper as nh
import onnx.reference
import pytest
import torch
from gantrt.engine_file import (
    attach_bodies,
    guess_manifest,
    inlined,
    load_model,
    norm_act_nodes,
    read_manifest,
    write_engine,
)
from gantrt.engines.openvino import core
from gantrt.errors import BuildFailed, EngineCorrupt, EngineMismatch, UsageError
from gantrt.manifest import InputSpec, Manifest
from gantrt.norm_act_bodies import Case
from gantrt_training.nets.norm import norm_act

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

# Bodies against torch, both float32: sums of a few hundred values in another order.
TOLERANCE = 2e-5

ACTS = {"none": 1.0, "relu": 0.0, "leaky_relu": 0.2}


def a_case(
    kind: str = "instance",
    act: str = "none",
    shape: tuple[int, int, int, int] = (1, 3, 8, 8),
    *,
    residual: bool = False,
    rpad: int = 0,
    pad: int = 0,
    seed: int = 0,
) -> dict:
    """Inputs and attributes of one NormAct; kind: instance, unbiased, per_sample, lin or adalin."""
    rng = np.random.default_rng(seed)
    n, c, h, w = shape
    affine = (n, c) if kind in ("per_sample", "adalin") else (c,)
    rho = {0: np.zeros(c), 1: np.ones(c)}.get(seed % 4, rng.random(c))
    inputs = {
        "x": rng.standard_normal(shape) * 2 + rng.standard_normal((1, c, 1, 1)) * 5,
        "scale": rng.standard_normal(affine),
        "shift": rng.standard_normal(affine),
        "rho": rho if kind in ("lin", "adalin") else None,
        "residual": rng.standard_normal((n, c, h + 2 * rpad, w + 2 * rpad)) if residual else None,
    }
    inputs = {name: None if value is None else value.astype(np.float32) for name, value in inputs.items()}
    unbiased = kind in ("unbiased", "lin", "adalin")
    return {"inputs": inputs, "act": act, "unbiased": unbiased, "rpad": rpad, "pad": pad}


CASES = [
    a_case(kind, act, shape, residual=residual, rpad=rpad, pad=pad, seed=seed)
    for seed, (kind, act, (shape, residual, rpad, pad)) in enumerate(
        itertools.product(
            ("instance", "unbiased", "per_sample", "lin", "adalin"),
            ACTS,
            [
                ((1, 3, 8, 8), 0, 0, 0),
                ((1, 5, 7, 9), 1, 1, 1),
                ((2, 4, 6, 5), 1, 0, 3),
                ((2, 2, 1, 1), 1, 1, 0),
                ((1, 1, 5, 16), 0, 0, 1),
            ],
        )
    )
    if kind in ("unbiased", "lin", "adalin") or shape[2] > 1  # torch refuses InstanceNorm of a single pixel
]


def a_model(cases: list[dict], *, dynamic: bool) -> onnx.ModelProto:
    """One graph that holds a bare NormAct per case; their inputs are the graph's, parameters are initializers."""
    nodes, inputs, outputs, weights = [], [], [], []
    for i, case in enumerate(cases):
        names = []
        for name, value in case["inputs"].items():
            names.append("" if value is None else f"{name}{i}")
            if value is None:
                continue
            if name in ("x", "residual"):
                shape = [f"n{i}", value.shape[1], f"h{name}{i}", f"w{name}{i}"] if dynamic else value.shape
                inputs.append(oh.make_tensor_value_info(names[-1], 1, shape))
            else:
                weights.append(nh.from_array(value, names[-1]))
        while not names[-1]:
            names.pop()
        attributes = {"eps": 1e-5, "slope": ACTS[case["act"]], "plugin_namespace": "gantrt", "plugin_version": "1"}
        attributes |= {name: int(case[name]) for name in ("unbiased", "pad", "rpad")}
        nodes.append(oh.make_node("NormAct", names, [f"y{i}"], f"node{i}", domain="gantrt", **attributes))
        outputs.append(oh.make_tensor_value_info(f"y{i}", 1, [None] * 4))
    graph = oh.make_graph(nodes, "g", inputs, outputs, weights)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18), oh.make_opsetid("gantrt", 1)], ir_version=10)


def feeds(cases: list[dict]) -> dict[str, np.ndarray]:
    return {
        f"{name}{i}": case["inputs"][name]
        for i, case in enumerate(cases)
        for name in ("x", "residual")
        if case["inputs"][name] is not None
    }


def in_torch(case: dict) -> np.ndarray:
    tensors = {name: None if value is None else torch.from_numpy(value) for name, value in case["inputs"].items()}
    options = {name: case[name] for name in ("unbiased", "act", "pad", "rpad")}
    return norm_act(**tensors, **options).numpy()


def in_onnxruntime(data: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, inputs)


def in_openvino(data: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    compiled = core().compile_model(core().read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled(inputs).to_tuple())


def in_reference(data: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnx.reference.ReferenceEvaluator(onnx.load_from_string(data)).run(None, inputs)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("engine", [in_onnxruntime, in_openvino, in_reference])
def test_every_body_computes_norm_act(engine, dynamic) -> None:
    model = a_model(CASES, dynamic=dynamic)
    attach_bodies(model)
    onnx.checker.check_model(model, full_check=True)
    knows_functions = engine is in_onnxruntime
    made = engine(model.SerializeToString() if knows_functions else inlined(model), feeds(CASES))
    for case, y in zip(CASES, made, strict=True):
        np.testing.assert_allclose(y, in_torch(case), rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(case))


@pytest.mark.parametrize("engine", [in_onnxruntime, in_openvino])
def test_mixed_statistics_of_four_million_values_keep_their_digits(engine) -> None:
    """Against float64. One float32 sum over all of them would be off by 4e-4, E[x^2] - E[x]^2 by more."""
    case = a_case("lin", shape=(1, 64, 256, 256), seed=2)
    case["inputs"]["x"] += 20
    model = a_model([case], dynamic=False)
    attach_bodies(model)
    y = engine(inlined(model), feeds([case]))[0]

    values = {name: value.astype(np.float64) for name, value in case["inputs"].items() if value is not None}
    x, (scale, shift, rho) = values["x"], (values[name][:, None, None] for name in ("scale", "shift", "rho"))

    def standardised(axes: tuple[int, ...]) -> np.ndarray:
        return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, ddof=1, keepdims=True) + 1e-5)

    expected = scale * (rho * standardised((2, 3)) + (1 - rho) * standardised((1, 2, 3))) + shift
    assert np.abs(y - expected).max() < TOLERANCE


def test_a_graph_carries_only_the_bodies_it_uses() -> None:
    kinds = {"instance": Case(), "adalin": Case(mixed=True, per_sample=True, unbiased=True)}
    for kind, case in kinds.items():
        model = a_model([a_case(kind)] * 2, dynamic=False)
        attach_bodies(model)
        attach_bodies(model)  # again: it replaces what is there
        assert [(function.name, function.overload) for function in model.functions] == [("NormAct", case.overload)]
        assert {node.overload for node in norm_act_nodes(model)} == {case.overload}


def test_instance_norm_without_extras_is_one_standard_node() -> None:
    model = a_model([a_case()], dynamic=False)
    attach_bodies(model)
    assert [node.op_type for node in onnx.load_from_string(inlined(model)).graph.node] == ["InstanceNormalization"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_bodies_take_statistics_in_float32(dtype) -> None:
    """x = 300 + noise: its squares overflow float16, and its variance drowns in bfloat16."""
    element = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}[dtype]
    case = a_case("adalin", "relu", residual=True, rpad=1, pad=1)
    case["inputs"]["x"] += 300
    model = a_model([case], dynamic=False)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = element
    attach_bodies(model)
    assert model.functions[0].overload.endswith(dtype)

    # Float at both ends, for runtimes whose Python has no bfloat16.
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    node = graph.node[0]
    casts = [oh.make_node("Cast", [name], [f"half_{name}"], to=element) for name in ("x0", "residual0")]
    node.input[0], node.input[4] = "half_x0", "half_residual0"
    node.output[0] = "half_y0"
    graph.node.insert(0, casts[0])
    graph.node.insert(0, casts[1])
    graph.node.append(oh.make_node("Cast", ["half_y0"], ["y0"], to=onnx.TensorProto.FLOAT))
    y = in_onnxruntime(model.SerializeToString(), feeds([case]))[0]
    rounded = {name: None if v is None else v.copy() for name, v in case["inputs"].items()}
    half = getattr(torch, dtype)
    for name in ("x", "residual"):
        rounded[name] = torch.from_numpy(rounded[name]).to(half).float().numpy()
    unit = {"float16": 2**-10, "bfloat16": 2**-7}[dtype]
    np.testing.assert_allclose(y, in_torch(case | {"inputs": rounded}), rtol=unit, atol=unit)


def test_a_node_of_unknown_type_is_refused() -> None:
    model = a_model([a_case()], dynamic=False)
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(BuildFailed, match="nowhere"):
        attach_bodies(model)


# The file


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine.onnx"
    write_engine(a_network(), path, MANIFEST)
    return path


MANIFEST = Manifest(family="cyclegan", direction="b2a", input=InputSpec(3, 8, 8), parity={"max_abs": 1e-6})


def a_network(channels: int = 3, element: int = 1, shape: tuple[int | str, ...] | None = None) -> onnx.ModelProto:
    """A NormAct between one input and one output."""
    model = a_model([a_case(shape=(1, channels, 8, 8))], dynamic=False)
    for value in (*model.graph.input, *model.graph.output):
        value.CopyFrom(oh.make_tensor_value_info(value.name, element, shape or (1, channels, 8, 8)))
    return model


def test_manifest_travels_in_the_file(engine) -> None:
    assert read_manifest(engine) == MANIFEST
    write_engine(load_model(engine), engine, Manifest(family="ugatit"))
    assert read_manifest(engine) == Manifest(family="ugatit")
    assert len(load_model(engine).metadata_props) == 1


def test_manifest_is_read_without_the_weights(tmp_path) -> None:
    """Behind a graph of 3 GB, in a file full of holes: parsing it would fail."""
    path = tmp_path / "large.onnx"
    tail = onnx.ModelProto()
    tail.metadata_props.add(key="gantrt", value=MANIFEST.to_json())
    with path.open("wb") as file:
        file.write(b"\x08\x0a" + b"\x3a\x80\x80\x80\x80\x0c")  # ir_version 10; a graph of 3 * 2^30 bytes
        file.seek(3 << 30, 1)
        file.write(tail.SerializeToString())
    assert read_manifest(path) == MANIFEST


def test_a_plain_onnx_has_no_manifest_but_can_be_guessed(tmp_path) -> None:
    path = tmp_path / "plain.onnx"
    for channels, shape, spec in [
        (3, None, InputSpec(3, 8, 8)),
        (1, ("n", 1, 8, 8), InputSpec(1, 8, 8)),
        (3, (1, 3, "h", "w"), InputSpec(3, 256, 256, 4, dynamic=True)),
    ]:
        path.write_bytes(a_network(channels, shape=shape).SerializeToString())
        assert read_manifest(path) is None
        guessed = guess_manifest(path, range=(0.0, 1.0), color="bgr")
        assert guessed.input == spec
        assert (guessed.range, guessed.batch) == ((0.0, 1.0), 1)
        assert guessed.color == ("gray" if channels == 1 else "bgr")


@pytest.mark.parametrize(
    ("element", "shape"), [(1, (1, 4, 8, 8)), (1, (1, 8, 8, 3)), (1, (1, 3)), (10, (1, 3, 8, 8)), (2, (1, 3, 8, 8))]
)
def test_what_takes_no_picture_is_not_guessed(tmp_path, element, shape) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(a_network(element=element, shape=shape).SerializeToString())
    with pytest.raises(EngineMismatch, match="not float NCHW"):
        guess_manifest(path)


DAMAGE = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "last byte lost": lambda data: data[:-1],
    "a byte appended": lambda data: data + b"\x3a",
    "head overwritten": lambda data: b"\x00" * 64 + data[64:],
    "text": lambda data: b"this is no engine, but a text of some length\n" * 9,
    "png": lambda data: b"\x89PNG\r\n\x1a\n" + data,
    "zip": lambda data: b"PK\x03\x04" + data,
    "no graph": lambda data: onnx.ModelProto(ir_version=10, producer_name="nobody").SerializeToString(),
    "manifest is no JSON": lambda data: data.replace(b'"family"', b'"family:'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_in_one_line(engine, damage) -> None:
    engine.write_bytes(DAMAGE[damage](engine.read_bytes()))
    with pytest.raises(EngineCorrupt, match=r"engine\.onnx") as caught:
        read_manifest(engine)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_damage_inside_the_graph_is_found_on_loading(engine) -> None:
    data = bytearray(engine.read_bytes())
    at = data.index(b"NormAct")
    data[at - 40 : at + 40] = b"\xff" * 80
    engine.write_bytes(data)
    with pytest.raises(EngineCorrupt, match=r"engine\.onnx"):
        load_model(engine)


def test_what_cannot_be_read_says_why(tmp_path) -> None:
    with pytest.raises(EngineCorrupt, match="no such engine"):
        read_manifest(tmp_path / "missing.onnx")
    with pytest.raises(EngineCorrupt, match="directory"):
        load_model(tmp_path)
    (tmp_path / "engine.plan").write_bytes(b"ptrt")
    with pytest.raises(UsageError, match="holds no graph"):
        load_model(tmp_path / "engine.plan")


def test_a_failed_write_leaves_nothing(tmp_path) -> None:
    with pytest.raises(ValueError, match="characters"):
        write_engine(a_network(), tmp_path / "engine.onnx", Manifest(network="x" * 5000))
    assert not list(tmp_path.iterdir())


def test_more_than_a_protobuf_holds_is_refused_before_it_is_built(tmp_path) -> None:
    model = a_network()
    model.graph.initializer.add(name="huge", data_type=onnx.TensorProto.FLOAT, dims=[1 << 15, 1 << 15])
    with pytest.raises(BuildFailed, match="2 GiB"):
        write_engine(model, tmp_path / "engine.onnx", MANIFEST)
    assert not list(tmp_path.iterdir())


def test_inlining_leaves_the_engine_as_it_was(engine) -> None:
    before = engine.read_bytes()
    model = load_model(engine)
    assert inlined(model) == inlined(engine)
    assert engine.read_bytes() == before
    assert norm_act_nodes(model)
    flat = onnx.load_from_string(inlined(engine))
    assert not flat.functions
    assert {entry.domain for entry in flat.opset_import} == {""}
    onnx.checker.check_model(flat, full_check=True)
