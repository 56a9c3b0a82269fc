"""What the four papers minimise. Every loss is a mean, computed in float32 whatever the networks ran in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Gan = Literal["bce", "lsgan", "wgan"]


def adversarial(logits: Tensor, target: float, gan: Gan) -> Tensor:
    """How far the judgement is from `target`: 1 for real, 0 for made; a generator wants 1.

    "bce":   cross entropy behind a sigmoid (Goodfellow et al. 2014, arXiv:1406.2661)
    "lsgan": mean square (Mao et al. 2017, arXiv:1611.04076)
    "wgan":  the judgement itself, high for real (Arjovsky et al. 2017, arXiv:1701.07875); needs a gradient penalty
    """
    logits = logits.float()
    if gan == "wgan":
        return logits.mean() * (1 - 2 * target)
    wanted = torch.full_like(logits, target)
    return F.binary_cross_entropy_with_logits(logits, wanted) if gan == "bce" else F.mse_loss(logits, wanted)


def l1(x: Tensor, y: Tensor) -> Tensor:
    return F.l1_loss(x.float(), y.float())


def l2(x: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(x.float(), y.float())


def feature_matching(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """Distance of the batch means of a judge's features, layer by layer (Salimans et al. 2016, arXiv:1606.03498)."""
    distances = [l2(x.float().mean(0), y.float().mean(0)) for x, y in zip(real, made, strict=True)]
    return torch.stack(distances).sum()
