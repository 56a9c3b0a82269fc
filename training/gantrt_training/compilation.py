"""torch.compile for the networks of a training."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import nn

Compile = Literal["none", "default", "reduce-overhead", "max-autotune"]  # reduce-overhead: with CUDA graphs


def compiled(nets: nn.ModuleDict, mode: Compile) -> nn.ModuleDict:
    """`nets` as a step calls them: the same weights behind compiled forward passes, one for each size of picture.

    What cannot be compiled raises when it is first called; nothing falls back to eager mode.
    """
    if mode == "none":
        return nets
    if mode not in get_args(Compile):
        raise ValueError(f"compile: there is no mode {mode!r}")
    # A network is called with a handful of batch sizes, each with its weights frozen and not: all are kept.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    faster: dict[str, Any] = {name: torch.compile(net, mode=mode, dynamic=False) for name, net in nets.items()}
    return nn.ModuleDict(faster)
