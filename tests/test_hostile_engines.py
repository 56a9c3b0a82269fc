"""Engine files made to harm: none shows another file's content, none keeps a runtime for ever, each ends in a line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gantrt.cli import main
from gantrt.engine_file import load_model, read_manifest
from gantrt.engines import Options, open_engine, output_like
from gantrt.errors import EngineCorrupt, GantrtError
from gantrt.graph_limits import MOST_NODES
from gantrt.manifest import KEY, InputSpec, Manifest
from gantrt.model_cache import key_of
from onnx import TensorProto, helper, numpy_helper

RUNTIMES = ("openvino", "onnxruntime")
SHAPE = (1, 3, 8, 8)
node = helper.make_node


def model(
    nodes: list[Any], weights: tuple[Any, ...] = (), *, shape: Any = SHAPE, functions: Any = (), **rest: Any
) -> Any:
    ports = (helper.make_tensor_value_info(name, rest.get("element", 1), shape) for name in ("input", "output"))
    graph = helper.make_graph(nodes, "g", [next(ports)], [next(ports)], list(weights))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))
    if rest.get("manifest", True):
        made.metadata_props.add(key=KEY, value=Manifest(input=InputSpec(3, 8, 8)).to_json())
    return made


def ints(name: str, *values: int) -> Any:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def run(path: Path, runtime: str) -> Any:
    engine = open_engine(path, Options(threads=1, cache_dir=""), runtime)
    spec = engine.manifest.input
    x = np.zeros((engine.manifest.batch, spec.channels, spec.height, spec.width), np.float32)
    y = output_like(engine.manifest, x)
    engine.run(x, y)
    return y


# Files beside the file


def with_external(location: str, where: str) -> Any:
    """A network that adds three values which it says lie in another file."""
    tensor = TensorProto(name="w", data_type=1, dims=[3, 1, 1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    constant = node("Constant", [], ["w"], value=tensor)
    if where == "weights":
        return model([node("Add", ["input", "w"], ["output"])], (tensor,))
    if where == "a constant":
        return model([constant, node("Add", ["input", "w"], ["output"])])
    opset = [helper.make_opsetid("", 17)]
    body = helper.make_function("f", "F", ["x"], ["y"], [constant, node("Add", ["x", "w"], ["y"])], opset)
    return model([node("F", ["input"], ["output"], domain="f")], functions=[body])


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "engines").mkdir()
    path = tmp_path / "secret.bin"
    path.write_bytes(np.full(3, 7, np.float32).tobytes())
    return path


LOCATIONS: dict[str, Callable[[Path, Path], str]] = {
    "../../etc/passwd": lambda folder, secret: "../../../../../../etc/passwd",
    "up": lambda folder, secret: "../secret.bin",
    "down and up": lambda folder, secret: "x/../../secret.bin",
    "absolute": lambda folder, secret: str(secret),
    "url": lambda folder, secret: f"file://{secret}",
    "device": lambda folder, secret: "/dev/zero",
    "symbolic link": lambda folder, secret: ((folder / "link.bin").symlink_to(secret), "link.bin")[1],
    "hard link": lambda folder, secret: (os.link(secret, folder / "hard.bin"), "hard.bin")[1],
    "folder": lambda folder, secret: ".",
    "nothing": lambda folder, secret: "",
    "missing": lambda folder, secret: "none.bin",
}


@pytest.mark.parametrize("where", ["weights", "a constant", "a function"])
@pytest.mark.parametrize("location", LOCATIONS)
def test_weights_lie_in_plain_files_beside_the_engine_or_nowhere(secret: Path, location: str, where: str) -> None:
    folder = secret.parent / "engines"
    path = folder / "engine.onnx"
    path.write_bytes(with_external(LOCATIONS[location](folder, secret), where).SerializeToString())
    for read in (load_model, lambda p: run(p, "openvino"), lambda p: run(p, "onnxruntime")):
        with pytest.raises(EngineCorrupt, match="which is no plain file beside it") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_in_a_plain_file_beside_it_are_read_and_are_part_of_what_is_kept(tmp_path: Path, runtime: str) -> None:
    """The compiled model is kept by content: that of both files."""
    path, beside = tmp_path / "engine.onnx", tmp_path / "engine.onnx.data"
    path.write_bytes(with_external(beside.name, "weights").SerializeToString())
    keys = []
    for value in (2, 3):
        beside.write_bytes(np.full(3, value, np.float32).tobytes())
        keys.append(key_of(path, {}))
        assert (run(path, runtime) == value).all()
    assert keys[0] != keys[1]


# Graphs


def nested(depth: int) -> Any:
    def graph(name: str, *nodes: Any) -> Any:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, 1, None)])

    inner = graph("o0", node("Identity", ["input"], ["o0"]))
    for level in range(1, depth + 1):
        other = graph(f"e{level}", node("Identity", ["input"], [f"e{level}"]))
        inner = graph(f"o{level}", node("If", ["c"], [f"o{level}"], then_branch=inner, else_branch=other))
    other = graph("e0", node("Identity", ["input"], ["e0"]))
    return model(
        [node("If", ["c"], ["output"], then_branch=inner, else_branch=other)],
        (numpy_helper.from_array(np.array(True), "c"),),
    )


def calling(count: int, times: int, last: str = "Relu") -> Any:
    """Functions that call the next one so many times; the last is one operation, or calls the first again."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = []
    for i in range(count):
        names = ["x", *(f"t{k}" for k in range(1, times)), "y"]
        step = (
            {"op_type": f"F{i + 1}", "domain": "f"}
            if i + 1 < count
            else {"op_type": last, "domain": "f" if last != "Relu" else ""}
        )
        calls = [node(inputs=[a], outputs=[b], **step) for a, b in pairwise(names)]
        made.append(helper.make_function("f", f"F{i}", ["x"], ["y"], calls, opsets))
    return model([node("F0", ["input"], ["output"], domain="f")], functions=made)


def weight(dims: tuple[int, ...], kind: int = 1) -> Any:
    return TensorProto(name="w", data_type=kind, dims=dims, raw_data=bytes(12))


ADD = [node("Add", ["input", "w"], ["output"])]
REFUSED: dict[str, Any] = {
    "unknown operation": model([node("Frobnicate", ["input"], ["output"])]),
    "unknown domain": model([node("Relu", ["input"], ["output"], domain="evil")]),
    "cycle": model([node("Add", ["input", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["output"])]),
    "its own input": model([node("Add", ["input", "output"], ["output"])]),
    "input from nowhere": model([node("Add", ["input", "nowhere"], ["output"])]),
    "a trillion trillion weights": model(ADD, (weight((1 << 40, 1 << 40)),)),
    "weights of negative size": model(ADD, (weight((-1, 3)),)),
    "weights whose size overflows": model(ADD, (weight((1 << 62, 8)),)),
    "weights of no type": model(ADD, (weight((3, 1, 1), 126),)),
    "weights of text": model(ADD, (helper.make_tensor("w", 8, [3, 1, 1], [b"a", b"b", b"c"]),)),
    "strides of nothing": model([node("Conv", ["input", "w"], ["output"], strides=[0, 0])], (weight((3, 1, 1, 1)),)),
    "pictures larger than memory": model(
        [node("Resize", ["input", "", "s"], ["output"])],
        (numpy_helper.from_array(np.array([1, 1, 1e6, 1e6], np.float32), "s"),),
    ),
    "another size than it says": model([node("Relu", ["input"], ["output"])], shape=(1, 3, 64, 64)),
    "other channels than it says": model([node("Relu", ["input"], ["output"])], shape=(1, 1, 8, 8)),
    "a result of another size": model([node("GlobalMaxPool", ["input"], ["output"])], shape=SHAPE),
    "a trillion pixels": model([node("Relu", ["input"], ["output"])], shape=(1, 3, 1 << 40, 1 << 40), manifest=False),
    "no pixels": model([node("Relu", ["input"], ["output"])], shape=(1, 3, -8, 8), manifest=False),
    "no floats": model([node("Identity", ["input"], ["output"])], element=8, manifest=False),
    "branches within branches": nested(25),
    "functions that double": calling(26, 2),
    "functions without end": calling(3, 1, last="F0"),
    "more nodes than are read": model(
        [
            node("Relu", [f"t{i}" if i else "input"], [f"t{i + 1}" if i < MOST_NODES else "output"])
            for i in range(MOST_NODES + 1)
        ]
    ),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_that_cannot_be_is_refused_in_a_line_and_soon(
    tmp_path: Path, case: str, runtime: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path, begin = tmp_path / "engine.onnx", time.monotonic()
    path.write_bytes(REFUSED[case].SerializeToString())
    with pytest.raises(GantrtError) as caught:
        run(path, runtime)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < 20
    assert capfd.readouterr().err == ""  # a runtime's own words are in the line


def test_a_graph_with_the_branches_of_an_honest_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "engine.onnx").write_bytes(nested(2).SerializeToString())
    for runtime in RUNTIMES:
        assert run(tmp_path / "engine.onnx", runtime).shape == SHAPE


# Manifests


def test_a_hundred_megabytes_of_metadata_are_a_line_or_nothing(tmp_path: Path) -> None:
    path, begin = tmp_path / "engine.onnx", time.monotonic()
    made = model([node("Relu", ["input"], ["output"])])
    made.metadata_props.add(key="notes", value="y" * 100_000_000)
    path.write_bytes(made.SerializeToString())
    assert read_manifest(path) == Manifest(input=InputSpec(3, 8, 8))
    made.metadata_props[0].value, made.metadata_props[1].value = "[" * 100_000_000, ""
    path.write_bytes(made.SerializeToString())
    with pytest.raises(EngineCorrupt, match="not a gantrt manifest"):
        read_manifest(path)
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    "changes",
    [
        {"range": [float("nan"), 1]}, {"range": [-1, float("inf")]}, {"range": [1, -1]}, {"range": [0, 0]},
        {"range": ["0", 1]}, {"range": [-1]}, {"batch": 0}, {"batch": -1}, {"batch": 1 << 40}, {"batch": 1.5},
        {"batch": True}, {"batch": "1"}, {"schema": float("inf")}, {"schema": -1}, {"schema": "1"}, {"family": 3},
        {"family": "\ud800"}, {"color": "cmyk"}, {"color": []}, {"precision": None}, {"norm_mode": {}},
        {"direction": "c2d"}, {"target": "tensorrt"}, {"target": {"x": 1}}, {"made_by": ["gantrt"]},
        {"plugins": [{"name": "x"}]}, {"plugins": 3}, {"parity": {"max_abs": "0"}}, {"int8": []},
        {"output_channels": -1}, {"output_channels": float("inf")}, {"output_channels": 1 << 40}, {"input": None},
        {"input": []},
        *({"input": {"channels": 3, "height": 8, "width": 8} | wrong} for wrong in (
            {"height": 0}, {"height": -8}, {"height": 1 << 40}, {"width": 8.0}, {"width": True},
            {"channels": float("nan")}, {"multiple": 0}, {"dynamic": 1}, {"height": 1 << 16, "width": 1 << 16},
        )),
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_cannot_be_is_a_line(
    tmp_path: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path, made = tmp_path / "engine.onnx", model([node("Relu", ["input"], ["output"])])
    made.metadata_props[0].value = json.dumps(json.loads(made.metadata_props[0].value) | changes)
    path.write_bytes(made.SerializeToString())
    with pytest.raises(EngineCorrupt, match="manifest: "):
        read_manifest(path)
    for command in (["inspect", str(path)], ["bench", "--engine", str(path)]):
        assert main(command) == 3
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_engine_cut_anywhere_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "engine.onnx"
    data = model(
        [node("Relu", ["input"], ["output"])], (numpy_helper.from_array(np.zeros(300, np.float32), "w"),)
    ).SerializeToString()
    refused = 0
    for end in range(0, len(data), 41):
        path.write_bytes(data[:end])
        for read in (read_manifest, load_model, lambda p: run(p, "openvino")):
            try:
                read(path)  # cut between two fields it may be whole: one without its manifest
            except GantrtError as error:
                refused += "\n" not in str(error)
    assert refused >= 3 * (len(data) // 41 - 2)


def test_onnx_still_reads_a_model_of_ours(tmp_path: Path) -> None:
    """The cases above are refused for what was done to them."""
    path = tmp_path / "engine.onnx"
    onnx.save(model([node("Relu", ["input"], ["output"])]), path)
    for runtime in RUNTIMES:
        assert (run(path, runtime) == 0).all()
