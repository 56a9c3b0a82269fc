"""`gantrt inspect`: what a file is, from its header alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gantrt.cli import main
from gantrt.engine_file import read_manifest
from gantrt.errors import EngineCorrupt
from gantrt.summary import summary
from gantrt_training import checkpoint
from gantrt_training.family import load_family
from gantrt_training.recipe import Recipe
from safetensors.torch import save_file
from tiny_networks import write_generator


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_generator(tmp_path / "engine.onnx", dynamic=True, multiple=4)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A RUN folder with two checkpoints of a small DiscoGAN."""
    family = load_family("discogan")
    config = family.Config(size=16, ngf=4, ndf=4, batch=2)
    nets = family.build(config)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for step in (1000, 2000):
        description = checkpoint.describe(family, "paper", config, nets, step=step, epoch=3)
        checkpoint.save_weights(checkpoint.weights_path(run, step), description, nets)
    Recipe("discogan", "paper", config, "pictures").save(run / "recipe.json")
    return run


def inspect(capsys, path: Path) -> str:
    assert main(["inspect", str(path)]) == 0
    return capsys.readouterr().out


def test_an_engine_shows_its_manifest_ports_and_operations(engine, capsys) -> None:
    shown = inspect(capsys, engine)
    assert "rgb in [-1, 1], any multiple of 4, 16x24 preferred" in shown
    assert "input, float32 1×3×height×width" in shown
    assert "2 Conv, 1 InstanceNormalization, 1 Relu, 1 Tanh" in shown
    assert "precision  fp32" in shown


def test_json_holds_the_whole_manifest(engine, capsys) -> None:
    assert main(["inspect", str(engine), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "engine"
    assert found["manifest"] == json.loads(read_manifest(engine).to_json())
    assert found["weight_bytes"] == 4 * (16 * 27 + 16 + 16 + 3 * 144)
    assert found["inputs"] == [{"name": "input", "type": "float32", "shape": [1, 3, "height", "width"]}]


def test_a_foreign_file_says_that_it_has_no_manifest(tmp_path, capsys) -> None:
    shown = inspect(capsys, write_generator(tmp_path / "foreign.onnx", manifest=False))
    assert "manifest  none" in shown
    assert "float32 1×3×16×24" in shown


def test_a_checkpoint_shows_its_networks_and_config(run, capsys) -> None:
    shown = inspect(capsys, run / "checkpoints" / "step_0001000.safetensors")
    assert "discogan, preset paper" in shown
    assert "1000 steps, 3 epochs" in shown
    nets = checkpoint.load_run(run).nets
    values = sum(value.numel() for value in nets["g_ab"].state_dict().values())
    assert summary(run)["newest"]["networks"]["g_ab"]["values"] == values
    assert "bottleneck" in shown


def test_a_run_shows_its_newest_checkpoint(run, capsys) -> None:
    shown = inspect(capsys, run)
    assert "step_0001000.safetensors, step_0002000.safetensors" in shown
    assert "2000 steps" in shown
    assert "pictures" in shown


def test_weights_of_another_program_are_shown_as_such(tmp_path, capsys) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"model.1.weight": torch.zeros(2, 3, dtype=torch.float16)}, path)
    shown = inspect(capsys, path)
    assert "another program" in shown
    assert summary(path)["networks"] == {"model": {"tensors": 1, "values": 6, "bytes": 12}}


DAMAGE = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[:-1],
    "head lost": lambda data: data[9:],
    "length too large": lambda data: b"\xff" * 8 + data[8:],
    "text": lambda data: b"no weights, but a text",
    "header is no dict": lambda data: (2).to_bytes(8, "little") + b"[]",
    "tensor is no dict": lambda data: (9).to_bytes(8, "little") + b'{"a": 77}',
    "config is no JSON": lambda data: data.replace(b'{\\"family', b"[[[family!!"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_in_one_line(run, damage) -> None:
    path = run / "checkpoints" / "step_0001000.safetensors"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(EngineCorrupt, match="step_0001000") as caught:
        summary(path)
    assert "\n" not in str(caught.value)


def test_what_is_nothing_of_ours_ends_with_code_3(tmp_path, capsys) -> None:
    (tmp_path / "engine.onnx").write_bytes(b"nothing")
    (tmp_path / "recipe.json").write_text("{")
    for name in ("engine.onnx", "missing.onnx", "missing.safetensors", "."):
        assert main(["inspect", str(tmp_path / name)]) == 3
    assert capsys.readouterr().err.count("\n") == 4


def test_checkpoints_are_read_without_torch(run) -> None:
    code = f"import sys; from gantrt.summary import summary; summary({str(run)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
