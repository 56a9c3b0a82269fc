"""Metrics while a training goes on: they do not disturb it, they are written down, and the best checkpoint stays."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from gantrt.errors import DeviceUnavailable, UsageError
from gantrt_training import checkpoint, validation
from gantrt_training.checkpoint import Score
from gantrt_training.data import Data
from gantrt_training.family import load_family
from gantrt_training.metrics import pixelwise, weights
from gantrt_training.recipe import Recipe, make_recipe
from gantrt_training.trainer import train
from judging_networks import write_inception
from tiny_pictures import make_pairs, make_sides

pytestmark = pytest.mark.usefixtures("tiny_families")


def tiny_recipe(folder: Path, family: str = "tiny_paired", **overrides: Any) -> Recipe:
    data = (make_pairs if load_family(family).paired else make_sides)(folder, test=3)
    quiet = {"sample_every": 0, "checkpoint_every": 0, "log_every": 5, "steps": 8}
    return make_recipe(family, data, "paper", quiet | overrides)


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(checkpoint.load_run(path).nets.state_dict())


def test_a_watched_training_is_bit_for_bit_the_unwatched_one(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "data", evaluate_metrics="l1", steps=7)
    plain = train(recipe, tmp_path / "plain", progress=False)
    watched = train(dataclasses.replace(recipe, evaluate_every=2), tmp_path / "watched", progress=False)
    assert all(torch.equal(value, weights_of(watched)[name]) for name, value in weights_of(plain).items())
    losses = [[line for line in log_of(run) if "g_loss" in line] for run in (tmp_path / "plain", tmp_path / "watched")]
    assert [line["g_loss"] for line in losses[0]] == [line["g_loss"] for line in losses[1]]


def test_a_watched_training_that_is_resumed_is_the_uninterrupted_one(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "data", evaluate_every=2, evaluate_metrics="l1,ssim", size=12)
    whole = train(recipe, tmp_path / "whole", progress=False)
    train(dataclasses.replace(recipe, steps=5), tmp_path / "cut", progress=False)
    parts = train(recipe, tmp_path / "cut", resume=True, progress=False)
    assert all(torch.equal(value, weights_of(parts)[name]) for name, value in weights_of(whole).items())
    graded = [
        {line["step"]: line for line in log_of(run.parent.parent) if "test_a2b_l1" in line} for run in (whole, parts)
    ]
    assert list(graded[0]) == [2, 4, 6, 8]
    assert list(graded[1]) == [2, 4, 5, 6, 8]
    assert all(graded[1][step] == line for step, line in graded[0].items())


def test_the_numbers_are_those_of_the_whole_test_split_in_eval_mode(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "data", evaluate_every=8, evaluate_metrics="l1", channels_b=3)
    run = tmp_path / "run"
    train(recipe, run, progress=False)
    saved = checkpoint.load_run(run)
    data = Data(Path(recipe.data), (3, 3), recipe.preparation(), paired=True)
    from gantrt_training.data import to_float, to_pictures
    from gantrt_training.nets.norm import batch_norm_as

    by_hand = []
    for n in range(3):
        x = to_float(torch.from_numpy(data.test_a.whole(n))[None])
        with torch.no_grad(), batch_norm_as(saved.description.norm_mode):
            made = to_pictures(saved.nets["g_ab"](x))[0]
        by_hand.append(pixelwise.l1(made, data.test_b.whole(n)))
    assert log_of(run)[-1]["test_a2b_l1"] == pytest.approx(sum(by_hand) / 3, abs=1e-6)


def test_the_best_checkpoint_stays_and_both_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    grades = iter([0.5, 0.3, 0.4, float("nan"), 0.3])  # at steps 2, 4, 6, 8, 9
    monkeypatch.setattr(validation.Validation, "grade", lambda self, nets: {"test_a2b_l1": next(grades)})
    caplog.set_level(logging.INFO, "gantrt")
    recipe = tiny_recipe(tmp_path / "data", evaluate_every=2, keep=1, steps=9, evaluate_metrics="l1")
    run = tmp_path / "run"
    last = train(recipe, run, progress=False)
    assert checkpoint.best(run) == Score(4, "l1", 0.3)
    assert [path.stem for path in checkpoint.weights_in(run)] == ["step_0000004", "step_0000009"]
    assert last.stem == "step_0000009"
    assert "best: l1 0.3 at step 4" in caplog.text
    assert "last: l1 0.3 at step 9" in caplog.text
    assert [line.get("test_a2b_l1") for line in log_of(run) if "g_loss" not in line] == [0.5, 0.3, 0.4, None, 0.3]


def test_a_training_brought_back_forgets_the_best_of_the_steps_ahead(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "data", checkpoint_every=4)
    run = tmp_path / "run"
    train(recipe, run, progress=False)
    for step, kept in ((8, None), (4, Score(4, "l1", 0.1))):
        checkpoint.mark_best(run, Score(step, "l1", 0.1))
        checkpoint.forget_best_after(run, 4)
        assert checkpoint.best(run) == kept


def test_a_training_without_pairs_is_graded_both_ways_by_kid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    net = write_inception(tmp_path / "net.pt")
    recipe = tiny_recipe(tmp_path / "data", "tiny_unpaired", evaluate_every=4, inception=str(net))
    run = tmp_path / "run"
    train(recipe, run, progress=False)
    lines = [line for line in log_of(run) if "test_a2b_kid" in line]
    assert [line["step"] for line in lines] == [4, 8]
    assert {"test_a2b_fid", "test_b2a_fid", "test_b2a_kid"} <= lines[0].keys()
    means = {line["step"]: (line["test_a2b_kid"] + line["test_b2a_kid"]) / 2 for line in lines}
    liked = checkpoint.best(run)
    assert liked is not None
    assert liked.value == pytest.approx(min(means.values()), abs=1e-5)
    assert means[liked.step] == pytest.approx(liked.value, abs=1e-5)
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("test_b2a_kid")] == [4, 8]


def test_fewer_pictures_are_spread_over_the_test_split(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "data", evaluate_every=4, evaluate_pictures=2, evaluate_metrics="l1")
    data = Data(Path(recipe.data), (3, 1), recipe.preparation(), paired=True)
    watch = validation.Validation(recipe, load_family("tiny_paired"), data, torch.device("cpu"), "running")
    assert [source.name for source in watch._a.sources] == ["0", "2"]


def test_what_cannot_be_graded_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    cases = [
        (
            UsageError,
            "not pairs",
            tiny_recipe(tmp_path / "u", "tiny_unpaired", evaluate_every=1, evaluate_metrics="l1"),
        ),
        (DeviceUnavailable, "pip install", tiny_recipe(tmp_path / "k", "tiny_unpaired", evaluate_every=1)),
    ]
    make_pairs(tmp_path / "none", test=0)
    cases.append(
        (
            UsageError,
            "needs test pictures",
            make_recipe("tiny_paired", tmp_path / "none", "paper", {"evaluate_every": 1}),
        )
    )
    for n, (kind, says, recipe) in enumerate(cases):
        with pytest.raises(kind, match=says):
            train(recipe, tmp_path / f"run{n}", progress=False)
        assert not checkpoint.weights_in(tmp_path / f"run{n}")
