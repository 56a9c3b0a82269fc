"""The families: their contract, and each paper's losses, order of updates and schedule."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gantrt.errors import UsageError
from gantrt_training.families.discogan import FAMILY as DISCOGAN
from gantrt_training.families.ugatit import FAMILY as UGATIT
from gantrt_training.families.ugatit import clip_rho
from gantrt_training.family import Batch, Family, SizeRule, Terms, list_families, load_family, make_config
from gantrt_training.nets.norm import NormAct
from torch import Tensor, nn
from torch.optim import Optimizer

TINY = {"ngf": 4, "ndf": 4, "size": 32, "batch": 2}
PRESETS = [(name, preset) for name in list_families() for preset in load_family(name).presets]
each_family = pytest.mark.parametrize("name", list_families())
each_preset = pytest.mark.parametrize(("name", "preset"), PRESETS)


def tiny(name: str, preset: str = "paper", **changes: Any) -> tuple[Family, Any]:
    family = load_family(name)
    return family, dataclasses.replace(family.Config(**family.presets[preset]), **{**TINY, **changes})


def pictures(config: Any, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        side: torch.rand(config.batch, channels, config.size, config.size, generator=generator) * 2 - 1
        for side, channels in (("a", config.channels_a), ("b", config.channels_b))
    }


class Trainee:
    """A family with all that a training needs, and the step of a trainer in its plainest form."""

    def __init__(self, family: Family, config: Any, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.family, self.config = family, config
        self.nets = family.build(config)
        self.pools = family.pools(config)
        self.phases = family.phases(config, self.pools)
        self.optimizers: dict[str, Optimizer] = family.optimizers(self.nets, config)

    def step(self, batch: Batch, step: int = 0) -> Terms:
        made = self.family.forward(self.nets, batch, self.config)
        seen: Terms = {}
        for phase in self.phases:
            if not phase.due(step):
                continue
            for name, net in self.nets.items():
                net.requires_grad_(name in phase.trains)
            terms = phase.terms(self.nets, batch, made)
            self.optimizers[phase.name].zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            self.optimizers[phase.name].step()
            phase.after(self.nets)
            seen |= terms
        self.nets.requires_grad_(True)
        return {name: term.detach() for name, term in seen.items()}


# The contract, for every family there is or will be -----------------------------------------------


@each_family
def test_a_family_says_what_it_is(name: str) -> None:
    family = load_family(name)
    assert family.name == name
    assert re.search(r"\d{4}, arXiv:\d{4}\.\d{5}$", family.paper)
    assert {"paper", "fixed", "fast"} <= set(family.presets)
    assert set(family.surroundings) <= set(family.presets)
    assert set(family.generators) <= {"a2b", "b2a"}
    fields = {field.name for field in dataclasses.fields(family.Config)}
    assert {"channels_a", "channels_b", "size", "batch", "epochs", "lr"} <= fields
    assert family.Config.__dataclass_params__.frozen


@each_family
def test_every_key_of_a_config_is_explained(name: str) -> None:
    source = inspect.getsource(load_family(name).Config)
    for field in dataclasses.fields(load_family(name).Config):
        assert re.search(rf"^    {field.name}: .+ = .+  # \S", source, re.MULTILINE), field.name


@each_preset
def test_two_steps_of_a_tiny_training_learn(name: str, preset: str) -> None:
    family, config = tiny(name, preset)
    trainee = Trainee(family, config)
    before = copy.deepcopy(trainee.nets.state_dict())
    terms: Terms = {}
    for step in range(2):
        terms |= trainee.step(pictures(config, step), step)
    assert all(term.isfinite() and term.shape == () for term in terms.values())
    for phase in trainee.phases:
        assert any(name.startswith(f"{phase.name}_") for name in terms)
    after = trainee.nets.state_dict()
    for net in trainee.nets:
        assert any(not torch.equal(before[key], after[key]) for key in after if key.startswith(f"{net}.")), net


@each_preset
def test_generators_run_once_per_step_whatever_the_phases(name: str, preset: str) -> None:
    """All phases judge the same pictures: the phases themselves never call a generator."""
    family, config = tiny(name, preset)
    trainee, calls, inside = Trainee(family, config), [0, 0], [0]
    for generator in family.generators.values():
        trainee.nets[generator].register_forward_hook(lambda *_: calls.__setitem__(inside[0], calls[inside[0]] + 1))
    made = family.forward(trainee.nets, pictures(config), config)
    inside[0] = 1
    for phase in trainee.phases:
        phase.terms(trainee.nets, pictures(config), made)
    wanted = {"pix2pix": 1, "discogan": 4, "ugatit": 6, "cyclegan": 4 if preset in ("mnist", "fast") else 6}
    assert calls == [wanted[name], 0]


@each_preset
def test_a_phase_touches_only_what_it_trains(name: str, preset: str) -> None:
    family, config = tiny(name, preset)
    trainee, batch = Trainee(family, config), pictures(config)
    made = family.forward(trainee.nets, batch, config)
    for phase in trainee.phases:
        for net_name, net in trainee.nets.items():
            net.requires_grad_(net_name in phase.trains)
        trainee.nets.zero_grad()
        torch.stack(list(phase.terms(trainee.nets, batch, made).values())).sum().backward(retain_graph=True)
        touched = {n for n, net in trainee.nets.items() if any(p.grad is not None for p in net.parameters())}
        assert touched == set(phase.trains)


@each_preset
def test_optimizers_hold_what_their_phases_train_and_nothing_else(name: str, preset: str) -> None:
    trainee = Trainee(*tiny(name, preset))
    assert set(trainee.optimizers) == {phase.name for phase in trainee.phases}
    for phase in trainee.phases:
        held = [p for group in trainee.optimizers[phase.name].param_groups for p in group["params"]]
        wanted = {id(p) for n in phase.trains for p in trainee.nets[n].parameters()}
        assert {id(p) for p in held} == wanted
        assert len(held) == len(wanted)


@each_preset
def test_generators_take_the_sizes_their_rule_promises(name: str, preset: str) -> None:
    family, config = tiny(name, preset)
    nets, rule = family.build(config).eval(), family.size_rule(config)
    height, width = rule.fixed or (2 * rule.multiple, 3 * rule.multiple)
    height, width = (size if size >= 16 else size * 4 for size in (height, width))
    for direction, generator in family.generators.items():
        channels = (config.channels_a, config.channels_b)[:: 1 if direction == "a2b" else -1]
        with torch.no_grad():
            image = family.image(nets[generator], torch.zeros(1, channels[0], height, width))
        assert image.shape == (1, channels[1], height, width)
        assert image.abs().max() <= 1


@each_preset
def test_made_holds_the_pictures_of_each_domain(name: str, preset: str) -> None:
    family, config = tiny(name, preset)
    batch = pictures(config)
    for key, value in family.forward(family.build(config), batch, config).items():
        what, domain = key.rsplit("_", 1)
        assert domain in ("a", "b")
        assert value.shape == (batch[domain].shape if what in ("fake", "rec", "idt") else (config.batch, 2))


@each_family
def test_channels_are_free(name: str) -> None:
    equal = name in {"cyclegan", "ugatit"}  # the identity loss
    family, config = tiny(name, "paper", channels_a=1, channels_b=1 if equal else 4)
    Trainee(family, config).step(pictures(config), 0)


def test_presets_and_overrides_make_a_config() -> None:
    config = make_config(load_family("cyclegan"), "mnist", {"ngf": "8", "norm": "batch"})
    assert (config.ngf, config.norm, config.channels_a) == (8, "batch", 1)
    with pytest.raises(UsageError, match="no preset 'papr'; there are paper"):
        make_config(load_family("cyclegan"), "papr", {})
    with pytest.raises(UsageError, match=r"no family 'stargan'; there are .*cyclegan"):
        load_family("stargan")


# What the papers minimise -------------------------------------------------------------------------


def logits(net: nn.Module, x: Tensor) -> Tensor:
    y = net(x)
    return y if isinstance(y, Tensor) else y[0]


def close(terms: Terms, wanted: dict[str, float]) -> None:
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(wanted, rel=1e-5)


def test_pix2pix_losses() -> None:
    """Isola et al. 2017, eq. 4, with the discriminator's loss halved: log D, and 100 |y - G(x)|."""
    family, config = tiny("pix2pix", norm="instance")
    trainee, batch = Trainee(family, config), pictures(config)
    made = family.forward(trainee.nets, batch, config)
    discriminate, generate = trainee.phases
    judge, fake = trainee.nets["d_b"], made["fake_b"]
    p_fake = torch.sigmoid(judge(torch.cat([batch["a"], fake], 1))).double()
    p_real = torch.sigmoid(judge(torch.cat([batch["a"], batch["b"]], 1))).double()
    close(
        discriminate.terms(trainee.nets, batch, made),
        {"d_fake": -(1 - p_fake).log().mean().item() / 2, "d_real": -p_real.log().mean().item() / 2},
    )
    close(
        generate.terms(trainee.nets, batch, made),
        {"g_adv": -p_fake.log().mean().item(), "g_l1": 100 * (fake - batch["b"]).abs().mean().item()},
    )


def test_cyclegan_losses() -> None:
    """Zhu et al. 2017, eq. 3 with least squares: cycle 10, identity 5, the discriminators' losses halved."""
    family, config = tiny("cyclegan")
    trainee, batch = Trainee(family, config), pictures(config)
    nets, made = trainee.nets, family.forward(trainee.nets, batch, config)
    generate, discriminate = trainee.phases
    l1 = {key: (made[key] - batch[key[-1]]).abs().mean().item() for key in ("rec_a", "rec_b", "idt_a", "idt_b")}
    close(
        generate.terms(nets, batch, made),
        {
            "g_adv_ab": (nets["d_b"](made["fake_b"]) - 1).square().mean().item(),
            "g_adv_ba": (nets["d_a"](made["fake_a"]) - 1).square().mean().item(),
            "g_cycle_a": 10 * l1["rec_a"],
            "g_cycle_b": 10 * l1["rec_b"],
            "g_identity_a": 5 * l1["idt_a"],
            "g_identity_b": 5 * l1["idt_b"],
        },
    )
    wanted = {}
    for domain in ("a", "b"):
        judge = nets[f"d_{domain}"]
        wanted[f"d_{domain}_real"] = (judge(batch[domain]) - 1).square().mean().item() / 2
        wanted[f"d_{domain}_fake"] = judge(made[f"fake_{domain}"]).square().mean().item() / 2
    close(discriminate.terms(nets, batch, made), wanted)


def test_cyclegan_translates_there_and_back_and_to_itself() -> None:
    family, config = tiny("cyclegan")
    nets, batch = family.build(config), pictures(config)
    made, g_ab, g_ba = family.forward(nets, batch, config), nets["g_ab"], nets["g_ba"]
    wanted = {"fake_b": g_ab(batch["a"]), "fake_a": g_ba(batch["b"])}
    wanted |= {"rec_a": g_ba(wanted["fake_b"]), "rec_b": g_ab(wanted["fake_a"])}
    wanted |= {"idt_b": g_ab(batch["b"]), "idt_a": g_ba(batch["a"])}
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cyclegan", {"lambda_identity": 0.5}),
        ("cyclegan", {"lambda_identity": 0.0}),
        ("ugatit", {"light": True, "n_blocks": 2}),
    ],
)
def test_what_passes_together_is_what_passes_alone(name: str, changes: dict[str, Any]) -> None:
    """In three passes instead of six or four: all that is made, all losses and all gradients, up to rounding."""
    family, config = tiny(name, batch=1, **changes)
    batch, seen = pictures(config), []
    for together in (False, True):
        one = dataclasses.replace(config, together=together)
        trainee, passes = Trainee(family, one), [0]
        for generator in family.generators.values():
            trainee.nets[generator].register_forward_hook(lambda *_, p=passes: p.__setitem__(0, p[0] + 1))
        made = family.forward(trainee.nets, batch, one)
        terms: Terms = {}
        for phase in trainee.phases:
            terms |= phase.terms(trainee.nets, batch, made)
        torch.stack(list(terms.values())).sum().backward()
        seen.append((made, terms, {k: p.grad for k, p in trainee.nets.named_parameters() if p.grad is not None}))
    assert passes == [3]
    for alone, as_one in zip(*seen, strict=True):
        assert alone.keys() == as_one.keys()
        largest = max(float(value.detach().abs().max()) for value in alone.values())
        for key, value in alone.items():
            torch.testing.assert_close(as_one[key], value, rtol=1e-4, atol=2e-5 * largest)


def test_pictures_of_two_sizes_pass_one_after_the_other() -> None:
    family, config = tiny("cyclegan", batch=1, together=True, n_blocks=1)
    nets, batch = family.build(config), pictures(config)
    batch["b"] = F.pad(batch["b"], (0, 8))
    made = family.forward(nets, batch, config)
    assert torch.equal(made["fake_b"], nets["g_ab"](batch["a"]))
    assert made["rec_b"].shape == batch["b"].shape


def test_cyclegan_s_discriminators_see_old_pictures() -> None:
    family, config = tiny("cyclegan", pool_size=2)
    trainee = Trainee(family, config)
    for step in range(12):
        trainee.step(pictures(config, step))
    assert [len(pool) for pool in trainee.pools.values()] == [2, 2]
    batch = pictures(config, 99)
    made = family.forward(trainee.nets, batch, config)
    draws = {trainee.phases[1].terms(trainee.nets, batch, made)["d_a_fake"].item() for _ in range(8)}
    assert len(draws) > 1


def test_discogan_book_losses() -> None:
    """loss_GABA = mean((G_BA(G_AB(a)) - a)^2) + BCE(D_B(G_AB(a)), 1); D_X = (BCE(real, 1) + BCE(fake, 0)) / 2."""
    family, config = tiny("discogan", "book", ndf=8)
    trainee, batch = Trainee(family, config), pictures(config)
    nets, made = trainee.nets, family.forward(trainee.nets, batch, config)
    first, generate, discriminate = trainee.phases
    assert not first.due(0)
    terms = generate.terms(nets, batch, made)
    p_b, p_a = (torch.sigmoid(logits(nets[f"d_{d}"], made[f"fake_{d}"])) for d in ("b", "a"))
    rec = {d: (made[f"rec_{d}"] - batch[d]).square().mean() for d in ("a", "b")}
    a2b, b2a = rec["a"] - p_b.log().mean(), rec["b"] - p_a.log().mean()
    close(family.scalars(terms), {"g_loss_a2b": a2b.item(), "g_loss_b2a": b2a.item()})
    assert torch.stack(list(terms.values())).sum().item() == pytest.approx((a2b + b2a).item(), rel=1e-5)

    terms = discriminate.terms(nets, batch, made)
    wanted = {}
    for d in ("a", "b"):
        real = -torch.sigmoid(logits(nets[f"d_{d}"], batch[d])).log().mean().item()
        fake = -(1 - torch.sigmoid(logits(nets[f"d_{d}"], made[f"fake_{d}"]))).log().mean().item()
        wanted |= {f"d{d}_loss": (real + fake) / 2, f"d{d}_loss_real": real, f"d{d}_loss_fake": fake}
    close(family.scalars(terms), wanted)
    total = torch.stack(list(terms.values())).sum().item()
    assert total == pytest.approx(wanted["da_loss"] + wanted["db_loss"], rel=1e-5)


@pytest.mark.parametrize(("step", "rate"), [(1, 0.01), (9_998, 0.01), (10_000, 0.5), (400_001, 0.5)])
def test_discogan_paper_losses(step: int, rate: float) -> None:
    """(0.1 BCE + 0.9 feature matching)(1 - r) + r L2, the L2 taken in [0, 1]; r = 0.01 for 10,000 iterations."""
    family, config = tiny("discogan", ndf=8)
    trainee, batch = Trainee(family, config), pictures(config)
    nets, made = trainee.nets, family.forward(trainee.nets, batch, config)
    (phase,) = (phase for phase in trainee.phases if phase.due(step))
    wanted = {}
    for net, d in (("ab", "b"), ("ba", "a")):
        _, real = nets[f"d_{d}"](batch[d])
        judged, fake = nets[f"d_{d}"](made[f"fake_{d}"])
        matching = sum((x.mean(0) - y.mean(0)).square().mean().item() for x, y in zip(real, fake, strict=True))
        wanted[f"g_adv_{net}"] = (1 - rate) * 0.1 * -torch.sigmoid(judged).log().mean().item()
        wanted[f"g_fm_{net}"] = (1 - rate) * 0.9 * matching
        unit = (made[f"rec_{d}"] + 1) / 2 - (batch[d] + 1) / 2
        wanted[f"g_rec_{d}"] = rate * unit.square().mean().item()
    close(phase.terms(nets, batch, made), wanted)


def test_discogan_alternates_as_the_authors_do() -> None:
    def due(preset: str, steps: range) -> list[str]:
        family, config = tiny("discogan", preset)
        phases = family.phases(config, family.pools(config))
        return ["".join(phase.name for phase in phases if phase.due(step)) for step in steps]

    assert due("paper", range(7)) == ["d", "g", "g", "d", "g", "g", "d"]
    assert due("paper", range(9_998, 10_003)) == ["g", "d", "g", "g", "d"]
    assert due("book", range(3)) == ["gd"] * 3
    assert due("fixed", range(9_999, 10_001)) == ["gd"] * 2


def test_discogan_scalars_have_the_book_s_names() -> None:
    trainee = Trainee(*tiny("discogan", "book"))
    terms = trainee.step(pictures(trainee.config))
    assert set(DISCOGAN.scalars(terms)) == {
        *("g_loss_a2b", "g_loss_b2a", "da_loss", "da_loss_real", "da_loss_fake"),
        *("db_loss", "db_loss_real", "db_loss_fake"),
    }
    undecided = {f"d_{d}_{what}": torch.tensor(math.log(2) / 2) for d in "ab" for what in ("real", "fake")}
    assert DISCOGAN.scalars(undecided)["db_loss_fake"].item() == pytest.approx(0.6931, abs=1e-4)
    assert DISCOGAN.scalars({}) == {}


# U-GAT-IT against its authors' step ---------------------------------------------------------------


class OfficialUGATITStep:
    """As published: all fakes made twice, the discriminators' loss goes back through the generators, none is frozen."""

    def __init__(self, nets: nn.ModuleDict, config: Any) -> None:
        self.nets = nets
        chain = itertools.chain.from_iterable
        g = chain(nets[name].parameters() for name in ("g_ab", "g_ba"))
        d = chain(nets[name].parameters() for name in ("d_a_global", "d_b_global", "d_a_local", "d_b_local"))
        options = {"lr": config.lr, "betas": (0.5, 0.999), "weight_decay": 0.0001}
        self.g_optim, self.d_optim = torch.optim.Adam(g, **options), torch.optim.Adam(d, **options)

    def step(self, real_a: Tensor, real_b: Tensor) -> None:
        self.discriminate(real_a, real_b)
        self.generate(real_a, real_b)
        for net in (self.nets["g_ab"], self.nets["g_ba"]):
            for module in net.modules():
                if isinstance(module, NormAct) and module.rho is not None:
                    module.rho.data = module.rho.data.clamp(0, 1)

    def discriminate(self, real_a: Tensor, real_b: Tensor) -> None:
        nets = self.nets
        self.d_optim.zero_grad()
        fake_b, _, _ = nets["g_ab"](real_a)
        fake_a, _, _ = nets["g_ba"](real_b)
        loss = torch.zeros(())
        for name, real, fake in (("d_a_global", real_a, fake_a), ("d_b_global", real_b, fake_b)):
            for judge in (nets[name], nets[name.replace("global", "local")]):
                real_logit, real_cam, _ = judge(real)
                fake_logit, fake_cam, _ = judge(fake)
                for positive, negative in ((real_logit, fake_logit), (real_cam, fake_cam)):
                    loss = loss + F.mse_loss(positive, torch.ones_like(positive))
                    loss = loss + F.mse_loss(negative, torch.zeros_like(negative))
        loss.backward()
        self.d_optim.step()

    def generate(self, real_a: Tensor, real_b: Tensor) -> None:
        nets, bce = self.nets, F.binary_cross_entropy_with_logits
        self.g_optim.zero_grad()
        fake_b, fake_b_cam, _ = nets["g_ab"](real_a)
        fake_a, fake_a_cam, _ = nets["g_ba"](real_b)
        fake_aba, _, _ = nets["g_ba"](fake_b)
        fake_bab, _, _ = nets["g_ab"](fake_a)
        fake_aa, fake_aa_cam, _ = nets["g_ba"](real_a)
        fake_bb, fake_bb_cam, _ = nets["g_ab"](real_b)
        loss = torch.zeros(())
        for name, fake in (
            ("d_a_global", fake_a),
            ("d_b_global", fake_b),
            ("d_a_local", fake_a),
            ("d_b_local", fake_b),
        ):
            for judged in nets[name](fake)[:2]:
                loss = loss + F.mse_loss(judged, torch.ones_like(judged))
        for made_cam, same_cam, rec, idt, real in (
            (fake_a_cam, fake_aa_cam, fake_aba, fake_aa, real_a),
            (fake_b_cam, fake_bb_cam, fake_bab, fake_bb, real_b),
        ):
            loss = loss + 10 * F.l1_loss(rec, real) + 10 * F.l1_loss(idt, real)
            loss = loss + 1000 * (bce(made_cam, torch.ones_like(made_cam)) + bce(same_cam, torch.zeros_like(same_cam)))
        loss.backward()
        self.g_optim.step()


def test_ugatit_s_step_is_the_official_one_bit_for_bit() -> None:
    """Fakes made once and discriminators frozen: less work, the same weights and power iterations after three steps."""
    family, config = tiny("ugatit", "light", batch=1, n_blocks=1)
    trainee = Trainee(family, config)
    for layer in trainee.nets["g_ab"].modules():
        if isinstance(layer, NormAct) and layer.rho is not None:
            layer.rho.data.fill_(0.99999)  # so that it is clipped
    official = OfficialUGATITStep(copy.deepcopy(trainee.nets), config)
    for step in range(3):
        batch = pictures(config, step)
        trainee.step(batch, step)
        official.step(batch["a"], batch["b"])
    ours, theirs = trainee.nets.state_dict(), official.nets.state_dict()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def test_ugatit_clips_rho_after_the_generators_step() -> None:
    family, config = tiny("ugatit", "light", n_blocks=1)
    nets = family.build(config)
    layer = nets["g_ba"].decoder[0].norm1
    layer.rho.data.copy_(torch.linspace(-1, 2, len(layer.rho)))
    clip_rho(nets)
    assert layer.rho.min() == 0
    assert layer.rho.max() == 1
    discriminate, generate = family.phases(config, {})
    assert generate.after is clip_rho
    assert discriminate.after is not clip_rho


def test_the_order_of_updates_is_each_paper_s() -> None:
    def order(name: str, preset: str) -> list[str]:
        family, config = tiny(name, preset)
        return [phase.name for phase in family.phases(config, family.pools(config)) if phase.due(1)]

    assert order("pix2pix", "paper") == ["d", "g"]
    assert order("cyclegan", "paper") == ["g", "d"]
    assert order("discogan", "book") == ["g", "d"]
    assert order("discogan", "carpedm20") == ["d", "g"]
    assert order("ugatit", "paper") == ["d", "g"]


# Schedules, sizes, mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_the_last_epoch_learns_nothing_in_the_paper_s_code_and_something_in_fixed(name: str) -> None:
    family = load_family(name)
    paper, fixed = (family.Config(**family.presets[preset]) for preset in ("paper", "fixed"))
    epochs = (0, 98, 99, 100, 198, 199)
    at = [[family.lr_factor(config, 7 * epoch + 6, 7) for epoch in epochs] for config in (paper, fixed)]
    assert at[0] == pytest.approx([1, 1, 100 / 101, 99 / 101, 1 / 101, 0])
    assert at[1] == pytest.approx([1, 1, 1, 100 / 101, 2 / 101, 1 / 101])
    assert family.total_steps(paper, 7) == 1400


def test_discogan_s_schedules() -> None:
    book, paper = (DISCOGAN.Config(**DISCOGAN.presets[preset]) for preset in ("book", "paper"))
    for epoch in range(200):
        wanted = 2e-4 if epoch < 10 else 2e-4 * (200 - epoch) / (200 - 10)
        assert book.lr * DISCOGAN.lr_factor(book, epoch * 156 + 3, 156) == pytest.approx(wanted)
    assert DISCOGAN.lr_factor(paper, 4999 * 10, 10) == 1.0


def test_carpedm20_s_discogan_counts_steps_at_a_constant_rate() -> None:
    preset = DISCOGAN.Config(**DISCOGAN.presets["carpedm20"])
    assert (preset.batch, preset.bottleneck, preset.unit_range) == (200, 0, False)
    assert DISCOGAN.total_steps(preset, 250) == 500_000
    assert DISCOGAN.lr_factor(preset, 499_999, 250) == 1.0
    assert DISCOGAN.total_steps(dataclasses.replace(preset, epochs=3), 250) == 750


def test_discogan_s_carpedm20_losses() -> None:
    """BCE and L2 at weight 1 each; the judges' half of what he minimises, with half of his L2 on their weights."""
    family, config = tiny("discogan", "carpedm20", ndf=8)
    trainee, batch = Trainee(family, config), pictures(config)
    nets, made = trainee.nets, family.forward(trainee.nets, batch, config)
    judge, first, generate = trainee.phases
    assert not first.due(0)
    wanted = {}
    for net, d in (("ab", "b"), ("ba", "a")):
        p = torch.sigmoid(logits(nets[f"d_{d}"], made[f"fake_{d}"]))
        wanted[f"g_adv_{net}"] = -p.log().mean().item()
        wanted[f"g_rec_{d}"] = (made[f"rec_{d}"] - batch[d]).square().mean().item()
    close(generate.terms(nets, batch, made), wanted)
    his = sum(
        F.binary_cross_entropy_with_logits(y, torch.full_like(y, target)).item()
        for d in "ab"
        for y, target in ((logits(nets[f"d_{d}"], batch[d]), 1.0), (logits(nets[f"d_{d}"], made[f"fake_{d}"]), 0.0))
    )
    assert sum(term.item() for term in judge.terms(nets, batch, made).values()) == pytest.approx(his / 2, rel=1e-5)


def test_ugatit_counts_iterations_and_decays_over_their_second_half() -> None:
    paper, fixed = (UGATIT.Config(**UGATIT.presets[preset]) for preset in ("paper", "fixed"))
    assert UGATIT.total_steps(paper, 3400) == 1_000_000
    steps = (0, 499_998, 499_999, 500_000, 749_999, 999_999)
    lr, official = paper.lr, []
    for step in range(1, 1_000_001):  # the published loop, counted from 1
        if step > 500_000:
            lr -= paper.lr / 500_000
        if step - 1 in steps:
            official.append(lr / paper.lr)
    assert [UGATIT.lr_factor(paper, step, 3400) for step in steps] == pytest.approx(official, abs=1e-6)
    assert UGATIT.lr_factor(paper, 999_999, 3400) == 0.0
    assert UGATIT.lr_factor(fixed, 999_999, 3400) == pytest.approx(2e-6)
    short = dataclasses.replace(fixed, epochs=4)
    assert UGATIT.total_steps(short, 10) == 40
    assert UGATIT.lr_factor(short, 30, 10) == pytest.approx(0.5)


def test_presets_hold_the_papers_numbers() -> None:
    def adam(name: str, preset: str, nets: str = "gd") -> tuple[float, ...]:
        family, config = tiny(name, preset)
        optimizers = family.optimizers(family.build(config), config)
        groups = [group for net in nets for group in optimizers[net].param_groups]
        (group,) = {(g["lr"], *g["betas"], g["weight_decay"]) for g in groups}
        return group

    assert adam("pix2pix", "paper") == (2e-4, 0.5, 0.999, 0)
    assert adam("cyclegan", "paper") == (2e-4, 0.5, 0.999, 0)
    assert adam("discogan", "paper") == (2e-4, 0.5, 0.999, 1e-5)
    assert adam("discogan", "book") == (2e-4, 0.5, 0.99, 0)
    assert [adam("discogan", "carpedm20", net) for net in "gd"] == [(2e-4, 0.5, 0.999, 0), (2e-4, 0.5, 0.999, 5e-5)]
    assert adam("ugatit", "paper") == (1e-4, 0.5, 0.999, 1e-4)


def test_size_rules() -> None:
    def rule(name: str, preset: str, **changes: Any) -> SizeRule:
        family = load_family(name)
        return family.size_rule(dataclasses.replace(family.Config(**family.presets[preset]), **changes))

    assert rule("pix2pix", "paper") == SizeRule(256)
    assert rule("pix2pix", "paper", size=128) == SizeRule(128)
    assert rule("pix2pix", "paper", size=512, downs=7) == SizeRule(128)
    assert rule("cyclegan", "paper") == SizeRule(4)
    assert rule("discogan", "paper") == SizeRule(16)
    assert rule("discogan", "book") == SizeRule(64)  # the 1x1 bottleneck needs 4x4 in front of it
    assert rule("ugatit", "light") == SizeRule(4)
    assert rule("ugatit", "paper") == SizeRule(4, (256, 256))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("pix2pix", {"size": 48}, "multiple of 32"),
        ("pix2pix", {"size": 64, "downs": 7}, "cannot be halved 7 times"),
        ("cyclegan", {"channels_b": 1}, "lambda_identity=0"),
        ("cyclegan", {"n_blocks": 0}, "at least 1"),
        ("cyclegan", {"norm": "batch", "together": True}, "BatchNorm would mix"),
        ("discogan", {"size": 48}, "size must be 16, 32, 64"),
        ("discogan", {"bottleneck": 100, "batch": 1}, "batch=2 or more"),
        ("ugatit", {"channels_b": 1}, "equal channels"),
        ("ugatit", {"n_dis": 7}, "at least 2\\^n_dis"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_way_out(name: str, changes: dict[str, Any], message: str) -> None:
    family, config = tiny(name, **changes)
    with pytest.raises(UsageError, match=message):
        family.build(config)


def test_a_batch_norm_trained_at_batch_1_keeps_to_each_picture_s_statistics() -> None:
    assert load_family("pix2pix").norm_mode(load_family("pix2pix").Config()) == "instance"
    assert DISCOGAN.norm_mode(DISCOGAN.Config()) == "running"
