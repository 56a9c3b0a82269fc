"""`gantrt bench --against torch`: the very network the engine is from, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gantrt.cli import main
from gantrt_training import checkpoint
from gantrt_training.family import load_family
from gantrt_training.peers import Network, torch_peer

pytest.importorskip("onnxruntime")

QUICK = ["--duration", "0.02", "--iterations", "5", "--warmup-ms", "1", "--frame-size", "16x16"]


def untrained_run(path: Path, seed: int) -> Path:
    """A RUN folder of a DiscoGAN of batch 1: its BatchNorms go by each picture's own statistics."""
    torch.manual_seed(seed)
    family = load_family("discogan")
    config = family.Config(size=16, ngf=4, ndf=4, batch=1)
    nets = family.build(config)
    weights = checkpoint.weights_path(path, 1)
    weights.parent.mkdir(parents=True)
    checkpoint.save_weights(weights, checkpoint.describe(family, "paper", config, nets, step=1), nets)
    return path


def test_torch_makes_the_engines_picture_from_the_engines_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, engine, path = untrained_run(tmp_path / "run", 0), tmp_path / "e.onnx", tmp_path / "report.json"
    assert main(["export", str(run), "-o", str(engine), "-q"]) == 0
    bench = ["bench", "--engine", str(engine), *QUICK, "--precision", "fp32", "--json", str(path)]
    assert main([*bench, "--against", "torch,torch-bf16", "--run", str(run)]) == 0
    against = json.loads(path.read_text())["against"]
    assert list(against) == ["gantrt", "torch", "torch-bf16"]
    assert against["torch"]["max_abs_difference"] < 2e-4  # export's own limit
    assert 0 < against["torch-bf16"]["max_abs_difference"] < 0.1  # eight bits
    capsys.readouterr()

    assert main([*bench, "--against", "torch"]) == 2
    assert "--run" in capsys.readouterr().err
    other = untrained_run(tmp_path / "other", 1)
    assert main([*bench, "--against", "torch", "--run", str(other)]) == 3
    assert "not what the engine was exported from" in capsys.readouterr().err


def test_torch_leaves_thread_count_and_network_as_they_were() -> None:
    family = load_family("discogan")
    generator = family.build(family.Config(size=16, ngf=4, ndf=4))["g_ab"]
    network, x = Network(family, generator, "running"), np.zeros((1, 3, 16, 16), np.float32)
    before, layout = torch.get_num_threads(), [p.stride() for p in generator.parameters()]
    eager = torch_peer("torch", network, x, threads=before + 1)()
    half = torch_peer("torch-bf16", network, x)()
    assert torch.get_num_threads() == before
    assert [p.stride() for p in generator.parameters()] == layout
    assert half.dtype == eager.dtype == np.float32
    np.testing.assert_allclose(half, eager, atol=0.05)
