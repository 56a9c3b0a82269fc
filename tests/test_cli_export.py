"""`gantrt export` as typed: what it prints, what it returns, and that nothing half-made stays."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from gantrt.cli import main
from gantrt.engine_file import read_manifest
from gantrt_training import checkpoint
from gantrt_training.family import load_family

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A RUN folder of an untrained DiscoGAN."""
    torch.manual_seed(0)
    family = load_family("discogan")
    config = family.Config(size=16, ngf=4, ndf=4, batch=2)
    nets = family.build(config)
    path = checkpoint.weights_path(tmp_path_factory.mktemp("run"), 7)
    path.parent.mkdir()
    checkpoint.save_weights(path, checkpoint.describe(family, "paper", config, nets, step=7), nets)
    return path.parent.parent


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "engine.onnx"


def export(*words: object) -> int:
    return main(["export", *map(str, words)])


def test_export_prints_how_far_the_engine_is_from_torch(run, out, capfd) -> None:
    assert export(run, "-o", out, "--direction", "b2a") == 0
    printed, logged = capfd.readouterr()
    lines = printed.splitlines()
    assert lines[0].startswith(f"{out}  ")
    assert lines[1] == "discogan b2a, rgb 16x16, fp32"
    for runtime in ("onnxruntime", "openvino"):
        assert any(line.startswith(runtime) and line.endswith("dB") for line in lines)
    assert not logged  # torch.onnx is silent


def test_json_is_the_manifest(run, out, capsys) -> None:
    assert export(run / "checkpoints" / "step_0000007.safetensors", "-o", out, "--dynamic", "--json") == 0
    manifest = read_manifest(out)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(dataclasses.asdict(manifest)))
    assert manifest.input.dynamic


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["-o", "engine.plan", "--dynamic"], 2, "MIN:OPT:MAX"),
        (["-o", "engine.onnx", "--no-plugins"], 2, "--no-plugins is for a plan"),
        (["-o", "engine.pt"], 2, "ends in .onnx"),
        (["-o", "engine.onnx", "--size", "18x16"], 2, "multiples of 4"),
        (["-o", "engine.onnx", "--calibration", "."], 2, "--calibration"),
        (["-o", "engine.onnx", "--precision", "int8"], 2, "--calibration"),
        (["-o", "engine.onnx", "--keep-fp", "auto"], 2, "--keep-fp is for --precision int8"),
        (["-o", "engine.onnx", "--batch", "0"], 2, "batch"),
        (["-o", "file/engine.onnx"], 1, "cannot be written"),
        (["-o", "there.onnx"], 1, "--overwrite"),
    ],
)
def test_a_request_that_cannot_be_met_ends_with_its_code_and_one_line(
    run, tmp_path, monkeypatch, capsys, words, code, text
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("file", "there.onnx"):
        Path(name).write_text("mine")
    assert export(run, *words) == code
    printed, logged = capsys.readouterr()
    assert not printed
    assert text in logged
    assert logged.count("\n") == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "mine", "there.onnx": "mine"}


def test_a_run_that_cannot_be_read_ends_with_its_code(run, tmp_path, out, capsys) -> None:
    assert export(tmp_path / "nowhere", "-o", out) == 5
    assert export(tmp_path, "-o", out) == 5
    damaged = tmp_path / "step_0000007.safetensors"
    damaged.write_bytes((run / "checkpoints" / damaged.name).read_bytes()[:-9])
    assert export(damaged, "-o", out) == 3
    assert capsys.readouterr().err.count("\n") == 3
    assert not out.exists()


@pytest.mark.parametrize("size", ["256", "axb", "16x", "-4x4"])
def test_a_size_that_is_none_is_a_usage_error(run, out, size, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        export(run, "-o", out, f"--size={size}")
    assert caught.value.code == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


def test_a_run_becomes_a_plan_by_way_of_a_checked_engine(run, tmp_path, capsys) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")
    out = tmp_path / "engine.plan"
    words = ["--target", "tensorrt-rtx", "--compute-capability", "8.6", "--no-progress"]
    assert export(run, "-o", out, "--direction", "b2a", "--precision", "fp16", *words) == 0
    manifest = read_manifest(out)
    assert (manifest.family, manifest.direction, manifest.precision) == ("discogan", "b2a", "fp16")
    assert manifest.parity["samples"] >= 4
    assert manifest.target["source"] == f"{run} --direction b2a --precision fp16"
    assert "of the graph the plan was built from" in capsys.readouterr().out
    assert export(run, "-o", out, *words) == 2  # not twice without --overwrite
    assert [path.name for path in tmp_path.iterdir()] == ["engine.plan"]
