"""The residual generator of CycleGAN's authors, and of CUT's, which blurs where it halves and doubles.

`model.N`, counted through one Sequential: pad 0, conv 1, norm 2, ReLU 3; two halvings; blocks; two doublings; pad,
conv. A block is `conv_block.{1,5}`, or {1,6} where a dropout lies between.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ..foreign import Tensors
from ..layout import Network, Unlike, rename, untracked

CODE_BASE = "pytorch-CycleGAN-and-pix2pix or CUT"  # without the blurs, one cannot tell
NAMES = {"G": "g_ab", "netG": "g_ab", "G_A": "g_ab", "netG_A": "g_ab", "G_B": "g_ba", "netG_B": "g_ba"}

_DOWNS = 2


def recognise(tensors: Tensors) -> Network | None:
    blocks = sorted({int(m[1]) for key in tensors if (m := re.match(r"model\.(\d+)\.conv_block\.\d+\.weight$", key))})
    first = tensors.get("model.1.weight")
    if first is None or first.dim() != 4 or not blocks:
        return None
    blurs = {key.removesuffix(".filt"): tensor for key, tensor in tensors.items() if key.endswith(".filt")}
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(".filt")}
    prefixes, norms, last = _prefixes(blocks, blurs, tensors)
    batch = "model.2.weight" in tensors
    if not batch and "model.1.bias" not in tensors:
        raise Unlike("it was trained without norms (--norm none), which ours always has")
    names = prefixes | (norms if batch else {})
    head = tensors.get(f"{last}.weight")
    if head is None:
        raise Unlike(f"{last} is not its last layer: doublings other than transposed convolutions or CUT's are unknown")
    config: dict[str, Any] = {
        "ngf": first.shape[0],
        "n_blocks": len(blocks),
        "norm": "batch" if batch else "instance",
        "dropout": 0.5 if _second(tensors, blocks[0]) == 6 else 0.0,
    }
    if "model.7" in blurs:
        config["antialias"] = True
    if f"model.{blocks[-1] + 1}" in blurs:
        config["upsample"] = "bilinear"
    weights = rename(tensors, names)
    return Network(("cyclegan",), weights, config, (first.shape[1], head.shape[0]), dropped=untracked(tensors, names))


def _prefixes(blocks: list[int], blurs: Tensors, tensors: Tensors) -> tuple[dict[str, str], dict[str, str], str]:
    """Their layers -> ours: of convolutions, of norms; and the name of the last layer."""
    conv, norm = {"model.1": "stem.conv"}, {"model.2": "stem.norm.bn"}
    blur_down, blur_up = "model.7" in blurs, f"model.{blocks[-1] + 1}" in blurs
    expected: dict[str, Tensor] = {}
    at = 4
    for level in range(_DOWNS):
        conv[f"model.{at}"], norm[f"model.{at + 1}"] = f"down.{level}.conv", f"down.{level}.norm.bn"
        expected |= {f"model.{at + 3}": _outer([1, 2, 1]) / 16} if blur_down else {}
        at += 3 + blur_down
    if blocks != list(range(at, at + len(blocks))):
        raise Unlike(f"its blocks are model.{blocks[0]} to {blocks[-1]}: it halves other than twice")
    for index, at in enumerate(blocks):
        for number, place in ((1, 1), (2, _second(tensors, at))):
            conv[f"model.{at}.conv_block.{place}"] = f"blocks.{index}.conv{number}"
            norm[f"model.{at}.conv_block.{place + 1}"] = f"blocks.{index}.norm{number}.bn"
    at = blocks[-1] + 1
    for level in range(_DOWNS):
        expected |= {f"model.{at}": _outer([1, 3, 3, 1]) / 16} if blur_up else {}
        at += blur_up
        conv[f"model.{at}"], norm[f"model.{at + 1}"] = f"up.{level}.conv", f"up.{level}.norm.bn"
        at += 3
    conv[f"model.{at + 1}"] = "head"
    if set(blurs) != set(expected) or not all(_same(blurs[key], kernel) for key, kernel in expected.items()):
        raise Unlike("it blurs other than CUT does by default: by 1-2-1 down, by 1-3-3-1 up")
    return conv, norm, f"model.{at + 1}"


def _outer(taps: list[int]) -> Tensor:
    row = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(row, row)


def _same(blur: Tensor, kernel: Tensor) -> bool:
    return blur.shape[1:] == (1, *kernel.shape) and torch.allclose(blur.float(), kernel.expand_as(blur), atol=1e-3)


def _second(tensors: Tensors, block: int) -> int:
    """The place of a block's second convolution: 5, or 6 behind a dropout. A norm may be there as well."""
    there = tensors.get(f"model.{block}.conv_block.6.weight")
    return 6 if there is not None and there.dim() == 4 else 5
