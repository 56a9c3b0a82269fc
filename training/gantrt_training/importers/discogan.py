"""The networks of DiscoGAN's authors: pictures in BGR and [0, 1], a sigmoid at the end.

Ours take RGB: the first layer's input channels and the last one's outputs change places. The range is the networks'
own affair (`unit_range`).
"""

from __future__ import annotations

import re

from ..foreign import Tensors
from ..layout import Network, Unlike, rename

CODE_BASE = "DiscoGAN"
NAMES = {  # generator_B makes pictures of B
    "gen_B": "g_ab",
    "generator_B": "g_ab",
    "gen_A": "g_ba",
    "generator_A": "g_ba",
    "dis_A": "d_a",
    "discriminator_A": "d_a",
    "dis_B": "d_b",
    "discriminator_B": "d_b",
}

_DOWNS = 4


def recognise(tensors: Tensors) -> Network | None:
    if {"conv1.weight", "bn2.weight", "conv5.weight"} <= set(tensors):
        return _discriminator(tensors)
    first = tensors.get("main.0.weight")
    places = [(int(m[1]), t) for key, t in tensors.items() if (m := re.fullmatch(r"main\.(\d+)\.weight", key))]
    convs = [(place, tensor) for place, tensor in sorted(places, key=lambda item: item[0]) if tensor.dim() == 4]
    if first is None or [place for place, _ in convs] != [0, *range(2, 2 + 3 * (len(convs) - 1), 3)]:
        return None
    layers = ["first", *(f"down.{level}" for level in range(_DOWNS - 1))]
    narrow = len(convs) == 2 * _DOWNS + 2
    layers += ["narrow", "widen"] if narrow else []
    layers += [*(f"up.{index}" for index in range(_DOWNS - 1)), "head"]
    if len(layers) != len(convs):
        raise Unlike(f"it has {len(convs)} convolutions; its code's generators have 8 or 10")
    names = {"main.0": "first", f"main.{convs[-1][0]}": "head"}
    for layer, (place, _) in list(zip(layers, convs, strict=True))[1:-1]:
        names |= {f"main.{place}": f"{layer}.conv", f"main.{place + 1}": f"{layer}.norm.bn"}
    weights = rename(tensors, names)
    weights["first.weight"] = weights["first.weight"].flip(1)
    weights["head.weight"] = weights["head.weight"].flip(1)  # (in, out, 4, 4), as a transposed convolution has it
    config = {
        "ngf": first.shape[0],
        "bottleneck": convs[_DOWNS][1].shape[0] if narrow else 0,
        "unit_range": True,
        "size": 4 * 2**_DOWNS,
    }
    return Network(("discogan",), weights, config, (first.shape[1], convs[-1][1].shape[1]))


def _discriminator(tensors: Tensors) -> Network:
    names = {"conv1": "first", "conv5": "head"}
    for level in range(_DOWNS - 1):
        names |= {f"conv{level + 2}": f"convs.{level}", f"bn{level + 2}": f"norms.{level}"}
    weights = rename(tensors, names)
    weights["first.weight"] = weights["first.weight"].flip(1)
    return Network(("discogan",), weights, {"ndf": tensors["conv1.weight"].shape[0], "unit_range": True})
