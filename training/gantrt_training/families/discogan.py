"""DiscoGAN: two domains without pairs, at 64 pixels; reconstruction makes each translation one to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from gantrt.errors import UsageError
from torch import nn
from torch.optim import Optimizer

from ..family import Batch, Family, Made, Phase, SizeRule, Terms, adam
from ..losses import Gan, adversarial, feature_matching, l2
from ..nets.conv import Doubling
from ..nets.disco import DiscoDiscriminator, DiscoGenerator
from ..pool import ImagePool
from ..schedules import linear_to_zero
from ..sizes import Size, height_width


@dataclass(frozen=True)
class DiscoGANConfig:
    """The authors' numbers for edges to handbags and the like (their image_translation.py).

    The authors see pictures in BGR and [0, 1]. Ours are RGB in [-1, 1]: the networks map to [0, 1] and back, and the
    reconstruction error is taken in [0, 1]. The order of the channels makes no difference to a training.
    """

    channels_a: int = 3  # of the pictures of domain A
    channels_b: int = 3  # of the pictures of domain B
    size: Size = 64  # training crop: pixels, or HxW; the shorter side 4 times a power of two, at least 16
    load_scale: float = 1.0  # pictures are resized to size times this, then cropped at random
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"  # how they are resized
    flip: bool = False  # mirror at random
    max_pictures: int = 0  # of each side and epoch; 0: all
    batch: int = 64  # pictures of each side in a step
    epochs: int = 5000  # in all; 0: `iterations` says how long
    iterations: int = 0  # in all, at a constant learning rate
    constant_epochs: int = 5000  # at the base learning rate; over the rest it falls linearly
    lr: float = 2e-4  # base learning rate
    beta1: float = 0.5  # Adam's decay of the mean gradient
    beta2: float = 0.999  # Adam's decay of the mean squared gradient
    weight_decay: float = 1e-5  # L2, on everything
    d_weight_decay: float | None = None  # on the discriminators; none: weight_decay
    ngf: int = 64  # width of the generators
    ndf: int = 64  # width of the discriminators
    bottleneck: int = 0  # channels of a 1x1 code between encoder and decoder; 0: none
    upsample: Doubling = "transpose"  # resize: nearest neighbour and a convolution, free of checkerboards
    unit_range: bool = True  # inside, networks work in [0, 1] with a sigmoid; else in [-1, 1] with tanh
    gan: Gan = "bce"  # bce, lsgan, or wgan with gp=10
    adv_weight: float = 0.1  # of the adversarial losses
    fm_weight: float = 0.9  # of feature matching
    rec_weight: float = 1.0  # of the squared distance between a picture and what came back
    rec_rate: float = 0.5  # r: reconstruction counts r, all else 1 - r; 0: each counts as much as its weight says
    rec_rate_start: float = 0.01  # r at the beginning
    curriculum_steps: int = 10_000  # how long that is
    d_first: bool = False  # within a step the discriminators learn before the generators
    d_every: int = 3  # the discriminators learn in each third step, the generators in the others; 1: all in each step
    pool_size: int = 0  # made pictures that each discriminator may see again


class DiscoGAN(Family):
    """Kim et al. 2017, eq. 3 to 8; feature matching and the curriculum are the authors' code's."""

    name = "discogan"
    paper = "Kim et al. 2017, arXiv:1703.05192"
    paired = False
    Config = DiscoGANConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fixed": {"d_every": 1},  # no step throws half of its forward pass away
        "fast": {  # both learn in each step, a hundredth of the epochs or less
            "d_every": 1,
            "epochs": 50,
            "constant_epochs": 25,
            "max_pictures": 20_000,
            "curriculum_steps": 1000,
        },
        "carpedm20": {  # his PyTorch version: tanh, D before G in each step, no feature matching
            "batch": 200,
            "epochs": 0,
            "iterations": 500_000,
            "weight_decay": 0.0,
            "d_weight_decay": 5e-5,  # his is 1e-4 on a loss that is not halved: to Adam the same
            "unit_range": False,
            "adv_weight": 1.0,
            "fm_weight": 0.0,
            "rec_rate": 0.0,
            "rec_rate_start": 0.0,
            "curriculum_steps": 0,
            "d_every": 1,
            "d_first": True,
        },
        "book": {  # the book chapter's simpler variant: both learn in each step, no feature matching, no curriculum
            "epochs": 200,
            "constant_epochs": 10,
            "max_pictures": 10_000,
            "beta2": 0.99,
            "weight_decay": 0.0,
            "bottleneck": 100,
            "unit_range": False,
            "adv_weight": 1.0,
            "fm_weight": 0.0,
            "rec_rate": 0.0,
            "rec_rate_start": 0.0,
            "curriculum_steps": 0,
            "d_every": 1,
            "pool_size": 50,  # the book has a pool but does not say how large
        },
    }
    surroundings: ClassVar[dict[str, dict[str, Any]]] = {"fast": {"precision": "bf16"}}
    generators: ClassVar[dict[str, str]] = {"a2b": "g_ab", "b2a": "g_ba"}

    def build(self, config: DiscoGANConfig) -> nn.ModuleDict:
        if config.bottleneck and config.batch == 1:
            raise UsageError("discogan: a 1x1 bottleneck cannot be normalised over a batch of 1; set batch=2 or more")
        a, b, downs = config.channels_a, config.channels_b, _downs(config)
        return nn.ModuleDict(
            {
                "g_ab": _generator(config, a, b),
                "g_ba": _generator(config, b, a),
                "d_a": DiscoDiscriminator(a, ndf=config.ndf, downs=downs, unit_range=config.unit_range),
                "d_b": DiscoDiscriminator(b, ndf=config.ndf, downs=downs, unit_range=config.unit_range),
            }
        )

    def forward(self, nets: nn.ModuleDict, batch: Batch, config: DiscoGANConfig) -> Made:
        made: Made = {}
        made["fake_b"] = nets["g_ab"](batch["a"])
        made["fake_a"] = nets["g_ba"](batch["b"])
        made["rec_a"] = nets["g_ba"](made["fake_b"])
        made["rec_b"] = nets["g_ab"](made["fake_a"])
        return made

    def pools(self, config: DiscoGANConfig) -> dict[str, ImagePool]:
        return {"fake_a": ImagePool(config.pool_size, seed=0), "fake_b": ImagePool(config.pool_size, seed=1)}

    def phases(self, config: DiscoGANConfig, pools: Mapping[str, ImagePool]) -> tuple[Phase, ...]:
        """The generators' two phases differ in the rate r: one before the curriculum ends, one after."""
        generators, every, ends = ("g_ab", "g_ba"), config.d_every, config.curriculum_steps

        def g_due(step: int) -> bool:
            return every == 1 or step % every != 0

        start = partial(_g_terms, config, config.rec_rate_start)
        rest = partial(_g_terms, config, config.rec_rate)
        generate = (
            Phase("g", generators, start, due=lambda step: g_due(step) and step < ends),
            Phase("g", generators, rest, due=lambda step: g_due(step) and step >= ends),
        )
        judge = Phase("d", ("d_a", "d_b"), partial(_d_terms, config, pools), due=lambda step: step % every == 0)
        return (judge, *generate) if config.d_first else (*generate, judge)

    def optimizers(self, nets: nn.ModuleDict, config: DiscoGANConfig) -> dict[str, Optimizer]:
        betas, decay = (config.beta1, config.beta2), config.weight_decay
        d_decay = decay if config.d_weight_decay is None else config.d_weight_decay
        return {
            "g": adam(nets, ("g_ab", "g_ba"), config.lr, betas, decay),
            "d": adam(nets, ("d_a", "d_b"), config.lr, betas, d_decay),
        }

    def total_steps(self, config: DiscoGANConfig, steps_per_epoch: int) -> int:
        return config.epochs * steps_per_epoch or config.iterations

    def lr_factor(self, config: DiscoGANConfig, step: int, steps_per_epoch: int) -> float:
        if not config.epochs:
            return 1.0
        return linear_to_zero(step // steps_per_epoch, config.constant_epochs, config.epochs)

    def size_rule(self, config: DiscoGANConfig) -> SizeRule:
        return SizeRule(min(height_width(config.size)) if config.bottleneck else 2 ** _downs(config))

    def scalars(self, terms: Terms) -> Terms:
        """The book's names: g_loss_a2b, g_loss_b2a, and da_loss, da_loss_real, da_loss_fake, likewise for db.

        A judge's two halves are shown unweighted: undecided, each is log 2 = 0.69.
        """
        shown: Terms = {}
        if "g_adv_ab" in terms:
            for direction, net, domain in (("a2b", "ab", "a"), ("b2a", "ba", "b")):
                parts = (f"g_adv_{net}", f"g_fm_{net}", f"g_rec_{domain}")
                shown[f"g_loss_{direction}"] = torch.stack([terms[part] for part in parts if part in terms]).sum()
        if "d_a_real" in terms:
            for domain in ("a", "b"):
                real, fake = terms[f"d_{domain}_real"], terms[f"d_{domain}_fake"]
                shown |= {
                    f"d{domain}_loss": real + fake,
                    f"d{domain}_loss_real": 2 * real,
                    f"d{domain}_loss_fake": 2 * fake,
                }
        return shown


def _downs(config: DiscoGANConfig) -> int:
    """Halvings that leave 4 pixels of the shorter side."""
    shorter = min(height_width(config.size))
    downs = shorter.bit_length() - 3
    if downs < 2 or shorter != 4 * 2**downs:
        raise UsageError(f"discogan: the shorter side of size must be 16, 32, 64, 128, ..., got {config.size}")
    return downs


def _generator(config: DiscoGANConfig, in_channels: int, out_channels: int) -> DiscoGenerator:
    return DiscoGenerator(
        in_channels,
        out_channels,
        ngf=config.ngf,
        downs=_downs(config),
        bottleneck=config.bottleneck,
        unit_range=config.unit_range,
        upsample=config.upsample,
    )


def _g_terms(config: DiscoGANConfig, rate: float, nets: nn.ModuleDict, batch: Batch, made: Made) -> Terms:
    rest, reconstruction = (1 - rate, rate) if rate else (1.0, 1.0)
    reconstruction *= config.rec_weight * (
        0.25 if config.unit_range else 1.0
    )  # half the range, a quarter of its square
    terms: Terms = {}
    for net, domain in (("ab", "b"), ("ba", "a")):
        judge = nets[f"d_{domain}"]
        real = judge(batch[domain])[1] if config.fm_weight else None
        logits, features = judge(made[f"fake_{domain}"])
        terms[f"g_adv_{net}"] = rest * config.adv_weight * adversarial(logits, 1, config.gan)
        if real is not None:
            terms[f"g_fm_{net}"] = rest * config.fm_weight * feature_matching(real, features)
        terms[f"g_rec_{domain}"] = reconstruction * l2(made[f"rec_{domain}"], batch[domain])
    return terms


def _d_terms(
    config: DiscoGANConfig, pools: Mapping[str, ImagePool], nets: nn.ModuleDict, batch: Batch, made: Made
) -> Terms:
    terms: Terms = {}
    for domain in ("a", "b"):
        judge = nets[f"d_{domain}"]
        fake = pools[f"fake_{domain}"].query(made[f"fake_{domain}"])
        terms[f"d_{domain}_real"] = adversarial(judge(batch[domain])[0], 1, config.gan) / 2
        terms[f"d_{domain}_fake"] = adversarial(judge(fake)[0], 0, config.gan) / 2
    return terms


FAMILY = DiscoGAN()
