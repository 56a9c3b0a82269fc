"""Penalties that keep judges smooth: what they ask for is added to the terms of the phase that trains them.

R1  γ/2 ‖∇D(x)‖² at real pictures (Mescheder et al. 2018, eq. 9, arXiv:1801.04406)
GP  λ (‖∇D(x̂)‖ − 1)² between real and made ones (Gulrajani et al. 2017, eq. 3, arXiv:1704.00028)

D(x) is the mean of a judge's patches, as in its loss, so that a weight means the same at every size. Both cost a second
pass backward through the judge, in float32 whatever the training's precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from gantrt.errors import UsageError
from torch import Tensor, nn

from .family import Batch, Family, Made, Phase, Terms


class Judged(NamedTuple):
    """What a judge was shown. Pictures are (N, C, H, W), and for pix2pix both pictures of a pair in one."""

    judge: Callable[[Tensor], Tensor]  # → (N, ...) logits
    real: Tensor
    made: Tensor


@dataclass(frozen=True)
class Penalties:
    """Their weights; 0: none."""

    r1: float = 0.0  # γ
    gp: float = 0.0  # λ

    def __bool__(self) -> bool:
        return bool(self.r1 or self.gp)


NO_PENALTIES = Penalties()


def with_penalties(family: Family, config: Any, phases: tuple[Phase, ...], penalties: Penalties) -> tuple[Phase, ...]:
    """The same phases, but for the penalties in those that train judges.

    Raises UsageError for `gan=wgan` without `gp`: such a judge has nothing that bounds it.
    """
    if getattr(config, "gan", "") == "wgan" and not penalties.gp:
        raise UsageError(f"{family.name}: gan=wgan needs a judge that a penalty bounds; set gp=10 as well")
    if not penalties:
        return phases
    generators = set(family.generators.values())
    return tuple(
        phase if generators & set(phase.trains) else replace(phase, terms=partial(_penalised, family, penalties, phase))
        for phase in phases
    )


def _penalised(
    family: Family, penalties: Penalties, phase: Phase, nets: nn.ModuleDict, batch: Batch, made: Made
) -> Terms:
    terms = dict(phase.terms(nets, batch, made))
    with torch.autocast(next(iter(batch.values())).device.type, enabled=False):
        for name in phase.trains:
            shown = _shown(family, name, nets[name], batch, made)
            if penalties.r1:
                terms[f"{name}_r1"] = penalties.r1 / 2 * _gradient(shown.judge, shown.real).square().sum(1).mean()
            if penalties.gp:
                between = _between(shown.real, shown.made)
                terms[f"{name}_gp"] = penalties.gp * (_gradient(shown.judge, between).norm(dim=1) - 1).square().mean()
    return terms


def _shown(family: Family, name: str, net: nn.Module, batch: Batch, made: Made) -> Judged:
    """What the judge called `name` sees: `d_a...` pictures of A; that of a paired family the given ones, too."""
    domain = name[2]
    real, fake = batch[domain].float(), made[f"fake_{domain}"].detach().float()
    if family.paired:
        given = batch["a"].float()
        real, fake = torch.cat([given, real], 1), torch.cat([given, fake], 1)
    return Judged(partial(_logits, net), real, fake)


def _logits(net: nn.Module, x: Tensor) -> Tensor:
    """(N, 1, h, w): of judges that return features or attention besides, the first."""
    answer = net(x)
    return answer if isinstance(answer, Tensor) else answer[0]


def _gradient(judge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∇D at each picture, (N, C H W), itself differentiable."""
    x = x.detach().requires_grad_()
    total = judge(x).flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    return gradient.flatten(1)


def _between(real: Tensor, made: Tensor) -> Tensor:
    """A point on the line from each real picture to a made one."""
    if real.shape != made.shape:
        raise UsageError("gp: real and made pictures differ in size; cut them (preprocess=resize_and_crop), or use r1")
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    return share * real + (1 - share) * made
