"""A model repository for Triton: the folders, and a configuration that Triton's own schema reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gantrt.cli import main
from gantrt.engine_file import load_model, read_manifest
from gantrt.errors import UsageError
from gantrt.manifest import InputSpec, Manifest
from gantrt.triton import configuration, write_repository
from plan_networks import write_tiny

TINY = Manifest(family="tiny", direction="a2b", input=InputSpec(3, 16, 24), norm_mode="none", color="bgr")


def parsed(text: str) -> Any:
    """Triton's ModelConfig, or the test is skipped where its schema is not installed."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="pip install tritonclient[grpc]")
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse(text, schema.ModelConfig())


def test_an_engine_file_becomes_a_repository(tmp_path: Path) -> None:
    engine = write_tiny(tmp_path / "my engine.onnx")
    manifest = read_manifest(engine)
    assert manifest is not None
    model = write_repository(engine, manifest, tmp_path / "models")
    assert model == tmp_path / "models" / "my_engine"
    assert (model / "1" / "model.onnx").read_bytes() == engine.read_bytes()
    graph = load_model(engine).graph
    lines = (model / "config.pbtxt").read_text().splitlines()
    assert 'name: "my_engine"' in lines
    assert 'backend: "onnxruntime"' in lines
    assert "max_batch_size: 0" in lines
    size = f"{manifest.input.height}, {manifest.input.width}"
    for kind, name in (("input", graph.input[0].name), ("output", graph.output[0].name)):
        assert f'{kind} [ {{ name: "{name}" data_type: TYPE_FP32 dims: [ 1, 3, {size} ] }} ]' in lines
    with pytest.raises(UsageError, match="exists already; give --overwrite"):
        write_repository(engine, manifest, tmp_path / "models")
    write_repository(engine, manifest, tmp_path / "models", overwrite=True)


def test_a_repository_has_a_whole_model_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise OSError(28, "No space left on device")

    engine = write_tiny(tmp_path / "e.onnx")
    manifest = read_manifest(engine)
    assert manifest is not None
    monkeypatch.setattr("gantrt.triton.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        write_repository(engine, manifest, tmp_path / "models")
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]


def test_tritons_schema_reads_it() -> None:
    dynamic = replace(TINY, input=InputSpec(3, 16, 24, dynamic=True), output_channels=1, batch=2)
    config = parsed(configuration(Path("x.plan"), dynamic, "x"))
    assert (config.name, config.platform, config.max_batch_size) == ("x", "tensorrt_plan", 0)
    assert list(config.input[0].dims) == [2, 3, -1, -1]
    assert list(config.output[0].dims) == [2, 1, -1, -1]
    assert config.parameters["range"].string_value == "-1 1"
    assert config.parameters["color"].string_value == "bgr"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": {"runtime": "tensorrt-rtx"}}, "not TensorRT-RTX's; give --target tensorrt"),
        ({"plugins": ({"name": "gantrt::NormAct", "version": "1"},)}, "build it with --no-plugins"),
    ],
)
def test_a_plan_triton_cannot_load_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        write_repository(tmp_path / "x.plan", replace(TINY, **changes), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_such_a_plan_is_refused_before_it_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX")
    engine = write_tiny(tmp_path / "tiny.onnx")
    words = ["-o", str(tmp_path / "tiny.plan"), "--target", "tensorrt-rtx", "--compute-capability", "8.9"]
    assert main(["export", str(engine), *words, "--triton", str(tmp_path / "models")]) == 2
    assert "Triton runs plans of TensorRT without plugins" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx"]
