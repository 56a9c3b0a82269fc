"""CycleGAN: two domains without pairs; what is translated there and back must be what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from gantrt.errors import UsageError
from torch import nn
from torch.optim import Optimizer

from ..family import Batch, Family, Made, Phase, SizeRule, Terms, adam, pass_together
from ..losses import Gan, adversarial, l1
from ..nets.init import init_normal
from ..nets.patchgan import PatchGAN
from ..nets.resnet import PlainNorm, ResNet, Upsample
from ..pool import ImagePool
from ..schedules import constant_then_linear
from ..sizes import Size


@dataclass(frozen=True)
class CycleGANConfig:
    """The paper's numbers, as in the authors' PyTorch code."""

    channels_a: int = 3  # of the pictures of domain A
    channels_b: int = 3  # of the pictures of domain B
    size: Size = 256  # training crop: pixels, or HxW
    load_scale: float = 286 / 256  # pictures are resized to size times this, then cropped at random
    flip: bool = True  # mirror at random
    batch: int = 1  # pictures of each side in a step
    epochs: int = 200  # in all
    constant_epochs: int = 100  # at the base learning rate; over the rest it falls linearly
    zero_last: bool = True  # the last epoch has learning rate 0, as in the authors' code since 2020
    lr: float = 2e-4  # base learning rate
    beta1: float = 0.5  # Adam's decay of the mean gradient
    beta2: float = 0.999  # Adam's decay of the mean squared gradient
    ngf: int = 64  # width of the generators
    n_blocks: int = 9  # residual blocks; 6 for 128 pixels and less
    n_downs: int = 2  # halvings before them
    norm: PlainNorm = "instance"  # instance or batch
    dropout: float = 0.0  # within the residual blocks
    upsample: Upsample = "transpose"  # resize: nearest neighbour and a convolution, free of checkerboards; bilinear
    antialias: bool = False  # blur where pictures are halved; with upsample=bilinear the generator of CUT
    ndf: int = 64  # width of the discriminators
    d_layers: int = 3  # 3: they judge patches of 70 pixels; 0: single pixels
    gan: Gan = "lsgan"  # bce, lsgan, or wgan with gp=10
    lambda_cycle: float = 10.0  # weight of the L1 distance between a picture and what came back
    lambda_identity: float = 0.5  # times lambda_cycle; 0 saves two of six generator passes
    pool_size: int = 50  # made pictures that each discriminator may see again
    together: bool = False  # pictures that meet a network at the same time pass it as one batch: fewer, larger passes


class CycleGAN(Family):
    """Zhu et al. 2017, eq. 3 and sec. 5.2: adversarial, cycle and identity losses in both directions."""

    name = "cyclegan"
    paper = "Zhu et al. 2017, arXiv:1703.10593"
    paired = False
    Config = CycleGANConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fixed": {"zero_last": False},
        "fast": {  # an eighth of the steps, of four generator passes instead of six, through 6 blocks instead of 9
            "zero_last": False,
            "batch": 4,
            "epochs": 100,
            "constant_epochs": 50,
            "n_blocks": 6,
            "lambda_identity": 0.0,
        },
        "mnist": {  # one digit into another, in minutes on a CPU
            "channels_a": 1,
            "channels_b": 1,
            "size": 28,
            "load_scale": 1.0,
            "flip": False,
            "batch": 8,
            "epochs": 4,
            "constant_epochs": 2,
            "zero_last": False,
            "lr": 1e-3,
            "ngf": 16,
            "n_blocks": 2,
            "ndf": 32,
            "d_layers": 2,
            "lambda_cycle": 5.0,
            "lambda_identity": 0.0,
        },
    }
    surroundings: ClassVar[dict[str, dict[str, Any]]] = {"fast": {"precision": "bf16"}}
    generators: ClassVar[dict[str, str]] = {"a2b": "g_ab", "b2a": "g_ba"}

    def build(self, config: CycleGANConfig) -> nn.ModuleDict:
        if config.lambda_identity and config.channels_a != config.channels_b:
            raise UsageError(
                f"cyclegan: an identity loss needs equal channels, got {config.channels_a} and {config.channels_b}; "
                "set lambda_identity=0"
            )
        if config.n_blocks < 1 or config.n_downs < 1:
            raise UsageError(
                f"cyclegan: n_blocks and n_downs must be at least 1, got {config.n_blocks} and {config.n_downs}"
            )
        if config.together and config.norm == "batch":
            raise UsageError("cyclegan: BatchNorm would mix what passes together; set together=false or norm=instance")
        a, b = config.channels_a, config.channels_b
        nets = nn.ModuleDict(
            {
                "g_ab": _generator(config, a, b),
                "g_ba": _generator(config, b, a),
                "d_a": PatchGAN(a, ndf=config.ndf, n_layers=config.d_layers, norm=config.norm),
                "d_b": PatchGAN(b, ndf=config.ndf, n_layers=config.d_layers, norm=config.norm),
            }
        )
        init_normal(nets)
        return nets

    def forward(self, nets: nn.ModuleDict, batch: Batch, config: CycleGANConfig) -> Made:
        made: Made = {}
        if config.together:
            return _forward_together(nets, batch, identity=bool(config.lambda_identity))
        made["fake_b"] = nets["g_ab"](batch["a"])
        made["rec_a"] = nets["g_ba"](made["fake_b"])
        made["fake_a"] = nets["g_ba"](batch["b"])
        made["rec_b"] = nets["g_ab"](made["fake_a"])
        if config.lambda_identity:
            made["idt_b"] = nets["g_ab"](batch["b"])
            made["idt_a"] = nets["g_ba"](batch["a"])
        return made

    def pools(self, config: CycleGANConfig) -> dict[str, ImagePool]:
        return {"fake_a": ImagePool(config.pool_size, seed=0), "fake_b": ImagePool(config.pool_size, seed=1)}

    def phases(self, config: CycleGANConfig, pools: Mapping[str, ImagePool]) -> tuple[Phase, ...]:
        return (
            Phase("g", ("g_ab", "g_ba"), partial(_g_terms, config)),
            Phase("d", ("d_a", "d_b"), partial(_d_terms, config, pools)),
        )

    def optimizers(self, nets: nn.ModuleDict, config: CycleGANConfig) -> dict[str, Optimizer]:
        betas = (config.beta1, config.beta2)
        return {
            "g": adam(nets, ("g_ab", "g_ba"), config.lr, betas),
            "d": adam(nets, ("d_a", "d_b"), config.lr, betas),
        }

    def lr_factor(self, config: CycleGANConfig, step: int, steps_per_epoch: int) -> float:
        return constant_then_linear(step // steps_per_epoch, config.constant_epochs, config.epochs, config.zero_last)

    def size_rule(self, config: CycleGANConfig) -> SizeRule:
        return SizeRule(2**config.n_downs)


def _generator(config: CycleGANConfig, in_channels: int, out_channels: int) -> ResNet:
    return ResNet(
        in_channels,
        out_channels,
        ngf=config.ngf,
        n_blocks=config.n_blocks,
        n_downs=config.n_downs,
        norm=config.norm,
        dropout=config.dropout,
        upsample=config.upsample,
        antialias=config.antialias,
    )


def _forward_together(nets: nn.ModuleDict, batch: Batch, *, identity: bool) -> Made:
    """`CycleGAN.forward` in three passes: the way back of A goes with the way there of B."""
    a, b, made = batch["a"], batch["b"], {}
    made["fake_b"], *rest = pass_together(nets["g_ab"], [a, b] if identity else [a])
    made["rec_a"], made["fake_a"], *own = pass_together(nets["g_ba"], [made["fake_b"], b, *([a] if identity else [])])
    made["rec_b"] = nets["g_ab"](made["fake_a"])
    return made | ({"idt_b": rest[0], "idt_a": own[0]} if identity else {})


def _g_terms(config: CycleGANConfig, nets: nn.ModuleDict, batch: Batch, made: Made) -> Terms:
    terms = {
        "g_adv_ab": adversarial(nets["d_b"](made["fake_b"]), 1, config.gan),
        "g_adv_ba": adversarial(nets["d_a"](made["fake_a"]), 1, config.gan),
        "g_cycle_a": config.lambda_cycle * l1(made["rec_a"], batch["a"]),
        "g_cycle_b": config.lambda_cycle * l1(made["rec_b"], batch["b"]),
    }
    if config.lambda_identity:
        weight = config.lambda_cycle * config.lambda_identity
        terms["g_identity_a"] = weight * l1(made["idt_a"], batch["a"])
        terms["g_identity_b"] = weight * l1(made["idt_b"], batch["b"])
    return terms


def _d_terms(
    config: CycleGANConfig, pools: Mapping[str, ImagePool], nets: nn.ModuleDict, batch: Batch, made: Made
) -> Terms:
    terms = {}
    for domain in ("a", "b"):
        judge = nets[f"d_{domain}"]
        fake = pools[f"fake_{domain}"].query(made[f"fake_{domain}"])
        judged = pass_together(judge, [batch[domain], fake]) if config.together else map(judge, (batch[domain], fake))
        for name, logits, wanted in zip(("real", "fake"), judged, (1, 0), strict=True):
            terms[f"d_{domain}_{name}"] = adversarial(logits, wanted, config.gan) / 2
    return terms


FAMILY = CycleGAN()
