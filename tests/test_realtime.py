"""A run's generator on a GPU with torch alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gantrt.errors import DeviceUnavailable, UsageError
from gantrt_training import realtime
from gantrt_training.checkpoint import describe, load_run, save_weights, weights_path
from gantrt_training.family import list_families, load_family, make_config
from gantrt_training.nets.norm import batch_norm_as
from test_fused_norms import SMALL


def run_of(name: str, folder: Path) -> Path:
    family = load_family(name)
    known = set(vars(make_config(family, "paper", {})))
    config = make_config(family, "paper", {k: v for k, v in SMALL.get(name, {}).items() if k in known})
    torch.manual_seed(0)
    nets = family.build(config)
    path = weights_path(folder, 1)
    path.parent.mkdir(parents=True)
    save_weights(path, describe(family, "paper", config, nets, step=1), nets)
    return path


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_names_the_way_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="export the run and use gantrt"):
        realtime.load(tmp_path)


# How far levels of 255 may lie apart: a graph and single calls may take other algorithms for a convolution, whose sums
# are rounded elsewhere. bf16 has 8 bits: near +-1 its neighbours are half a level to a level apart, and errors add up.
LEVELS = {"fp16": 2, "bf16": 4, "fp32": 2}


@pytest.mark.needs_cuda
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("name", list_families())
def test_frames_are_those_of_the_network_step_by_step(name: str, precision: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with realtime.load(run_of(name, tmp_path), precision=precision, slots=2) as t:
        _, height, width = t._input
        frame = rng.integers(0, 256, (height, width, 3), np.uint8)
        assert t.frames.pipeline(frame).graph_active, t.frames.pipeline(frame).why_no_graph
        x = (torch.from_numpy(frame).cuda().permute(2, 0, 1)[None].float() / 127.5 - 1).to(t._dtype)
        with t._as_it_runs():
            expected = ((t.network(x).float() + 1) * 127.5).round().clamp(0, 255)[0].permute(1, 2, 0)
        for _ in range(20):
            other = rng.integers(0, 256, frame.shape, np.uint8)
            first, second = t.submit(frame), t.submit(other)
            assert np.abs(first.result().astype(int) - expected.cpu().numpy().astype(int)).max() <= LEVELS[precision]
            assert not np.array_equal(second.result(), first.frame)
        on_gpu = t(torch.from_numpy(frame).cuda())
        assert (on_gpu.int() - expected.int()).abs().max() <= LEVELS[precision]


@pytest.mark.needs_cuda
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("name", list_families())
def test_pictures_are_those_of_the_trained_generator(name: str, precision: Any, tmp_path: Path) -> None:
    run = run_of(name, tmp_path)
    checkpoint = load_run(run)
    generator = checkpoint.nets[checkpoint.family.generators["a2b"]].eval().cuda()
    with realtime.load(run, precision=precision) as t:
        x = torch.rand(1, *t._input, device="cuda") * 2 - 1
        with t._as_it_runs():
            made = t.network(x.to(t._dtype)).float()
    with torch.no_grad(), batch_norm_as(checkpoint.description.norm_mode):
        expected = checkpoint.family.image(generator, x)
    assert made.shape == expected.shape
    assert (made - expected).abs().mean() <= 0.01
    assert next(generator.parameters()).dtype == torch.float32


@pytest.mark.needs_cuda
def test_a_size_it_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes multiples of"):
        realtime.load(run_of("cyclegan", tmp_path), size=(63, 64))
