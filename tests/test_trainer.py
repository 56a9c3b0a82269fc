"""The loop: equal to its slow twin, exact when resumed, and stopped cleanly."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import signal
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT
from gantrt.errors import DeviceUnavailable, UnsupportedInput, UsageError
from gantrt_training import checkpoint
from gantrt_training.data import Batches, Data
from gantrt_training.family import Family, Phase, SizeRule, list_families, load_family
from gantrt_training.journal import Losses, NonFiniteLoss
from gantrt_training.recipe import Recipe, make_recipe
from gantrt_training.samples import SampleSheet
from gantrt_training.trainer import Run, Training, check_size, open_fabric, restore, seed_everything, train, upload
from tiny_pictures import make_pairs, make_sides
from torch import nn

pytestmark = pytest.mark.usefixtures("tiny_families")

TINY: dict[str, dict[str, Any]] = {  # for the real families: as small as they get
    "pix2pix": {"size": 32, "ngf": 4, "ndf": 4, "batch": 2},
    "cyclegan": {"size": 16, "ngf": 4, "ndf": 4, "n_blocks": 1, "d_layers": 2, "pool_size": 3, "dropout": 0.5},
    "discogan": {"size": 16, "ngf": 4, "ndf": 4, "batch": 3, "pool_size": 4},
    "ugatit": {"size": 32, "ngf": 4, "ndf": 4, "n_blocks": 1, "light": True},
}
EVERY = [*list_families(), "tiny_paired", "tiny_unpaired"]


def tiny_recipe(family: str, folder: Path, **overrides: Any) -> Recipe:
    data = (make_pairs if load_family(family).paired else make_sides)(folder)
    quiet = {"sample_every": 0, "checkpoint_every": 0, "log_every": 3}
    return make_recipe(family, data, "paper", TINY.get(family, {}) | quiet | overrides)


def start(recipe: Recipe) -> tuple[Training, Batches]:
    family, config = recipe.load_family(), recipe.config
    data = Data(Path(recipe.data), (config.channels_a, config.channels_b), recipe.preparation(), paired=family.paired)
    batches = Batches(data, config.batch, recipe.seed)
    seed_everything(recipe.seed)
    fabric = open_fabric("cpu", recipe.precision)
    return Training(family, config, batches.steps_per_epoch, fabric, ema=recipe.ema), batches


def advance(training: Training, batches: Batches, steps: int) -> Training:
    for step in range(training.done, training.done + steps):
        training.step(*(upload(side, training.fabric.device) for side in batches.load(step)))
    return training


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.nets.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def bench_training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_training", ROOT / "bench" / "training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("family", ["tiny_unpaired", "ugatit"])  # their reference orders see the same pictures twice
def test_a_step_equals_its_slow_twin(family: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(family, tmp_path)
    (fast, batches), (slow, _) = start(recipe), start(recipe)
    naive_step = bench_training().naive_step
    advance(fast, batches, 7)
    for step in range(7):
        a, b = (upload(side, slow.fabric.device) for side in batches.load(step))
        naive_step(slow, {"a": a, "b": b})
    assert_equal(weights(fast), weights(slow))


@pytest.mark.parametrize("family", EVERY)
def test_a_step_changes_every_network_and_only_those_of_its_phase(family: str, tmp_path: Path) -> None:
    training, batches = start(tiny_recipe(family, tmp_path))
    before = weights(training)
    advance(training, batches, 1)
    learnt = {name for phase in training.phases if phase.due(0) for name in phase.trains}
    for name, net in training.nets.items():
        changed = any(not torch.equal(p, before[f"{name}.{key}"]) for key, p in net.named_parameters())
        assert changed == (name in learnt), name
    assert all(parameter.requires_grad for parameter in training.nets.parameters())


@pytest.mark.parametrize("family", EVERY)
def test_n_plus_m_steps_equal_n_then_a_checkpoint_then_m(family: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(family, tmp_path / "data", ema=0.9)
    through, batches = start(recipe)
    run = Run(tmp_path / "run", recipe, through, batches.data, total=100)
    advance(through, batches, 4)
    run.save()
    run.close()
    advance(through, batches, 4)
    assert through.losses.take()

    resumed, batches = start(recipe)
    torch.rand(5)  # what else happens before a resume must not matter
    restore(resumed, tmp_path / "run")
    assert resumed.done == 4
    advance(resumed, batches, 4)
    assert_equal(weights(through), weights(resumed))
    assert through.averages
    assert resumed.averages
    assert_equal(*(dict(averages.nets.state_dict()) for averages in (through.averages, resumed.averages)))
    for name, optimizer in through.optimizers.items():
        states = optimizer.state_dict()["state"], resumed.optimizers[name].state_dict()["state"]
        for key, state in states[0].items():
            assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(states[1][key][k])) for k, v in state.items())
    for name, pool in through.pools.items():
        images = pool.state_dict()["images"], resumed.pools[name].state_dict()["images"]
        assert all(torch.equal(x, y) for x, y in zip(*images, strict=True))


def test_sampling_and_logging_leave_a_training_as_it_is(tmp_path: Path) -> None:
    recipe = tiny_recipe("tiny_paired", tmp_path)
    plain = advance(*start(recipe), 3)
    watched, batches = start(recipe)
    sheet = SampleSheet(watched.family, watched.config, batches.data, 3, watched.fabric.device)
    for _ in range(3):
        advance(watched, batches, 1)
        sheet.draw(watched.nets)
        watched.losses.take()
    assert_equal(weights(plain), weights(watched))


def test_sheets_show_inputs_translations_and_what_they_were_or_came_from(tmp_path: Path) -> None:
    paired, batches = start(tiny_recipe("tiny_paired", tmp_path / "p"))
    assert SampleSheet(paired.family, paired.config, batches.data, 6, paired.fabric.device).draw(paired.nets).shape == (
        3 * 10 - 2,
        2 * 10 - 2,
        3,
    )
    unpaired, batches = start(tiny_recipe("tiny_unpaired", tmp_path / "u"))
    sheet = SampleSheet(unpaired.family, unpaired.config, batches.data, 1, unpaired.fabric.device)
    assert sheet.draw(unpaired.nets).shape == (6 * 10 - 2, 8, 3)
    assert unpaired.nets.training


def test_the_learning_rate_follows_the_family(tmp_path: Path) -> None:
    training, batches = start(tiny_recipe("tiny_paired", tmp_path))
    total = training.family.total_steps(training.config, batches.steps_per_epoch)
    assert total == 4
    for step in range(total):
        advance(training, batches, 1)
        assert training.lr()["g"] == pytest.approx(2e-3 * (1 - step / total))


def test_generators_build_no_graph_where_only_judges_learn(tmp_path: Path) -> None:
    training, batches = start(tiny_recipe("tiny_unpaired", tmp_path))
    graphs = []
    forward = training.family.forward

    class Watched(type(training.family)):  # type: ignore[misc]
        def forward(self, nets: Any, batch: Any, config: Any) -> Any:
            made = forward(nets, batch, config)
            graphs.append(made["fake_b"].requires_grad)
            return made

    training.family = Watched()
    advance(training, batches, 4)
    assert graphs == [False, True, True, False]


def test_a_run_holds_what_it_promises(tmp_path: Path) -> None:
    recipe = tiny_recipe("tiny_paired", tmp_path / "data", sample_every=4, checkpoint_every=3, keep=2, steps=10)
    run = tmp_path / "run"
    last = train(recipe, run, progress=False)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "log.jsonl",
        "recipe.json",
        "report.html",
        "samples",
        "tensorboard",
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step_0000009.safetensors",
        "step_0000010.safetensors",
        "step_0000010.state.pt",
    ]
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        f"step_00000{n}.png" for n in ("04", "08", "10")
    ]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9, 10]
    assert lines[0]["d_loss"] == pytest.approx(lines[0]["d_real"] + lines[0]["d_fake"], abs=2e-6)
    assert lines[0]["d_real_unweighted"] == pytest.approx(2 * lines[0]["d_real"], abs=2e-6)
    assert {"epoch", "images_per_s", "lr_g", "lr_d", "g_adv", "g_l1", "g_loss"} <= lines[0].keys()
    assert last == run / "checkpoints" / "step_0000010.safetensors"
    assert Recipe.load(run / "recipe.json") == recipe


def test_tensorboard_gets_the_same_scalars(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tiny_recipe("tiny_unpaired", tmp_path / "data", steps=6), tmp_path / "run", progress=False)
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert set(events.Tags()["scalars"]) == lines[0].keys() - {"step"}
    assert [event.value for event in events.Scalars("g_loss")] == pytest.approx([line["g_loss"] for line in lines])


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    recipe = tiny_recipe("tiny_paired", tmp_path / "data")
    whole = train(dataclasses.replace(recipe, steps=9), tmp_path / "whole", progress=False)
    train(dataclasses.replace(recipe, steps=5), tmp_path / "cut", progress=False)
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 7}\n{"st')  # a process killed after its last checkpoint
    parts = train(dataclasses.replace(recipe, steps=9), tmp_path / "cut", resume=True, progress=False)
    assert_equal(*(dict(checkpoint.load_run(path).nets.state_dict()) for path in (whole, parts)))
    logs = [
        [json.loads(line) for line in (run.parent.parent / "log.jsonl").read_text().splitlines()]
        for run in (whole, parts)
    ]
    assert [line["step"] for line in logs[0]] == [3, 6, 9]
    assert [line["step"] for line in logs[1]] == [3, 5, 6, 9]
    assert logs[0][-1]["g_loss"] == logs[1][-1]["g_loss"]


def test_ctrl_c_saves_the_running_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("tiny_unpaired", tmp_path / "data", steps=1000)
    step = Training.step

    def interrupted(self: Training, a: torch.Tensor, b: torch.Tensor) -> None:
        if self.done == 6:
            os.kill(os.getpid(), signal.SIGINT)
        step(self, a, b)

    monkeypatch.setattr(Training, "step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    assert (
        checkpoint.newest_resumable(tmp_path / "run") == tmp_path / "run" / "checkpoints" / "step_0000007.safetensors"
    )
    monkeypatch.setattr(Training, "step", step)
    train(dataclasses.replace(recipe, steps=9), tmp_path / "run", resume=True, progress=False)


def test_an_unreadable_picture_saves_what_was_learnt(tmp_path: Path) -> None:
    recipe = tiny_recipe("tiny_unpaired", tmp_path / "data", steps=50, max_unreadable=1)
    for name in ("3", "4"):
        (tmp_path / "data" / "trainA" / f"{name}.png").write_bytes(b"broken")
    with pytest.raises(UnsupportedInput, match=r"2 pictures cannot be used, 1 may be.*trainA/\d\.png.*trainA/\d\.png"):
        train(recipe, tmp_path / "run", progress=False)
    assert len(checkpoint.weights_in(tmp_path / "run")) == 1


def test_unreadable_pictures_within_the_limit_are_named_once_and_skipped(tmp_path: Path, caplog: Any) -> None:
    recipe = tiny_recipe("tiny_unpaired", tmp_path / "data", steps=12, max_unreadable=2)
    broken = [tmp_path / "data" / name for name in ("trainA/3.png", "testB/0.png")]
    for path in broken:
        path.write_bytes(b"broken")
    with caplog.at_level("WARNING", logger="gantrt"):
        whole = train(recipe, tmp_path / "whole", progress=False)
    assert all(caplog.text.count(str(path)) == 1 for path in broken)
    train(dataclasses.replace(recipe, steps=7), tmp_path / "cut", progress=False)
    resumed = train(recipe, tmp_path / "cut", resume=True, progress=False)  # what is skipped is skipped again
    assert_equal(*(dict(checkpoint.load_run(path).nets.state_dict()) for path in (whole, resumed)))


def test_a_loss_that_is_not_finite_stops_naming_step_and_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("tiny_paired", tmp_path / "data", steps=50, log_every=10, checkpoint_every=4)
    step = Training.step

    def poisoned(self: Training, a: torch.Tensor, b: torch.Tensor) -> None:
        if self.done == 6:
            with torch.no_grad():
                self.nets["g_ab"][4].bias.fill_(math.nan)
        step(self, a, b)

    monkeypatch.setattr(Training, "step", poisoned)
    with pytest.raises(NonFiniteLoss, match="d_fake is nan at step 6; resume"):
        train(recipe, tmp_path / "run", progress=False)
    saved = checkpoint.weights_in(tmp_path / "run")
    assert [path.name for path in saved] == ["step_0000004.safetensors"]
    assert all(value.isfinite().all() for value in checkpoint.load_run(saved[0]).nets.state_dict().values())


def test_losses_are_means_over_the_steps_their_phase_was_due() -> None:
    losses = Losses()
    for step in range(4):
        losses.add(step, "g", ("g_a", "g_b"), torch.tensor([float(step), 1.0]))
    losses.add(4, "d", ("d_a",), torch.tensor([6.0]))
    losses.read()
    assert losses.latest == {"g_a": 3, "g_b": 1, "g_loss": 4, "d_a": 6, "d_loss": 6}
    assert losses.take() == {"g_a": 1.5, "g_b": 1, "g_loss": 2.5, "d_a": 6, "d_loss": 6}
    assert losses.take() == {}


def test_bf16_trains_and_resumes(tmp_path: Path) -> None:
    recipe = tiny_recipe("tiny_paired", tmp_path / "data", precision="bf16", steps=3)
    path = train(recipe, tmp_path / "run", progress=False)
    assert all(v.dtype != torch.bfloat16 for v in checkpoint.load_run(path).nets.state_dict().values())
    train(dataclasses.replace(recipe, steps=5), tmp_path / "run", resume=True, progress=False)


def test_a_folder_is_entered_only_as_asked(tmp_path: Path) -> None:
    recipe = tiny_recipe("tiny_unpaired", tmp_path / "data", steps=2)
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="holds no training to resume"):
        train(recipe, run, resume=True, progress=False)
    train(recipe, run, progress=False)
    with pytest.raises(UsageError, match="--resume to go on, or --overwrite"):
        train(recipe, run, progress=False)
    with pytest.raises(UsageError, match="exclude each other"):
        train(recipe, run, resume=True, overwrite=True, progress=False)
    (run / "notes.txt").write_text("mine")
    train(dataclasses.replace(recipe, steps=1), run, overwrite=True, progress=False)
    assert [path.name for path in checkpoint.weights_in(run)] == ["step_0000001.safetensors"]
    assert (run / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is not empty and holds no training"):
        train(recipe, tmp_path / "data", overwrite=True, progress=False)


@pytest.mark.parametrize(
    ("device", "precision", "error", "match"),
    [
        ("tpu", "fp32", UsageError, "no device 'tpu'; there are auto, cpu"),
        ("cpu:1", "fp32", UsageError, "no device"),
        ("cpu", "fp16", UsageError, "fp16 needs a GPU"),
    ],
)
def test_devices_that_make_no_sense_are_refused(
    device: str, precision: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        open_fabric(device, precision)


def test_a_device_that_is_not_here_is_no_silent_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_fabric("auto", "fp32").device.type == "cpu"
    with pytest.raises(DeviceUnavailable, match="--device cpu"):
        open_fabric("cuda", "fp32")


@pytest.mark.parametrize(
    ("overrides", "match"),
    [({"size": 10}, "multiple of 4"), ({"batch": 0}, "batch must be 1"), ({"channels_a": 0}, "channels_a must be 1")],
)
def test_sizes_and_channels_a_family_cannot_take_are_refused(overrides: dict[str, int], match: str) -> None:
    def check() -> None:
        recipe = make_recipe("tiny_paired", "x", overrides=overrides)
        check_size(recipe.load_family(), recipe.config)

    with pytest.raises(UsageError, match=match):
        check()


class Idle(Family):
    """Does nothing: what is left is the loop itself."""

    name, paper, paired, Config, presets, generators = "idle", "", False, object, {}, {"a2b": "g"}

    def build(self, config: Any) -> nn.ModuleDict:
        return nn.ModuleDict({"g": nn.ParameterList([torch.zeros(())]), "d": nn.ParameterList([torch.zeros(())])})

    def forward(self, nets: nn.ModuleDict, batch: Any, config: Any) -> dict[str, torch.Tensor]:
        return {}

    def phases(self, config: Any, pools: Any) -> tuple[Phase, ...]:
        return tuple(Phase(n, (n,), lambda nets, batch, made, n=n: {f"{n}_1": nets[n][0] * 2}) for n in "gd")  # type: ignore[misc]

    def optimizers(self, nets: nn.ModuleDict, config: Any) -> dict[str, torch.optim.Optimizer]:
        return {n: torch.optim.Adam(nets[n].parameters()) for n in "gd"}

    def lr_factor(self, config: Any, step: int, steps_per_epoch: int) -> float:
        return 1.0

    def size_rule(self, config: Any) -> SizeRule:
        return SizeRule(1)


@pytest.mark.plain_core
def test_the_loop_itself_costs_almost_nothing() -> None:
    training, bare = (Training(Idle(), None, 1, open_fabric("cpu", "fp32")) for _ in range(2))
    x = torch.zeros(1, 1, 4, 4)

    def torch_alone() -> None:
        for name, optimizer in bare.optimizers.items():
            optimizer.optimizer.zero_grad()
            (bare.nets[name][0] * 2).backward()
            optimizer.optimizer.step()

    fastest = {training.step: math.inf, torch_alone: math.inf}
    for _ in range(300):
        for step, args in ((training.step, (x, x)), (torch_alone, ())):
            begin = time.perf_counter()
            step(*args)
            fastest[step] = min(fastest[step], time.perf_counter() - begin)
    assert fastest[training.step] - fastest[torch_alone] < 5e-4  # about 0.2 ms on a busy core
