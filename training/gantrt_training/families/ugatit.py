"""U-GAT-IT: CycleGAN's losses, attention by class activation maps, and a norm that the picture itself tunes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from gantrt.errors import UsageError
from torch import Tensor, nn
from torch.optim import Optimizer

from ..family import Batch, Family, Made, Phase, SizeRule, Terms, adam, pass_together
from ..losses import adversarial, l1
from ..nets.norm import NormAct
from ..nets.ugatit import UGATITDiscriminator, UGATITGenerator
from ..pool import ImagePool
from ..schedules import linear_to_zero
from ..sizes import Size, height_width

GENERATORS = ("g_ab", "g_ba")
DISCRIMINATORS = ("d_a_global", "d_b_global", "d_a_local", "d_b_local")


@dataclass(frozen=True)
class UGATITConfig:
    """The paper's numbers, as in the authors' PyTorch code."""

    channels_a: int = 3  # of the pictures of domain A
    channels_b: int = 3  # the identity loss wants as many as channels_a
    size: Size = 256  # training crop: pixels, or HxW; the full generator takes no other
    load_scale: float = 286 / 256  # pictures are resized to size times this, then cropped at random
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"  # how they are resized
    flip: bool = True  # mirror at random
    batch: int = 1  # pictures of each side in a step
    epochs: int = 0  # 0: `iterations` says how long
    iterations: int = 1_000_000  # in all
    zero_last: bool = True  # the last iteration has learning rate 0, as in the authors' code
    lr: float = 1e-4  # over the second half of the iterations it falls linearly
    beta1: float = 0.5  # Adam's decay of the mean gradient
    beta2: float = 0.999  # Adam's decay of the mean squared gradient
    weight_decay: float = 1e-4  # L2, on everything
    light: bool = False  # gamma and beta from the features' means, not from all of them: 10.6 instead of 279 million
    ngf: int = 64  # width of the generators
    n_blocks: int = 4  # residual blocks on either side of the attention
    ndf: int = 64  # width of the discriminators
    n_dis: int = 0  # layers of the global discriminators, two less in the local ones; 0: 7, or what a small size takes
    adv_weight: float = 1.0  # of the adversarial losses
    cycle_weight: float = 10.0  # of the L1 distance between a picture and what came back
    identity_weight: float = 10.0  # of the L1 distance between a picture and its translation to its own domain
    cam_weight: float = 1000.0  # of the attention's cross entropies
    together: bool = False  # pictures that meet a generator at the same time pass it as one batch


class UGATIT(Family):
    """Kim et al. 2020, eq. 2 to 6: LSGAN on patches and on CAM logits, cycle, identity and CAM losses."""

    name = "ugatit"
    paper = "Kim et al. 2020, arXiv:1907.10830"
    paired = False
    Config = UGATITConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fixed": {"zero_last": False},
        "light": {"zero_last": False, "light": True},
        "fast": {  # the light generator, 400,000 pictures of each side instead of a million
            "zero_last": False,
            "light": True,
            "batch": 4,
            "iterations": 100_000,
        },
    }
    surroundings: ClassVar[dict[str, dict[str, Any]]] = {"fast": {"precision": "bf16"}}
    generators: ClassVar[dict[str, str]] = {"a2b": "g_ab", "b2a": "g_ba"}

    def build(self, config: UGATITConfig) -> nn.ModuleDict:
        if config.channels_a != config.channels_b:
            raise UsageError(
                f"ugatit: the identity loss needs equal channels, got {config.channels_a} and {config.channels_b}"
            )
        a, b = config.channels_a, config.channels_b
        n_global = _n_dis(config)
        n_local = max(3, n_global - 2)
        return nn.ModuleDict(
            {
                "g_ab": _generator(config, a, b),
                "g_ba": _generator(config, b, a),
                "d_a_global": UGATITDiscriminator(a, ndf=config.ndf, n_layers=n_global),
                "d_b_global": UGATITDiscriminator(b, ndf=config.ndf, n_layers=n_global),
                "d_a_local": UGATITDiscriminator(a, ndf=config.ndf, n_layers=n_local),
                "d_b_local": UGATITDiscriminator(b, ndf=config.ndf, n_layers=n_local),
            }
        )

    def forward(self, nets: nn.ModuleDict, batch: Batch, config: UGATITConfig) -> Made:
        g_ab, g_ba = nets["g_ab"], nets["g_ba"]
        made: Made = {}
        if config.together:  # the way back of A goes with the way there of B
            (fake_b, cam_fake_b, _), (idt_b, cam_idt_b, _) = pass_together(g_ab, [batch["a"], batch["b"]])
            (rec_a, _, _), (fake_a, cam_fake_a, _), (idt_a, cam_idt_a, _) = pass_together(
                g_ba, [fake_b, batch["b"], batch["a"]]
            )
            made |= {"fake_b": fake_b, "cam_fake_b": cam_fake_b, "fake_a": fake_a, "cam_fake_a": cam_fake_a}
            made |= {"rec_a": rec_a, "rec_b": g_ab(fake_a)[0]}
            return made | {"idt_a": idt_a, "cam_idt_a": cam_idt_a, "idt_b": idt_b, "cam_idt_b": cam_idt_b}
        made["fake_b"], made["cam_fake_b"], _ = g_ab(batch["a"])
        made["fake_a"], made["cam_fake_a"], _ = g_ba(batch["b"])
        made["rec_a"], _, _ = g_ba(made["fake_b"])
        made["rec_b"], _, _ = g_ab(made["fake_a"])
        made["idt_a"], made["cam_idt_a"], _ = g_ba(batch["a"])
        made["idt_b"], made["cam_idt_b"], _ = g_ab(batch["b"])
        return made

    def phases(self, config: UGATITConfig, pools: Mapping[str, ImagePool]) -> tuple[Phase, ...]:
        return (
            Phase("d", DISCRIMINATORS, partial(_d_terms, config)),
            Phase("g", GENERATORS, partial(_g_terms, config), after=clip_rho),
        )

    def optimizers(self, nets: nn.ModuleDict, config: UGATITConfig) -> dict[str, Optimizer]:
        betas = (config.beta1, config.beta2)
        return {
            "d": adam(nets, DISCRIMINATORS, config.lr, betas, config.weight_decay),
            "g": adam(nets, GENERATORS, config.lr, betas, config.weight_decay),
        }

    def total_steps(self, config: UGATITConfig, steps_per_epoch: int) -> int:
        return config.epochs * steps_per_epoch or config.iterations

    def lr_factor(self, config: UGATITConfig, step: int, steps_per_epoch: int) -> float:
        total = self.total_steps(config, steps_per_epoch)
        return linear_to_zero(step + config.zero_last, total // 2, total)

    def size_rule(self, config: UGATITConfig) -> SizeRule:
        return SizeRule(4, None if config.light else height_width(config.size))

    def image(self, generator: nn.Module, x: Tensor) -> Tensor:
        return generator(x)[0]  # type: ignore[no-any-return]


def _generator(config: UGATITConfig, in_channels: int, out_channels: int) -> UGATITGenerator:
    full_size = None if config.light else config.size
    return UGATITGenerator(in_channels, out_channels, ngf=config.ngf, n_blocks=config.n_blocks, full_size=full_size)


def _n_dis(config: UGATITConfig) -> int:
    """Layers of the global discriminators. The last one still needs 3x3: 1 more than fits after all the halvings."""
    size = height_width(config.size)
    most = min(size).bit_length() - 1
    n_dis = config.n_dis or min(7, most)
    if any(side % 4 for side in size) or not 3 <= n_dis <= most:
        raise UsageError(
            f"ugatit: size {config.size} with n_dis {n_dis}: size must be a multiple of 4 and at least 2^n_dis, "
            "n_dis at least 3"
        )
    return n_dis


def clip_rho(nets: nn.ModuleDict) -> None:
    """Keep each mixture of instance and layer statistics one: rho in [0, 1] (sec. 2.1.1)."""
    with torch.no_grad():
        for name in GENERATORS:
            for layer in nets[name].modules():
                if isinstance(layer, NormAct) and layer.rho is not None:
                    layer.rho.clamp_(0.0, 1.0)


def _d_terms(config: UGATITConfig, nets: nn.ModuleDict, batch: Batch, made: Made) -> Terms:
    """Real and made pictures before all four judges; each gives logits for its patches and for its attention."""
    terms: Terms = {}
    for name in DISCRIMINATORS:
        domain = name[2]
        real, real_cam, _ = nets[name](batch[domain])
        fake, fake_cam, _ = nets[name](made[f"fake_{domain}"].detach())
        terms[name] = config.adv_weight * (_lsgan(real, 1) + _lsgan(fake, 0))
        terms[f"{name}_cam"] = config.adv_weight * (_lsgan(real_cam, 1) + _lsgan(fake_cam, 0))
    return terms


def _g_terms(config: UGATITConfig, nets: nn.ModuleDict, batch: Batch, made: Made) -> Terms:
    """Each generator's CAM says 1 to pictures it must change, 0 to those already of its domain."""
    terms: Terms = {}
    for name in DISCRIMINATORS:
        fake, fake_cam, _ = nets[name](made[f"fake_{name[2]}"])
        terms[f"g_adv_{name[2:]}"] = config.adv_weight * _lsgan(fake, 1)
        terms[f"g_adv_{name[2:]}_cam"] = config.adv_weight * _lsgan(fake_cam, 1)
    for domain in ("a", "b"):
        cam = _bce(made[f"cam_fake_{domain}"], 1) + _bce(made[f"cam_idt_{domain}"], 0)
        terms[f"g_cycle_{domain}"] = config.cycle_weight * l1(made[f"rec_{domain}"], batch[domain])
        terms[f"g_identity_{domain}"] = config.identity_weight * l1(made[f"idt_{domain}"], batch[domain])
        terms[f"g_cam_{domain}"] = config.cam_weight * cam
    return terms


_lsgan = partial(adversarial, gan="lsgan")
_bce = partial(adversarial, gan="bce")

FAMILY = UGATIT()
