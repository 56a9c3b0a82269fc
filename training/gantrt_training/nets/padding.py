"""Padding that leaves channels last as they lie.

torch reflects and replicates two dimensions of NCHW alone, so that a tensor that lies channels last is copied there and
back around it. As (N, 1, H, W, C), which is the same memory, it is a picture of three dimensions, whose padding torch
has as well.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = tuple[int, int, int, int]  # left, right, above, below


def pad(x: Tensor, border: Border, mode: Literal["reflect", "replicate"]) -> Tensor:
    """F.pad of (N, C, H, W), in the layout of x."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return F.pad(x, border, mode=mode)
    return F.pad(x.permute(0, 2, 3, 1)[:, None], (0, 0, *border), mode=mode)[:, 0].permute(0, 3, 1, 2)
