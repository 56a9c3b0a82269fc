"""Exponential moving averages of the generators' weights: steadier pictures than those of any one step.

Karras et al. 2018, arXiv:1710.10196; Yazıcı et al. 2019, arXiv:1806.04498.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Averages:
    """`nets` are the averaged twins of the networks called `names`, on the same device, never trained."""

    def __init__(self, nets: nn.ModuleDict, names: Iterable[str], decay: float) -> None:
        """decay  of the past in each step, in [0, 1); less within the first steps, so that the start is forgotten"""
        self.decay = decay
        self.nets = nn.ModuleDict({name: copy.deepcopy(nets[name]) for name in names})
        self.nets.requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, nets: nn.ModuleDict, steps: int) -> None:
        """After a step in which they learnt; `steps` were made before it. Buffers are taken over as they are."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        sources = [nets[name] for name in self.nets]
        averaged: list[Tensor] = list(self.nets.parameters())
        torch._foreach_lerp_(averaged, [p for net in sources for p in net.parameters()], 1 - decay)
        for old, new in zip(self.nets.buffers(), (b for net in sources for b in net.buffers()), strict=True):
            old.copy_(new)

    def over(self, nets: nn.ModuleDict) -> nn.ModuleDict:
        """`nets` with the averaged ones in their places."""
        return nn.ModuleDict({**nets, **self.nets})
