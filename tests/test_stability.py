"""What keeps a training sane: going back from NaN, clipped gradients, smooth judges, doublings without checkers."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from gantrt.errors import UsageError
from gantrt_training import checkpoint
from gantrt_training.data import Batches
from gantrt_training.export import Request, export_generator
from gantrt_training.family import load_family
from gantrt_training.journal import NonFiniteLoss
from gantrt_training.losses import adversarial
from gantrt_training.nets.disco import DiscoGenerator
from gantrt_training.nets.resnet import ResNet
from gantrt_training.nets.unet import UNet
from gantrt_training.penalties import Penalties, with_penalties
from gantrt_training.step import Training
from gantrt_training.tracing import Source
from gantrt_training.trainer import train
from test_trainer import TINY, advance, assert_equal, start, tiny_recipe, weights
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("tiny_families")

# Back from NaN -------------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], *, once: bool = True) -> None:
    """Make a generator's weight NaN before these steps, the first time they come, or each time."""
    step, done = Training.step, set()

    def poisoned(self: Training, *batch: Tensor) -> None:
        if self.done in steps - (done if once else set()):
            done.add(self.done)
            with torch.no_grad():
                next(self.nets["g_ab"].parameters()).fill_(math.nan)
        step(self, *batch)

    monkeypatch.setattr(Training, "step", poisoned)


def orders_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    seen, load = [], Batches.load
    monkeypatch.setattr(Batches, "load", lambda self, step: seen.append((step, self.order)) or load(self, step))
    return seen


def test_a_training_rolls_back_from_nan_and_goes_on_in_another_order(tmp_path, monkeypatch, caplog) -> None:
    recipe = tiny_recipe("tiny_unpaired", tmp_path / "data", steps=12, checkpoint_every=4, on_nan="rollback")
    poison(monkeypatch, {6})
    seen = orders_seen(monkeypatch)
    last = train(recipe, tmp_path / "run", progress=False)
    assert checkpoint.load_run(last).step == 12
    assert all(value.isfinite().all() for value in checkpoint.load_run(last).nets.state_dict().values())
    assert "rolled back from step" in caplog.text
    assert "to 4, on with another order (1 of at most 3 times)" in caplog.text
    assert [step for step, order in seen if order == 1] == list(range(4, 12))
    logged = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged == [3, 6, 9, 12]


def test_the_other_order_is_another_one_and_resumes_exactly(tmp_path, monkeypatch) -> None:
    recipe = tiny_recipe("tiny_unpaired", tmp_path / "data", steps=12, checkpoint_every=2, on_nan="rollback")
    _, batches = start(recipe)
    first = [side.numpy().tobytes() for side in batches.load(4)]
    batches.reorder(1)
    assert [side.numpy().tobytes() for side in batches.load(4)] != first
    batches.reorder(0)
    assert [side.numpy().tobytes() for side in batches.load(4)] == first

    poison(monkeypatch, {5})
    whole = train(recipe, tmp_path / "whole", progress=False)
    poison(monkeypatch, {5})
    train(dataclasses.replace(recipe, steps=8), tmp_path / "cut", progress=False)
    resumed = train(recipe, tmp_path / "cut", resume=True, progress=False)
    assert_equal(*(dict(checkpoint.load_run(path).nets.state_dict()) for path in (whole, resumed)))


def test_rolling_back_ends_after_the_limit(tmp_path, monkeypatch) -> None:
    options = {"steps": 50, "checkpoint_every": 4, "on_nan": "rollback", "max_rollbacks": 2}
    recipe = tiny_recipe("tiny_paired", tmp_path / "data", **options)
    poison(monkeypatch, {6}, once=False)
    with pytest.raises(NonFiniteLoss, match=r"is nan at step 6; .*rolled back 2 times already \(max_rollbacks\)"):
        train(recipe, tmp_path / "run", progress=False)
    assert checkpoint.newest_resumable(tmp_path / "run") == checkpoint.weights_path(tmp_path / "run", 4)


def test_before_its_first_checkpoint_a_training_rolls_back_to_its_start(tmp_path, monkeypatch, caplog) -> None:
    recipe = tiny_recipe("tiny_paired", tmp_path / "data", steps=4, on_nan="rollback")
    poison(monkeypatch, {1})
    assert checkpoint.load_run(train(recipe, tmp_path / "run", progress=False)).step == 4
    assert "to 0, on with another order" in caplog.text


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch) -> None:
    """The last step's gradient may overflow while its loss is still a number."""
    recipe = tiny_recipe("tiny_paired", tmp_path / "data", steps=6, checkpoint_every=3)
    step = Training.step

    def overflowing(self: Training, *batch: Tensor) -> None:
        step(self, *batch)
        if self.done == 6:
            with torch.no_grad():
                self.nets["d_b"].bias.fill_(math.inf)

    monkeypatch.setattr(Training, "step", overflowing)
    with pytest.raises(NonFiniteLoss, match=r"d_b\.bias has values that are not finite after step 6"):
        train(recipe, tmp_path / "run", progress=False)
    assert [path.name for path in checkpoint.weights_in(tmp_path / "run")] == ["step_0000003.safetensors"]


# Clipped gradients ---------------------------------------------------------------------------------


def test_gradients_are_no_longer_than_asked_for(tmp_path, monkeypatch) -> None:
    training, batches = start(tiny_recipe("tiny_paired", tmp_path))
    training.clip_grad = 0.01
    lengths = []
    for optimizer in training.optimizers.values():
        held = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.register_step_pre_hook(
            lambda *_, held=held: lengths.append(torch.cat([p.grad.flatten() for p in held]).norm().item())
        )
    advance(training, batches, 3)
    assert len(lengths) == 6
    assert max(lengths) == pytest.approx(0.01, rel=1e-3)


def test_a_limit_that_is_never_reached_changes_nothing(tmp_path) -> None:
    recipe = tiny_recipe("tiny_unpaired", tmp_path)
    (free, batches), (clipped, _) = start(recipe), start(recipe)
    clipped.clip_grad = 1e6
    assert_equal(weights(advance(free, batches, 3)), weights(advance(clipped, batches, 3)))


# Penalties -----------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """D(x) = s/2 · mean over patches of x², whose gradient is s x / n."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.s / 2 * x.square()


def d_terms(penalties: Penalties, real: Tensor, made: Tensor) -> dict[str, Tensor]:
    family = load_family("tiny_unpaired")
    nets = nn.ModuleDict({"d_a": Quadratic(), "d_b": Quadratic(), "g_ab": nn.Identity(), "g_ba": nn.Identity()})
    plain = family.phases(family.Config(), {"a": Through(), "b": Through()})
    (phase,) = (p for p in with_penalties(family, family.Config(), plain, penalties) if p.name == "d")
    terms = phase.terms(nets, {"a": real, "b": real}, {"fake_a": made, "fake_b": made})
    sum(terms.values(), torch.zeros(())).backward()
    assert nets["d_a"].s.grad is not None
    return {name: term.detach() for name, term in terms.items()} | {"grad": nets["d_a"].s.grad}


class Through:
    def query(self, x: Tensor) -> Tensor:
        return x.detach()


def test_r1_is_half_gamma_times_the_squared_gradient_at_real_pictures() -> None:
    real, made = torch.randn(2, 4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    terms, without = d_terms(Penalties(r1=10), real, made), d_terms(Penalties(), real, made)
    wanted = 10 / 2 * (3 * real / 25).square().sum((1, 2, 3)).mean()
    assert terms["d_a_r1"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert (terms["grad"] - without["grad"]).item() == pytest.approx(2 * wanted.item() / 3, rel=1e-4)  # ∂/∂s of s²
    assert set(terms) - set(without) == {"d_a_r1", "d_b_r1"}


def test_gp_pulls_gradients_between_real_and_made_to_length_one() -> None:
    real = torch.full((3, 1, 5, 5), 0.7)
    terms = d_terms(Penalties(gp=10), real, real)  # between equal pictures lies that picture
    wanted = 10 * ((3 * real / 25).flatten(1).norm(dim=1) - 1).square().mean()
    assert terms["d_b_gp"].item() == pytest.approx(wanted.item(), rel=1e-5)
    with pytest.raises(UsageError, match="differ in size"):
        d_terms(Penalties(gp=10), real, real[..., :4])


@pytest.mark.parametrize("family", sorted(TINY))
def test_every_family_learns_under_penalties_and_resumes(family: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    recipe = (
        tiny_recipe(family, data, r1=1.0, gp=1.0, clip_grad=5.0, steps=4, d_every=1)
        if family == "discogan"
        else (tiny_recipe(family, data, r1=1.0, gp=1.0, clip_grad=5.0, steps=4))
    )
    whole = train(recipe, tmp_path / "whole", progress=False)
    train(dataclasses.replace(recipe, steps=2), tmp_path / "cut", progress=False)
    resumed = train(recipe, tmp_path / "cut", resume=True, progress=False)
    assert_equal(*(dict(checkpoint.load_run(path).nets.state_dict()) for path in (whole, resumed)))
    line = json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1])
    judges = [name for name in checkpoint.load_run(whole).nets if name.startswith("d_")]
    assert all(math.isfinite(line[f"{judge}_{kind}"]) for judge in judges for kind in ("r1", "gp"))


def test_wgan_is_the_difference_of_judgements_and_wants_its_penalty(tmp_path: Path) -> None:
    logits = torch.tensor([1.0, 4.0])
    assert (adversarial(logits, 1, "wgan").item(), adversarial(logits, 0, "wgan").item()) == (-2.5, 2.5)
    recipe = tiny_recipe("cyclegan", tmp_path / "data", gan="wgan", steps=2)
    with pytest.raises(UsageError, match="gan=wgan needs a judge that a penalty bounds; set gp=10"):
        train(recipe, tmp_path / "run", progress=False)
    train(dataclasses.replace(recipe, gp=10.0), tmp_path / "other", progress=False)


# Checkerboards -------------------------------------------------------------------------------------


def checkers(picture: Tensor) -> float:
    """How much the four kinds of pixels (even and odd rows, columns) differ on average, relative to all variation.

    picture  (N, C, H, W) of a plain input: whatever structure it has the network made up
    """
    inner = picture[..., 16:-16, 16:-16].double()
    kinds = torch.stack([inner[..., i::2, j::2].mean((-1, -2)) for i in (0, 1) for j in (0, 1)])
    return kinds.std(0, correction=0).mean().item()


GENERATORS: dict[str, Any] = {
    "unet": lambda how: UNet(ngf=8, downs=5, norm="instance", dropout=0.0, upsample=how),
    "resnet": lambda how: ResNet(ngf=8, n_blocks=1, upsample=how),
    "disco": lambda how: DiscoGenerator(ngf=8, downs=4, bottleneck=0, upsample=how),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_resized_convolutions_make_no_checkerboards_where_transposed_ones_do(name: str) -> None:
    """A plain picture through untrained networks: the mean over three of each, 96 pixels wide."""
    plain = torch.full((1, 3, 96, 96), 0.3)
    measured = {}
    for how in ("transpose", "resize"):
        values = []
        for seed in range(3):
            torch.manual_seed(seed)
            net = GENERATORS[name](how)
            for layer in net.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.normal_(layer.weight, 0, 0.2)
            with torch.no_grad():
                values.append(checkers(net.eval()(plain)))
        measured[how] = sum(values) / 3
    assert measured["transpose"] > 0.02
    assert measured["resize"] < measured["transpose"] / 20


@pytest.mark.parametrize(("name", "size"), [("pix2pix", 32), ("discogan", 16)])
def test_networks_with_resized_convolutions_export(name: str, size: int, tmp_path: Path) -> None:
    family = load_family(name)
    config = family.Config(size=size, ngf=4, ndf=4, upsample="resize")
    source = Source(family, config, family.build(config)["g_ab"])
    manifest = export_generator(source, tmp_path / "engine.onnx", Request(samples=1))
    assert manifest.parity["max_abs"] < 2e-4
