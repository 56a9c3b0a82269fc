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
        self._share: float | Tensor = 1.0  # of the newest weights in the mean

    def make_static(self, device: torch.device) -> None:
        """From now on the share lies on the device, where a captured `move` finds it."""
        self._share = torch.ones((), device=device)

    def begin(self, steps: int) -> None:
        """Before a step in which they may move; `steps` were made before it."""
        share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        if isinstance(self._share, Tensor):
            self._share.fill_(share)
        else:
            self._share = share

    @torch.no_grad()
    def move(self, nets: nn.ModuleDict) -> None:
        """Towards `nets`, which learnt in the step that `begin` announced. Buffers are taken over as they are."""
        sources = [nets[name] for name in self.nets]
        averaged: list[Tensor] = list(self.nets.parameters())
        learnt: list[Tensor] = [p for net in sources for p in net.parameters()]
        if isinstance(self._share, Tensor):
            for old, new in zip(averaged, learnt, strict=True):
                old.lerp_(new, self._share)
        else:
            torch._foreach_lerp_(averaged, learnt, self._share)
        for old, new in zip(self.nets.buffers(), (b for net in sources for b in net.buffers()), strict=True):
            old.copy_(new)

    def update(self, nets: nn.ModuleDict, steps: int) -> None:
        """After a step in which they learnt; `steps` were made before it."""
        self.begin(steps)
        self.move(nets)

    def over(self, nets: nn.ModuleDict) -> nn.ModuleDict:
        """`nets` with the averaged ones in their places."""
        return nn.ModuleDict({**nets, **self.nets})
