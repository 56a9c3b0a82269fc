"""Every family under every CPU engine and precision beside float64, on unkind pictures; what repeats bit for bit.

The pictures, the judge and the contenders are bench/numerics.py's, which measures more of them; here the widths are
small.

Note [a picture of one colour]
InstanceNorm without scale and shift makes zero of a constant plane: exactly. In float32 what is left is rounding,
divided by sqrt(eps) = 3e-3 in each norm, so after four or five norms it is as large as a picture. CycleGAN's
generator is of such norms from end to end: of a picture of one colour every engine, torch included, makes a texture
of its own where the exact answer is one colour. In U-GAT-IT the part of LayerNorm holds it back, in float32. The
others see something else besides: zeros around the picture, statistics of the training.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT
from gantrt.engine_file import attach_bodies, inlined
from gantrt.engines.openvino import core
from gantrt_training.export import Request, export_generator
from gantrt_training.nets.norm import norm_act
from gantrt_training.parity import openvino_has_bf16
from reference import norm_act as exact_norm_act

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
sys.path.insert(0, str(ROOT / "bench"))
import numerics  # noqa: E402
from test_engine_file import a_case, a_model, feeds  # noqa: E402

WIDTH, SIZE = 8, 32
# What random weights may be off by where something varies; half precision rounds weights and features to 3 or 2 digits.
# A picture whose deviation is a 400th of its mean has lost all but one bit of that in bfloat16 before the first norm.
WORST = {"fp32": 5e-4, "fp16": 4e-2, "bf16": 0.3}
WORST_ALMOST_FLAT = {"fp32": 2e-3, "fp16": 4e-2, "bf16": 2.0}
ENGINES = [  # precision of the file, runtime, what it is asked to compute in
    ("fp32", "openvino", "fp32"),
    ("fp32", "openvino", "bf16"),
    ("fp32", "onnxruntime", None),
    ("fp16", "openvino", None),
    ("fp16", "onnxruntime", None),
]


@pytest.fixture(scope="module", params=[name for name in numerics.NETWORKS if "each" not in name])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A network's exact pictures, and its engine files."""
    source, norm_mode = numerics.a_source(request.param, WIDTH, SIZE)
    exact = numerics.judge(source, norm_mode or source.norm_mode, torch.float64)
    shown = {kind: numerics.to_network(picture) for kind, picture in numerics.pictures(SIZE).items()}
    folder, files = tmp_path_factory.mktemp("engines"), {}
    for precision in ("fp32", "fp16"):
        files[precision] = folder / f"{precision}.onnx"
        export_generator(source, files[precision], Request(precision=precision, norm_mode=norm_mode, samples=1))
    wanted = {kind: exact(x) for kind, x in shown.items()}
    return {"name": request.param, "files": files, "shown": shown, "wanted": wanted}


@pytest.mark.parametrize(("precision", "runtime", "computed_in"), ENGINES)
def test_every_picture_is_finite_and_near_float64(
    network: dict[str, Any], precision: str, runtime: str, computed_in: str | None
) -> None:
    if computed_in == "bf16" and not openvino_has_bf16():
        pytest.skip("this CPU has no bfloat16")
    engine = numerics.opened(network["files"][precision], runtime, computed_in, threads=1)
    if engine.precision == "bf16":  # of fp16 OpenVINO's own choice, where the CPU has it
        precision = "bf16"
    family = network["name"].removesuffix(" light").removesuffix(" full")
    for kind, x in network["shown"].items():
        y = numerics.made_by(engine, x)
        assert np.isfinite(y).all(), kind
        assert np.abs(y).max() <= 1, kind
        worst = (WORST_ALMOST_FLAT if kind == numerics.ALMOST_FLAT else WORST)[precision]
        if kind in numerics.FLAT:  # Note [a picture of one colour]
            worst = {"CycleGAN": 2.0, "U-GAT-IT": 4e-3 if precision == "fp32" else 2.0}.get(family, worst)
        assert np.abs(y - network["wanted"][kind]).max() <= worst, kind


def test_the_same_picture_is_the_same_bits_again(network: dict[str, Any]) -> None:
    """In a row, from two threads at once, and loaded anew; with as many threads and streams as before."""
    x = network["shown"]["noise"]
    for precision, runtime, _ in ENGINES[2:]:
        made = []
        for _ in range(2):
            engine = numerics.opened(network["files"][precision], runtime, None, threads=2, streams=2)
            made += [numerics.made_by(engine, x) for _ in range(2)]
            with ThreadPoolExecutor(2) as pool:
                made += pool.map(lambda _, engine=engine: numerics.made_by(engine, x), range(2))
        assert all(np.array_equal(y, made[0]) for y in made), (precision, runtime)


def test_threads_change_fp32_by_less_than_a_hundredth_of_a_grey_level(network: dict[str, Any]) -> None:
    x = network["shown"]["noise"]
    for runtime in ("openvino", "onnxruntime"):
        made = [
            numerics.made_by(numerics.opened(network["files"]["fp32"], runtime, "fp32", threads), x)
            for threads in (1, 2, 4)
        ]
        assert max(np.abs(y - made[0]).max() for y in made) < 0.01 * 2 / 255, runtime


@pytest.mark.parametrize("kind", ["instance", "unbiased", "per_sample", "lin", "adalin"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_norms_of_features_400_deviations_from_zero_are_float64s(kind: str, dtype: str, runtime: str) -> None:
    """Judged by what reaches the norm: of 400 + noise float16 keeps a quarter, bfloat16 steps of two."""
    case = a_case(kind, "relu", (2, 5, 24, 18), pad=1, seed=2)
    rounded = torch.from_numpy(400 + np.random.default_rng(5).standard_normal((2, 5, 24, 18)))
    case["inputs"]["x"] = rounded.to(getattr(torch, dtype)).float().numpy()
    model = in_type(a_model([case], dynamic=False), dtype)
    if runtime == "onnxruntime":
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        y = session.run(None, feeds([case]))[0]
    else:
        y = core().compile_model(core().read_model(inlined(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
            feeds([case])
        )[0]
    inputs = {name: case["inputs"][name] for name in ("scale", "shift", "rho")}
    wanted = exact_norm_act(case["inputs"]["x"], **inputs, unbiased=case["unbiased"], act="relu", pad=1)
    unit = {"float32": 1e-3, "float16": 2**-9, "bfloat16": 2**-6}[dtype]
    np.testing.assert_allclose(y, wanted, rtol=unit, atol=unit)


@pytest.mark.parametrize("kind", ["instance", "lin"])
def test_a_norm_of_float64_features_is_taken_in_float64(kind: str) -> None:
    """Or torch in double would be no judge of float32."""
    case = a_case(kind, "none", (2, 3, 12, 9), seed=2)
    inputs = {name: None if v is None else v.astype(np.float64) for name, v in case["inputs"].items()}
    tensors = {name: None if v is None else torch.from_numpy(v) for name, v in inputs.items()}
    wanted = exact_norm_act(**inputs, unbiased=case["unbiased"])
    np.testing.assert_allclose(norm_act(**tensors, unbiased=case["unbiased"]).numpy(), wanted, rtol=1e-12, atol=1e-12)


def in_type(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """The one NormAct of `model` between casts to `dtype` and back."""
    if dtype != "float32":
        element = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}[dtype]
        graph, helper = model.graph, onnx.helper
        for name in ("x0", "y0"):
            graph.value_info.append(helper.make_tensor_value_info(f"half_{name}", element, [2, 5, None, None]))
        node = graph.node[0]
        node.input[0], node.output[0] = "half_x0", "half_y0"
        graph.node.insert(0, helper.make_node("Cast", ["x0"], ["half_x0"], to=element))
        graph.node.append(helper.make_node("Cast", ["half_y0"], ["y0"], to=onnx.TensorProto.FLOAT))
    attach_bodies(model)
    return model
