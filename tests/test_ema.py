"""Moving averages: what they are, that nothing they touch learns otherwise, and that they are what a user gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gantrt.errors import UsageError
from gantrt_training import checkpoint
from gantrt_training.data import Data
from gantrt_training.ema import Averages
from gantrt_training.recipe import Recipe, make_recipe
from gantrt_training.samples import SampleSheet
from gantrt_training.trainer import train
from safetensors.torch import load_file
from tiny_pictures import make_pairs
from torch import nn

pytestmark = pytest.mark.usefixtures("tiny_families")


def recipe(tmp_path: Path, **overrides: Any) -> Recipe:
    quiet = {"sample_every": 0, "checkpoint_every": 0, "dropout": 0.0}
    return make_recipe("tiny_paired", make_pairs(tmp_path / "data"), "paper", quiet | overrides)


def test_they_are_the_weighted_mean_of_all_steps() -> None:
    """Against a mean written out in float64, each step weighted by what later steps left of it."""
    torch.manual_seed(0)
    nets = nn.ModuleDict({"g": nn.Linear(3, 2), "d": nn.Linear(2, 1)})
    averages = Averages(nets, ["g"], 0.9)
    values, decays = [nets["g"].weight.detach().numpy().astype(np.float64)], []
    for step in range(200):
        with torch.no_grad():
            nets["g"].weight.add_(torch.randn(2, 3))
        averages.update(nets, step)
        values.append(nets["g"].weight.detach().numpy().astype(np.float64))
        decays.append(min(0.9, (1 + step) / (10 + step)))
    left = np.cumprod([1.0, *reversed(decays)])[::-1]  # of each value
    share = left * np.array([1.0, *(1 - decay for decay in decays)])
    assert share.sum() == pytest.approx(1)
    wanted = np.tensordot(share, np.stack(values), 1)
    np.testing.assert_allclose(averages.nets["g"].weight.numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert list(averages.nets) == ["g"]
    assert not any(parameter.requires_grad for parameter in averages.nets.parameters())


def test_buffers_are_those_of_the_last_step() -> None:
    nets = nn.ModuleDict({"g": nn.BatchNorm2d(2)})
    averages = Averages(nets, ["g"], 0.99)
    nets["g"](torch.rand(2, 2, 3, 3))
    averages.update(nets, 1000)
    assert torch.equal(averages.nets["g"].running_mean, nets["g"].running_mean)


def test_they_change_nothing_that_learns(tmp_path: Path) -> None:
    with_them, without = (
        load_file(train(recipe(tmp_path, ema=ema, steps=6), tmp_path / f"run{ema}", progress=False)) for ema in (0.9, 0)
    )
    own = {key: value for key, value in with_them.items() if not key.startswith("averaged.")}
    assert own.keys() == without.keys()
    assert all(torch.equal(own[key], without[key]) for key in own)
    assert {key.split(".")[1] for key in with_them.keys() - own.keys()} == {"g_ab"}


def test_a_loaded_run_translates_with_them(tmp_path: Path) -> None:
    path = train(recipe(tmp_path, ema=0.9, steps=6), tmp_path / "run", progress=False)
    loaded, saved = checkpoint.load_run(path).nets.state_dict(), load_file(path)
    assert checkpoint.load_run(path).description.averaged == 0.9
    for key, value in loaded.items():
        assert torch.equal(value, saved[f"averaged.{key}" if key.startswith("g_ab") else key]), key
    assert any(not torch.equal(saved[key], value) for key, value in loaded.items())


def test_sheets_show_them(tmp_path: Path) -> None:
    made = recipe(tmp_path, ema=0.999, steps=6, sample_every=6)
    path = train(made, tmp_path / "run", progress=False)
    import cv2

    sheet = cv2.imread(str(tmp_path / "run" / "samples" / "step_0000006.png"))[..., ::-1]
    loaded, config = checkpoint.load_run(path), made.config
    channels = (config.channels_a, config.channels_b)
    data = Data(Path(made.data), channels, made.preparation(), paired=True)
    again = SampleSheet(loaded.family, config, data, made.samples, torch.device("cpu")).draw(loaded.nets)
    assert np.array_equal(sheet, again)


def test_they_can_be_turned_on_and_off_by_a_resume(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for ema, steps in ((0.0, 2), (0.9, 4), (0.0, 6)):
        made = dataclasses.replace(recipe(tmp_path, ema=ema), steps=steps)
        path = train(made, run, resume=bool(steps > 2), progress=False)
        assert any(key.startswith("averaged.") for key in load_file(path)) == bool(ema)


def test_a_decay_of_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ema must be less than 1, such as 0\.999"):
        recipe(tmp_path, ema=1.0)
