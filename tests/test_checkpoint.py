"""Checkpoints describe themselves, load without running anything, and are whole or absent."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from gantrt.errors import EngineCorrupt, EngineMismatch, GantrtError, UnsupportedInput
from gantrt_training import checkpoint
from gantrt_training.checkpoint import describe, load_run, load_state, save_state, save_weights, weights_path
from gantrt_training.family import load_family, make_config
from torch import nn

pytestmark = pytest.mark.usefixtures("tiny_families")


def make_run(run: Path, step: int = 7, **overrides: Any) -> tuple[Path, nn.ModuleDict]:
    family = load_family("tiny_paired")
    config = make_config(family, "plain", overrides)
    torch.manual_seed(step)
    nets = family.build(config)
    nets["g_ab"][1].running_mean.fill_(0.25)
    path = weights_path(run, step)
    save_weights(path, describe(family, "plain", config, nets, step=step, data={"a": 5}), nets)
    return path, nets


def rewrite(path: Path, **changes: Any) -> None:
    """Change what the file says of itself, as another writer would have written it."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    said = json.loads(header["__metadata__"]["gantrt"]) | changes
    header["__metadata__"]["gantrt"] = json.dumps(said)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def test_a_run_loads_as_it_was_saved(tmp_path: Path) -> None:
    path, nets = make_run(tmp_path, width="6", batch="3")
    for given in (tmp_path, path, str(path)):
        loaded = load_run(given)
        assert (loaded.family.name, loaded.step, loaded.path) == ("tiny_paired", 7, path)
        assert (loaded.config.width, loaded.config.batch, loaded.config.dropout) == (6, 3, 0.0)
        assert all(torch.equal(value, nets.state_dict()[name]) for name, value in loaded.nets.state_dict().items())
        assert not loaded.nets.training
        assert not any(parameter.requires_grad for parameter in loaded.nets.parameters())
    assert loaded.description.norm_mode == "running"
    assert loaded.description.data == {"a": 5}
    assert set(loaded.description.made_by) == {"gantrt", "torch"}
    assert len(loaded.sha256) == 64


def test_the_newest_checkpoint_is_taken(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        make_run(tmp_path, step)
    assert load_run(tmp_path).step == 100


def test_loading_leaves_the_random_generator_alone(tmp_path: Path) -> None:
    make_run(tmp_path)
    before = torch.get_rng_state()
    load_run(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_a_file_may_hold_some_networks_only(tmp_path: Path) -> None:
    """As an imported generator does."""
    family = load_family("tiny_paired")
    config = make_config(family, "paper", {})
    nets = nn.ModuleDict({"g_ab": family.build(config)["g_ab"]})
    save_weights(tmp_path / "x.safetensors", describe(family, "paper", config, nets), nets)
    assert list(load_run(tmp_path / "x.safetensors").nets) == ["g_ab"]


def test_weights_are_readable_by_safetensors_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path, nets = make_run(tmp_path)
    assert load_file(path).keys() == nets.state_dict().keys()


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, keep: float) -> None:
    path, _ = make_run(tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(EngineCorrupt, match=r"step_0000007\.safetensors: is damaged, or no checkpoint"):
        load_run(path)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"schema": 99}, EngineMismatch, "schema 99 is newer"),
        ({"schema": "x"}, EngineCorrupt, "cannot be read"),
        ({"family": "stargan"}, EngineMismatch, "family 'stargan', which this gantrt does not have"),
        ({"family": "../x"}, EngineMismatch, "which this gantrt does not have"),
        ({"config": {"width": 5}}, EngineCorrupt, "do not fit tiny_paired as configured .*size mismatch"),
        ({"config": {"colour": 5}}, EngineMismatch, "another gantrt.*colour"),
        ({"config": []}, EngineCorrupt, "makes no sense"),
        ({"norm_mode": "layer"}, EngineCorrupt, "makes no sense"),
        ({"networks": ["g_ab", "d_z"]}, EngineCorrupt, "has no network 'd_z'"),
        ({"networks": ["g_ab"]}, EngineCorrupt, "do not fit"),
        ({"networks": 3}, EngineCorrupt, "cannot be read"),
    ],
)
def test_a_false_description_is_one_clear_error(
    tmp_path: Path, changes: dict[str, Any], error: type[GantrtError], match: str
) -> None:
    path, _ = make_run(tmp_path)
    rewrite(path, **changes)
    with pytest.raises(error, match=match) as caught:
        load_run(path)
    assert "\n" not in str(caught.value)


def test_unknown_keys_of_a_later_writer_are_ignored(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path)
    rewrite(path, colour="blue")
    assert load_run(path).step == 7


def test_a_foreign_file_names_the_command_that_takes_it(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(EngineCorrupt, match="gantrt import"):
        load_run(tmp_path / "foreign.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, I am no checkpoint")
    with pytest.raises(EngineCorrupt, match="is damaged, or no checkpoint"):
        load_run(tmp_path / "text.safetensors")


def test_what_is_not_there_is_unsupported_input(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInput, match="has no checkpoint"):
        load_run(tmp_path)
    with pytest.raises(UnsupportedInput, match="does not exist"):
        load_run(tmp_path / "x.safetensors")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_state_runs_no_code(tmp_path: Path) -> None:
    torch.save({"step": 1, "random": Bomb(tmp_path / "exploded")}, tmp_path / "x.state.pt")
    with pytest.raises(EngineCorrupt, match="damaged, or no state"):
        load_state(tmp_path / "x.state.pt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04hello"])
def test_a_damaged_state_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.state.pt"
    path.write_bytes(content)
    with pytest.raises(EngineCorrupt, match=r"x\.state\.pt: is damaged") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)
    save_state(path, {"x": torch.arange(1000)})
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(EngineCorrupt, match="is damaged"):
        load_state(path)


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = make_run(tmp_path, 7)
    before = path.read_bytes()

    def half(tensors: Any, file: Path, metadata: Any) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(GantrtError, match=r"step_0000007\.safetensors: cannot be written \(No space left on device\)"):
        make_run(tmp_path, 7)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_pruning_keeps_the_newest_and_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        save_state(checkpoint.state_path(weights_path(tmp_path, step)), {"step": step})
        make_run(tmp_path, step)
    assert checkpoint.newest_resumable(tmp_path) == weights_path(tmp_path, 3)
    (folder / ".step_0000004.99.part.safetensors").write_bytes(b"half")
    save_state(checkpoint.state_path(weights_path(tmp_path, 4)), {"step": 4})  # killed before its weights came
    assert checkpoint.newest_resumable(tmp_path) == weights_path(tmp_path, 3)
    checkpoint.prune(tmp_path, keep=2)
    assert sorted(path.name for path in folder.iterdir()) == [
        "step_0000002.safetensors",
        "step_0000003.safetensors",
        "step_0000003.state.pt",
    ]


def scored(run: Path, step: int, value: float, metric: str = "kid", lower: bool = True) -> bool:
    save_state(checkpoint.state_path(weights_path(run, step)), {"step": step})
    make_run(run, step)
    return checkpoint.mark_best(run, checkpoint.Score(step, metric, value, lower))


def test_the_best_weights_outlive_the_newest(tmp_path: Path) -> None:
    marked = []
    for step, value in enumerate([0.4, 0.1, 0.3, float("nan"), 0.2, 0.1], 1):
        marked.append(scored(tmp_path, step, value))
        checkpoint.prune(tmp_path, keep=2)
    assert marked == [True, True, False, False, False, False]
    assert checkpoint.best(tmp_path) == checkpoint.Score(2, "kid", 0.1)
    assert [path.stem for path in checkpoint.weights_in(tmp_path)] == [f"step_000000{n}" for n in (2, 5, 6)]
    assert checkpoint.newest_resumable(tmp_path) == weights_path(tmp_path, 6)


def test_a_score_is_compared_with_scores_of_its_metric_only(tmp_path: Path) -> None:
    assert scored(tmp_path, 1, 0.1)
    assert scored(tmp_path, 2, 20.0, "psnr", lower=False)
    assert not scored(tmp_path, 3, 19.0, "psnr", lower=False)
    assert scored(tmp_path, 4, 21.0, "psnr", lower=False)
    weights_path(tmp_path, 4).unlink()
    assert checkpoint.best(tmp_path) is None
    assert scored(tmp_path, 5, 1.0, "psnr", lower=False)
    (tmp_path / "checkpoints" / "best.json").write_text("{")
    assert checkpoint.best(tmp_path) is None
