"""A family of a few dozen weights without pairs: pools, two ways, and D in each third step only."""

from __future__ import annotations

from dataclasses import dataclass

from gantrt_training.family import Family, Phase, SizeRule, adam
from gantrt_training.pool import ImagePool
from torch import nn


@dataclass(frozen=True)
class Config:
    channels_a: int = 1
    channels_b: int = 1
    size: int = 8
    batch: int = 2
    epochs: int = 3
    lr: float = 1e-3
    pool_size: int = 3


class TinyUnpaired(Family):
    name = "tiny_unpaired"
    paper = "none"
    paired = False
    Config = Config
    presets = {"paper": {}}  # noqa: RUF012
    generators = {"a2b": "g_ab", "b2a": "g_ba"}  # noqa: RUF012

    def build(self, config):
        a, b = config.channels_a, config.channels_b
        return nn.ModuleDict(
            {
                "g_ab": nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.Tanh()),
                "g_ba": nn.Sequential(nn.Conv2d(b, a, 3, padding=1), nn.Tanh()),
                "d_a": nn.Conv2d(a, 1, 4),
                "d_b": nn.Conv2d(b, 1, 4),
            }
        )

    def forward(self, nets, batch, config):
        fake_b, fake_a = nets["g_ab"](batch["a"]), nets["g_ba"](batch["b"])
        return {"fake_b": fake_b, "fake_a": fake_a, "rec_a": nets["g_ba"](fake_b), "rec_b": nets["g_ab"](fake_a)}

    def pools(self, config):
        return {side: ImagePool(config.pool_size, seed) for seed, side in enumerate("ab")}

    def phases(self, config, pools):
        def g_terms(nets, batch, made):
            adversarial = {f"g_adv_{s}": (nets[f"d_{s}"](made[f"fake_{s}"]) - 1).square().mean() for s in "ab"}
            return adversarial | {f"g_rec_{s}": (made[f"rec_{s}"] - batch[s]).abs().mean() for s in "ab"}

        def d_terms(nets, batch, made):
            real = {f"d_{s}_real": (nets[f"d_{s}"](batch[s]) - 1).square().mean() for s in "ab"}
            fakes = {s: pools[s].query(made[f"fake_{s}"]) for s in "ab"}
            return real | {f"d_{s}_fake": nets[f"d_{s}"](fakes[s]).square().mean() for s in "ab"}

        return (
            Phase("g", ("g_ab", "g_ba"), g_terms, due=lambda step: step % 3 != 0),
            Phase("d", ("d_a", "d_b"), d_terms, due=lambda step: step % 3 == 0),
        )

    def optimizers(self, nets, config):
        return {
            "g": adam(nets, ("g_ab", "g_ba"), config.lr, (0.5, 0.999)),
            "d": adam(nets, ("d_a", "d_b"), config.lr, (0.5, 0.999)),
        }

    def lr_factor(self, config, step, steps_per_epoch):
        return 1.0

    def size_rule(self, config):
        return SizeRule(1)


FAMILY = TinyUnpaired()
