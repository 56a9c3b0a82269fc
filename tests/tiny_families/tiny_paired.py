"""A family of a few hundred weights for pairs: D before G, BatchNorm, dropout, a step clipped afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gantrt_training.family import Family, Phase, SizeRule, adam
from torch import nn


@dataclass(frozen=True)
class Config:
    channels_a: int = 3  # of the pictures given
    channels_b: int = 1
    size: int = 8
    load_scale: float = 1.25
    flip: bool = True
    batch: int = 2
    epochs: int = 2
    lr: float = 2e-3
    dropout: float = 0.5
    width: int = 4


class TinyPaired(Family):
    name = "tiny_paired"
    paper = "none"
    paired = True
    Config = Config
    presets = {"paper": {}, "plain": {"dropout": 0.0}}  # noqa: RUF012
    generators = {"a2b": "g_ab"}  # noqa: RUF012

    def build(self, config):
        g = nn.Sequential(
            nn.Conv2d(config.channels_a, config.width, 3, padding=1),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Conv2d(config.width, config.channels_b, 3, padding=1),
            nn.Tanh(),
        )
        return nn.ModuleDict({"g_ab": g, "d_b": nn.Conv2d(config.channels_a + config.channels_b, 1, 4)})

    def forward(self, nets, batch, config):
        return {"fake_b": nets["g_ab"](batch["a"])}

    def phases(self, config, pools):
        def judge(nets, batch, b):
            return nets["d_b"](torch.cat([batch["a"], b], 1))

        def d_terms(nets, batch, made):
            return {
                "d_real": (judge(nets, batch, batch["b"]) - 1).square().mean() / 2,
                "d_fake": judge(nets, batch, made["fake_b"].detach()).square().mean() / 2,
            }

        def g_terms(nets, batch, made):
            return {
                "g_adv": (judge(nets, batch, made["fake_b"]) - 1).square().mean(),
                "g_l1": 10 * (made["fake_b"] - batch["b"]).abs().mean(),
            }

        def clip(nets):
            with torch.no_grad():
                nets["g_ab"][0].bias.clamp_(-0.01, 0.01)

        return Phase("d", ("d_b",), d_terms), Phase("g", ("g_ab",), g_terms, after=clip)

    def optimizers(self, nets, config):
        return {name: adam(nets, (net,), config.lr, (0.5, 0.999)) for name, net in (("d", "d_b"), ("g", "g_ab"))}

    def lr_factor(self, config, step, steps_per_epoch):
        return 1 - step / (config.epochs * steps_per_epoch)

    def size_rule(self, config):
        return SizeRule(4)

    def scalars(self, terms):
        return {"d_real_unweighted": 2 * terms["d_real"]} if "d_real" in terms else {}


FAMILY = TinyPaired()
