"""Compiled networks and channels-last features train as plain ones do."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from gantrt.errors import UsageError
from gantrt_training.data import Batches, Data
from gantrt_training.devices import open_fabric
from gantrt_training.penalties import Penalties
from gantrt_training.randomness import seed_everything
from gantrt_training.recipe import Recipe, make_recipe
from gantrt_training.step import Training, upload
from process_of_two import gradients, recipe
from tiny_pictures import make_pairs, make_sides

pytestmark = pytest.mark.usefixtures("tiny_families")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    make_pairs(tmp_path / "pairs")
    make_sides(tmp_path / "sides")
    return tmp_path


def start(made: Recipe, device: str = "cpu", **how: Any) -> tuple[Training, Batches]:
    family, config = made.load_family(), made.config
    data = Data(Path(made.data), (config.channels_a, config.channels_b), made.preparation(), paired=family.paired)
    batches = Batches(data, config.batch, 0)
    seed_everything(0)
    return Training(family, config, batches.steps_per_epoch, open_fabric(device, "fp32"), **how), batches


def curve(training: Training, batches: Batches, steps: int) -> list[dict[str, float]]:
    seen = []
    for step in range(steps):
        training.step(*(upload(side, training.fabric.device) for side in batches.load(step)))
        seen.append(training.losses.take())
    return seen


def assert_same_curve(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5, abs=1e-6)
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-3, abs=2e-5)


@pytest.mark.parametrize("family", ["pix2pix", "cyclegan", "discogan", "ugatit"])
def test_channels_last_trains_as_ever(family: str, pictures: Path) -> None:
    made = recipe(pictures, family, **({"batch": 2, "d_every": 1} if family == "discogan" else {"batch": 1}))
    plain, last = start(made), start(made, channels_last=True)
    assert_same_curve(curve(*plain, 1), curve(*last, 1))
    one, other = gradients(plain[0]), gradients(last[0])
    for net in plain[0].nets:
        largest = max(float(g.abs().max()) for name, g in one.items() if name.startswith(f"{net}."))
        for name in one:
            if name.startswith(f"{net}."):
                torch.testing.assert_close(other[name], one[name], rtol=1e-3, atol=1e-4 * largest, msg=name)
    weight = next(p for p in last[0].nets.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("family", ["tiny_unpaired", "cyclegan"])
def test_compiled_networks_train_as_plain_ones(family: str, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracing and our calls of it; the code generator is torch's own affair, and slow."""
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda net, mode, dynamic: traced(net, dynamic=dynamic))
    made = recipe(pictures, family, batch=2)
    plain, fast = start(made), start(made, compile="default")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert_same_curve(curve(*plain, 4), curve(*fast, 4))
    assert plain[0].nets.state_dict().keys() == fast[0].nets.state_dict().keys()
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled >= 4
    assert not torch._dynamo.utils.counters["graph_break"]
    curve(*fast, 6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled  # all variants were met within four steps
    torch._dynamo.reset()


@pytest.mark.slow
def test_the_code_generator_s_networks_train_as_plain_ones(pictures: Path) -> None:
    made = recipe(pictures, "tiny_unpaired", batch=2)
    plain, fast = start(made), start(made, compile="default")
    assert_same_curve(curve(*plain, 4), curve(*fast, 4))


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="compile=fast: must be one of none, default, reduce-overhead"):
        make_recipe("cyclegan", "x", overrides={"compile": "fast"})


def test_penalties_and_compiled_judges_exclude_each_other(pictures: Path) -> None:
    with pytest.raises(UsageError, match="compiled ones cannot; set compile=none"):
        start(recipe(pictures, "cyclegan"), penalties=Penalties(r1=1.0), compile="default")


@pytest.mark.needs_cuda
@pytest.mark.parametrize("family", ["cyclegan", "ugatit"])
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_networks_train_as_plain_ones_on_a_gpu(family: str, mode: str, pictures: Path) -> None:
    """reduce-overhead replays CUDA graphs: what one pass made must outlive the next."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    made = recipe(pictures, family, batch=1)
    plain, fast = start(made, "cuda"), start(made, "cuda", compile=mode)
    assert_same_curve(curve(*plain, 5), curve(*fast, 5))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("family", ["pix2pix", "cyclegan", "discogan", "ugatit"])
def test_a_step_never_waits_for_the_gpu(family: str, pictures: Path) -> None:
    training, batches = start(recipe(pictures, family, batch=2), "cuda")
    curve(training, batches, 2)
    a, b = (upload(side, training.fabric.device) for side in batches.load(2))
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.step(a, b)
    finally:
        torch.cuda.set_sync_debug_mode("default")
