"""pix2pix: paired pictures, a U-Net, and a judge of patches that sees input and output together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from gantrt.errors import UsageError
from torch import Tensor, nn
from torch.optim import Optimizer

from ..family import Batch, Family, Made, Phase, SizeRule, Terms, adam
from ..losses import Gan, adversarial, l1
from ..nets.conv import Doubling
from ..nets.init import init_normal
from ..nets.patchgan import PatchGAN
from ..nets.resnet import PlainNorm
from ..nets.unet import UNet
from ..pool import ImagePool
from ..schedules import constant_then_linear
from ..sizes import Size, height_width


@dataclass(frozen=True)
class Pix2PixConfig:
    """The paper's numbers, as in the authors' PyTorch code."""

    channels_a: int = 3  # of the pictures given
    channels_b: int = 3  # of the pictures wanted
    size: Size = 256  # training crop: pixels, or HxW
    load_scale: float = 286 / 256  # pictures are resized to size times this, then cropped at random
    flip: bool = True  # mirror at random, both pictures of a pair alike
    batch: int = 1  # pictures of each side in a step
    epochs: int = 200  # in all
    constant_epochs: int = 100  # at the base learning rate; over the rest it falls linearly
    zero_last: bool = True  # the last epoch has learning rate 0, as in the authors' code since 2020
    lr: float = 2e-4  # base learning rate
    beta1: float = 0.5  # Adam's decay of the mean gradient
    beta2: float = 0.999  # Adam's decay of the mean squared gradient
    ngf: int = 64  # width of the generator
    downs: int = 0  # halvings in the U-Net, at least 5; 0: as many as size has, at most 8
    norm: PlainNorm = "batch"  # instance or batch
    upsample: Doubling = "transpose"  # resize: nearest neighbour and a convolution, free of checkerboards
    dropout: float = 0.5  # share of features dropped in the decoder
    ndf: int = 64  # width of the discriminator
    d_layers: int = 3  # 3: it judges patches of 70 pixels; 0: single pixels
    gan: Gan = "bce"  # bce, lsgan, or wgan with gp=10
    lambda_l1: float = 100.0  # weight of the L1 distance to the wanted picture


class Pix2Pix(Family):
    """Isola et al. 2017, eq. 4: log loss plus lambda_l1 times the L1 distance to the wanted picture."""

    name = "pix2pix"
    paper = "Isola et al. 2017, arXiv:1611.07004"
    paired = True
    Config = Pix2PixConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fixed": {"zero_last": False},
        "fast": {  # a sixteenth of the steps; InstanceNorm, so that larger batches leave training and test alike
            "zero_last": False,
            "norm": "instance",
            "batch": 8,
            "epochs": 100,
            "constant_epochs": 50,
            "lr": 4e-4,
        },
    }
    surroundings: ClassVar[dict[str, dict[str, Any]]] = {"fast": {"precision": "bf16"}}
    generators: ClassVar[dict[str, str]] = {"a2b": "g_ab"}

    def build(self, config: Pix2PixConfig) -> nn.ModuleDict:
        g_ab = UNet(
            config.channels_a,
            config.channels_b,
            ngf=config.ngf,
            downs=_downs(config),
            norm=config.norm,
            dropout=config.dropout,
            upsample=config.upsample,
        )
        seen = config.channels_a + config.channels_b
        d_b = PatchGAN(seen, ndf=config.ndf, n_layers=config.d_layers, norm=config.norm)
        nets = nn.ModuleDict({"g_ab": g_ab, "d_b": d_b})
        init_normal(nets)
        return nets

    def forward(self, nets: nn.ModuleDict, batch: Batch, config: Pix2PixConfig) -> Made:
        return {"fake_b": nets["g_ab"](batch["a"])}

    def phases(self, config: Pix2PixConfig, pools: Mapping[str, ImagePool]) -> tuple[Phase, ...]:
        return (Phase("d", ("d_b",), partial(_d_terms, config)), Phase("g", ("g_ab",), partial(_g_terms, config)))

    def optimizers(self, nets: nn.ModuleDict, config: Pix2PixConfig) -> dict[str, Optimizer]:
        betas = (config.beta1, config.beta2)
        return {"d": adam(nets, ("d_b",), config.lr, betas), "g": adam(nets, ("g_ab",), config.lr, betas)}

    def lr_factor(self, config: Pix2PixConfig, step: int, steps_per_epoch: int) -> float:
        return constant_then_linear(step // steps_per_epoch, config.constant_epochs, config.epochs, config.zero_last)

    def size_rule(self, config: Pix2PixConfig) -> SizeRule:
        return SizeRule(2 ** _downs(config))


def _downs(config: Pix2PixConfig) -> int:
    twos = min((side & -side).bit_length() - 1 for side in height_width(config.size))  # how often it can be halved
    downs = config.downs or min(twos, 8)
    if not 5 <= downs <= twos:
        wanted = f"{config.downs} times" if config.downs else "5 to 8 times"
        raise UsageError(f"pix2pix: size {config.size} cannot be halved {wanted} (downs >= 5); take a multiple of 32")
    return downs


def _judged(nets: nn.ModuleDict, a: Tensor, b: Tensor) -> Tensor:
    return nets["d_b"](torch.cat([a, b], 1))  # type: ignore[no-any-return]


def _d_terms(config: Pix2PixConfig, nets: nn.ModuleDict, batch: Batch, made: Made) -> Terms:
    fake = _judged(nets, batch["a"], made["fake_b"].detach())
    real = _judged(nets, batch["a"], batch["b"])
    return {"d_fake": adversarial(fake, 0, config.gan) / 2, "d_real": adversarial(real, 1, config.gan) / 2}


def _g_terms(config: Pix2PixConfig, nets: nn.ModuleDict, batch: Batch, made: Made) -> Terms:
    judged = _judged(nets, batch["a"], made["fake_b"])
    return {
        "g_adv": adversarial(judged, 1, config.gan),
        "g_l1": config.lambda_l1 * l1(made["fake_b"], batch["b"]),
    }


FAMILY = Pix2Pix()
