"""Steps that are captured and replayed are the steps that are made one by one.

Without a GPU the capture is `Repeated`: what would be replayed runs again, with all that a graph holds fixed.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gantrt.errors import UsageError
from gantrt_training import step as step_module
from gantrt_training.data import Batches, Data
from gantrt_training.devices import open_fabric
from gantrt_training.penalties import Penalties
from gantrt_training.pool import ImagePool, StaticPool
from gantrt_training.randomness import seed_everything
from gantrt_training.recipe import Recipe, make_recipe
from gantrt_training.run import Run
from gantrt_training.step import Training, upload
from gantrt_training.step_graph import EAGER, CudaCapture, Noted, refuse_what_no_graph_holds
from gantrt_training.trainer import restore, train
from safetensors.torch import load_file
from test_trainer import EVERY, TINY, assert_equal, tiny_recipe, weights
from torch import Tensor

pytestmark = pytest.mark.usefixtures("tiny_families")

LR = 2.0**-12  # a number that float32 holds: a graph's learning rates are float32


class Repeated:
    """A capture for the CPU: a replay runs the work again and leaves its losses where those of the last one were."""

    made = 0

    def __init__(self, device: torch.device) -> None:
        pass

    def eagerly(self, work: Callable[[], list[Noted]]) -> list[Noted]:
        return work()

    def capture(self, work: Callable[[], list[Noted]]) -> tuple[list[Noted], Callable[[], None]]:
        Repeated.made += 1
        noted: list[Noted] = []

        def replay() -> None:
            new = work()
            if not noted:
                noted[:] = [note._replace(values=note.values.clone()) for note in new]
            for old, note in zip(noted, new, strict=True):
                assert old[:2] == note[:2]
                old.values.copy_(note.values)

        return noted, replay

    def forget(self) -> None:
        pass


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    Repeated.made = 0
    monkeypatch.setattr(step_module, "CudaCapture", Repeated)


def start(made: Recipe, device: str = "cpu", **how: Any) -> tuple[Training, Batches]:
    family, config = made.load_family(), made.config
    data = Data(Path(made.data), (config.channels_a, config.channels_b), made.preparation(), paired=family.paired)
    batches = Batches(data, config.batch * made.accumulate, made.seed)
    seed_everything(made.seed)
    how = {"accumulate": made.accumulate, "ema": made.ema, "clip_grad": made.clip_grad} | how
    fabric = open_fabric(device, made.precision)
    return Training(family, config, batches.steps_per_epoch, fabric, **how), batches


def advance(training: Training, batches: Batches, steps: int) -> Training:
    for step in range(training.done, training.done + steps):
        training.step(*(upload(side, training.fabric.device) for side in batches.load(step)))
    return training


def curve(training: Training, batches: Batches, steps: int) -> list[dict[str, float]]:
    seen = []
    for _ in range(steps):
        advance(training, batches, 1)
        seen.append(training.losses.take())
    return seen


# Without a GPU -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_replayed_steps_equal_those_made_one_by_one(
    family: str, accumulate: int, tmp_path: Path, repeated: None
) -> None:
    """Weights, averages, pools and the means of losses read only at the end, bit for bit."""
    options: dict[str, Any] = {"lr": LR, "ema": 0.9, "clip_grad": 5.0, "accumulate": accumulate}
    options |= {"epochs": 100, "batch": TINY.get(family, {}).get("batch", 1)}
    if accumulate > 1 and family in ("pix2pix", "tiny_paired"):
        options["dropout"] = 0.0
    recipe = tiny_recipe(family, tmp_path, **options)
    (plain, batches), (fast, _) = start(recipe), start(recipe, cuda_graph=True)
    if family == "tiny_paired":  # whose learning rate falls from the start
        plain._set_lr = fast._set_lr = lambda: None
    steps = 14  # in which each set of phases is captured and replayed
    for training in (plain, fast):
        seed_everything(1)
        advance(training, batches, steps)
    assert Repeated.made == len({tuple(p for p in fast.phases if p.due(step)) for step in range(steps)})
    assert_equal(weights(plain), weights(fast))
    assert plain.averages
    assert fast.averages
    assert_equal(dict(plain.averages.nets.state_dict()), dict(fast.averages.nets.state_dict()))
    for name, pool in plain.pools.items():
        theirs = fast.pools[name].state_dict()
        assert len(theirs["images"]) == len(pool) > 0 or pool.size == 0
        assert all(map(torch.equal, theirs["images"], pool.state_dict()["images"]))
        assert torch.equal(theirs["generator"], pool.state_dict()["generator"])
    assert fast.losses.take() == plain.losses.take()


@pytest.mark.parametrize(("first", "then"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("family", ["cyclegan", "discogan"])
def test_a_resume_goes_on_from_checkpoints_with_and_without_graphs(
    family: str, first: bool, then: bool, tmp_path: Path, repeated: None
) -> None:
    changes = {"d_every": 2} if family == "discogan" else {}
    recipe = tiny_recipe(family, tmp_path / "data", lr=LR, ema=0.9, **changes)
    whole, batches = start(recipe)
    seed_everything(1)
    advance(whole, batches, 20)
    cut, _ = start(recipe, cuda_graph=first)
    seed_everything(1)
    advance(cut, batches, 10)
    run = Run(tmp_path / "run", recipe, cut, batches.data, total=100)
    run.save()
    run.close()
    resumed, _ = start(recipe, cuda_graph=then)
    advance(resumed, batches, 9)  # what it captured meanwhile must go
    restore(resumed, tmp_path / "run")
    assert resumed.done == 10
    advance(resumed, batches, 10)
    assert_equal(weights(whole), weights(resumed))


def test_a_training_with_graphs_logs_resumes_and_rolls_back(tmp_path: Path, repeated: None, monkeypatch) -> None:
    """Through the door, with everything that happens between steps; the last step before the end is poisoned."""
    options = {"sample_every": 4, "checkpoint_every": 5, "evaluate_every": 5, "evaluate_metrics": "l1"}
    recipe = tiny_recipe(
        "tiny_paired", tmp_path / "data", cuda_graph=True, steps=12, on_nan="rollback", log_every=2, **options
    )
    made, poisoned = Training.step, []

    def step(self: Training, *batch: Tensor) -> None:
        if self.done == 7 and not poisoned:
            poisoned.append(self.done)
            with torch.no_grad():
                next(self.nets["g_ab"].parameters()).fill_(float("nan"))
        made(self, *batch)

    monkeypatch.setattr(Training, "step", step)
    whole = train(recipe, tmp_path / "whole", progress=False)
    assert Repeated.made == 2  # before and after it rolled back
    poisoned.clear()
    train(dataclasses.replace(recipe, steps=10), tmp_path / "cut", progress=False)
    parts = train(recipe, tmp_path / "cut", resume=True, progress=False)
    assert_equal(load_file(whole), load_file(parts))


def test_learning_rates_lie_where_a_graph_finds_them(tmp_path: Path, repeated: None) -> None:
    recipe = tiny_recipe("tiny_paired", tmp_path)
    (plain, batches), (fast, _) = start(recipe), start(recipe, cuda_graph=True)
    kept = {name: optimizer.param_groups[0]["lr"] for name, optimizer in fast.optimizers.items()}
    for _ in range(4):
        advance(plain, batches, 1)
        advance(fast, batches, 1)
        assert fast.lr() == plain.lr()
        for name, optimizer in fast.optimizers.items():
            assert optimizer.param_groups[0]["lr"] is kept[name]
            assert float(kept[name]) == pytest.approx(plain.lr()[name], rel=1e-6)


def test_each_set_of_phases_is_made_eagerly_first(tmp_path: Path, repeated: None) -> None:
    """DiscoGAN's judges learn in each third step: their optimiser has no state before their first."""
    training, batches = start(tiny_recipe("discogan", tmp_path), cuda_graph=True)
    seen = []
    for _ in range(3 * EAGER + 3):
        advance(training, batches, 1)
        seen.append(Repeated.made)
    assert seen.index(1) == 5  # the fourth step of the generators, after 1, 2 and 4
    assert seen.index(2) == 9  # that of the judges, after 0, 3 and 6


@pytest.mark.parametrize("size", [0, 1, 3, 7])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_static_pool_is_the_pool_bit_for_bit(size: int, batch: int) -> None:
    """Filling, and full; several queries a step; drawing as they come, and before a replay."""
    plain, static = ImagePool(size, seed=5), StaticPool(ImagePool(size, seed=5))
    pictures = (
        torch.full((batch, 2, 3, 3), float(n)) + torch.arange(batch).view(-1, 1, 1, 1) / 8 for n in itertools.count()
    )
    for step in range(60):
        queries = [next(pictures) for _ in range(1 + 2)]
        static.begin(drawing=step < 2)
        if step >= 2 and size:
            static.draw([batch] * len(queries))
        for images in queries:
            before = images.clone()
            assert torch.equal(static.query(images), plain.query(images))
            assert torch.equal(images, before)
        assert len(static) == len(plain)
        if step in (1, 30):
            saved = plain.state_dict(), static.state_dict()
            assert all(map(torch.equal, saved[0]["images"], saved[1]["images"]))
            assert torch.equal(saved[0]["generator"], saved[1]["generator"])
            plain.load_state_dict(saved[1])
            static.load_state_dict(saved[0])
            static.begin(drawing=True)
            images = next(pictures)
            assert torch.equal(static.query(images), plain.query(images))


def test_a_static_pool_keeps_dtype_and_memory_format_and_refuses_another_shape() -> None:
    pool = StaticPool(ImagePool(2))
    for value in range(4):
        images = torch.full((2, 3, 4, 4), float(value), dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        pool.begin(drawing=True)
        answer = pool.query(images.requires_grad_())
        assert answer.dtype == torch.bfloat16
        assert answer.is_contiguous(memory_format=torch.channels_last)
        assert not answer.requires_grad
    with pytest.raises(UsageError, match=r"one shape, got \(3, 4, 6\) and kept are \(3, 4, 4\)"):
        pool.query(torch.zeros(1, 3, 4, 6))
    other = StaticPool(ImagePool(2))
    other.load_state_dict(pool.state_dict())
    with pytest.raises(UsageError, match="set cuda_graph=false, or pool_size=0"):
        other.query(torch.zeros(1, 3, 8, 8))


def test_what_no_graph_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("pix2pix", tmp_path)
    with pytest.raises(UsageError, match="cuda_graph needs a GPU; set cuda_graph=false"):
        train(dataclasses.replace(recipe, cuda_graph=True, device="cpu"), tmp_path / "run", progress=False)
    monkeypatch.setattr(step_module, "CudaCapture", Repeated)
    with pytest.raises(UsageError, match=r"as accumulate asks for; set accumulate=1 or dropout=0"):
        start(recipe, cuda_graph=True, accumulate=2)
    with pytest.raises(UsageError, match=r"reduce-overhead makes CUDA graphs of its own; .* compile=default"):
        start(recipe, cuda_graph=True, compile="reduce-overhead")
    monkeypatch.setattr(
        type(recipe.load_family()), "optimizers", lambda self, nets, config: {"g": torch.optim.SGD(nets.parameters())}
    )
    with pytest.raises(UsageError, match="captures Adam, not SGD"):
        start(recipe, cuda_graph=True)


def test_fp16_and_several_processes_are_refused() -> None:
    fine: dict[str, Any] = {
        "processes": 1,
        "precision": SimpleNamespace(scaler=None),
        "compile": "none",
        "twice": False,
    }
    refuse_what_no_graph_holds(**fine)
    with pytest.raises(UsageError, match="goes with bf16 and fp32, not with fp16"):
        refuse_what_no_graph_holds(**fine | {"precision": SimpleNamespace(scaler=object())})
    with pytest.raises(UsageError, match="for one process, here are 2"):
        refuse_what_no_graph_holds(**fine | {"processes": 2})


def test_pictures_of_another_shape_are_refused(tmp_path: Path, repeated: None) -> None:
    training, _ = start(tiny_recipe("tiny_paired", tmp_path), cuda_graph=True)
    training.step(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))
    with pytest.raises(UsageError, match=r"one shape, got \(2, 3, 8, 8\) and then \(2, 3, 8, 12\)"):
        training.step(torch.zeros(2, 3, 8, 12), torch.zeros(2, 1, 8, 12))
    with pytest.raises(UsageError, match="cuda_graph wants pictures of one size, and preprocess=scale_width"):
        make_recipe("cyclegan", "x", overrides={"cuda_graph": True, "preprocess": "scale_width"}).preparation()


def test_what_cannot_be_captured_is_one_line(tmp_path: Path, repeated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(self: Repeated, work: Any) -> Any:
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")
        finally:  # as torch.cuda.graph does
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(Repeated, "capture", capture)
    training, batches = start(tiny_recipe("tiny_paired", tmp_path), cuda_graph=True)
    advance(training, batches, EAGER)
    with pytest.raises(UsageError) as error:
        advance(training, batches, 1)
    assert str(error.value) == (
        "train: this step cannot be captured (operation not permitted when stream is capturing); set cuda_graph=false"
    )


# On a GPU ------------------------------------------------------------------------------------------

ON_GPU: dict[str, dict[str, Any]] = {
    "pix2pix": {"size": 64, "ngf": 16, "ndf": 16, "dropout": 0.0},  # whose masks need not be those of eager steps
    "cyclegan": {"size": 64, "ngf": 16, "ndf": 16, "n_blocks": 2, "d_layers": 2, "pool_size": 3, "dropout": 0.0},
    "discogan": {"size": 64, "ngf": 16, "ndf": 16, "batch": 4, "pool_size": 6, "d_every": 2},
    "ugatit": {"size": 64, "ngf": 16, "ndf": 16, "n_blocks": 1, "light": True},
}


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def on_gpu(family: str, folder: Path, **changes: Any) -> Recipe:
    return tiny_recipe(family, folder, **ON_GPU[family] | {"ema": 0.9} | changes)


def assert_same_curve(one: list[dict[str, float]], other: list[dict[str, float]], first: float = 1e-3) -> None:
    """The first step from equal states closely, the others loosely.

    A convolution's gradient is summed in an order that differs from run to run. Adam divides a gradient by its size,
    so that the sign of one near zero moves its weight by a whole step; and the networks chase one another. Two eager
    trainings drift apart as well: by some percent within a dozen steps at 64x64.
    """
    assert one[0] == pytest.approx(other[0], rel=first, abs=1e-4)
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=0.1, abs=1e-3)


def take_over(training: Training, other: Training) -> None:
    """All that the next step depends on."""
    training.nets.load_state_dict(other.nets.state_dict())
    training.load_state(copy.deepcopy(other.state()))


def first_replay(training: Training) -> int:
    return EAGER * len({tuple(phase for phase in training.phases if phase.due(step)) for step in range(12)})


def test_a_training_takes_over_what_the_next_step_depends_on(tmp_path: Path, repeated: None) -> None:
    """Of one with graphs, whose optimisers keep other states."""
    recipe = tiny_recipe("cyclegan", tmp_path, lr=LR, ema=0.9, dropout=0.0)
    (plain, batches), (fast, _) = start(recipe), start(recipe, cuda_graph=True)
    before = first_replay(fast)
    curve(fast, batches, before)
    curve(plain, batches, before - 1)
    take_over(plain, fast)
    assert_same_curve(curve(fast, batches, 3), curve(plain, batches, 3), 1e-6)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("family", ON_GPU)
@pytest.mark.parametrize("how", ["plain", "together", "channels_last", "bf16", "penalties", "accumulate"])
def test_replayed_steps_equal_eager_ones_on_a_gpu(family: str, how: str, tmp_path: Path, exact: None) -> None:
    changes: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if how == "together":
        if family not in ("cyclegan", "ugatit"):
            pytest.skip("has nothing to pass together")
        changes["together"] = True
    elif how == "bf16":
        changes["precision"] = "bf16"
    elif how == "accumulate":
        changes["accumulate"] = 2
    elif how == "penalties":
        changes |= {"batch": 2, "clip_grad": 5.0}
        options["penalties"] = Penalties(r1=1.0)  # gp draws, and draws otherwise within a graph
    else:
        options["channels_last"] = how == "channels_last"
    recipe = on_gpu(family, tmp_path, **changes)
    (plain, batches), (fast, _) = start(recipe, "cuda", **options), start(recipe, "cuda", cuda_graph=True, **options)
    before = first_replay(fast)
    assert_same_curve(curve(plain, batches, before), curve(fast, batches, before), 5e-3 if how == "bf16" else 1e-3)
    take_over(plain, fast)
    assert_same_curve(curve(plain, batches, 6), curve(fast, batches, 6), 5e-3 if how == "bf16" else 1e-3)
    assert plain.pools.keys() == fast.pools.keys()
    for name, pool in plain.pools.items():  # the same pictures were drawn
        for mine, theirs in zip(pool.state_dict()["images"], fast.pools[name].state_dict()["images"], strict=True):
            assert (mine.float() - theirs.float()).abs().mean() < (0.2 if how == "bf16" else 0.1)
        assert torch.equal(pool.state_dict()["generator"], fast.pools[name].state_dict()["generator"])


@pytest.mark.needs_cuda
@pytest.mark.parametrize("family", ON_GPU)
def test_dropout_and_gradient_penalties_draw_anew_in_each_replay(family: str, tmp_path: Path) -> None:
    """With the learning rate at 0 and one batch, only what is drawn tells steps apart."""
    changes = {"d_every": 1} if family == "discogan" else {"dropout": 0.5} if family != "ugatit" else {}
    recipe = on_gpu(family, tmp_path, lr=0.0, **changes)
    training, batches = start(recipe, "cuda", cuda_graph=True, penalties=Penalties(gp=10.0))
    batch = batches.load(0)
    seen = []
    for _ in range(EAGER + 6):
        training.step(*(upload(side, training.fabric.device) for side in batch))
        seen.append({name: value for name, value in training.losses.take().items() if name.endswith("_gp")})
    assert all(len({round(each[name], 4) for each in seen[EAGER:]}) > 2 for name in seen[0])


@pytest.mark.needs_cuda
@pytest.mark.parametrize("family", ON_GPU)
def test_resume_sampling_and_rollback_on_a_gpu(family: str, tmp_path: Path, exact: None) -> None:
    recipe = on_gpu(family, tmp_path / "data")
    training, batches = start(recipe, "cuda", cuda_graph=True)
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run", dataclasses.replace(recipe, sample_every=4), training, batches.data, total=1000)
    for _ in range(12):
        advance(training, batches, 1)
        run.after_step()
    run.save()
    after = curve(training, batches, 8)
    restore(training, tmp_path / "run")  # as a rollback does
    again = curve(training, batches, 8)
    resumed, _ = start(recipe, "cuda", cuda_graph=True)
    restore(resumed, tmp_path / "run")
    eager, _ = start(recipe, "cuda")
    restore(eager, tmp_path / "run")
    run.close()
    for other in (again, curve(resumed, batches, 8), curve(eager, batches, 8)):
        assert_same_curve(after, other)


@pytest.mark.slow
@pytest.mark.needs_cuda
def test_compiled_networks_are_captured_too(tmp_path: Path, exact: None) -> None:
    recipe = on_gpu("cyclegan", tmp_path)
    (plain, batches), (fast, _) = start(recipe, "cuda"), start(recipe, "cuda", compile="default", cuda_graph=True)
    assert_same_curve(curve(plain, batches, 8), curve(fast, batches, 8))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("family", ON_GPU)
def test_a_replayed_step_never_waits_for_the_gpu(family: str, tmp_path: Path) -> None:
    training, batches = start(on_gpu(family, tmp_path), "cuda", cuda_graph=True)
    advance(training, batches, 12)
    a, b = (upload(side, training.fabric.device) for side in batches.load(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            training.step(a, b)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.needs_cuda
def test_a_replayed_step_is_faster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = on_gpu("cyclegan", tmp_path)
    seconds = []
    for graph in (False, True):
        training, batches = start(recipe, "cuda", cuda_graph=graph)
        advance(training, batches, 12)
        a, b = (upload(side, training.fabric.device) for side in batches.load(0))
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(30):
            training.step(a, b)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    with capsys.disabled():
        print(f"\na replayed step of a small CycleGAN is {seconds[0] / seconds[1]:.1f} times as fast")
    assert seconds[1] < seconds[0]


@pytest.mark.needs_cuda
def test_the_capture_is_the_one_that_trains() -> None:
    assert step_module.CudaCapture is CudaCapture
