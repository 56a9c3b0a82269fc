"""The networks of U-GAT-IT's authors (UGATIT-pytorch). One file holds six state_dicts."""

from __future__ import annotations

import math
import re

from ..foreign import Tensors
from ..layout import Network, Unlike, rename, untracked

CODE_BASE = "UGATIT-pytorch"
NAMES = {
    "genA2B": "g_ab",
    "genB2A": "g_ba",
    "disGA": "d_a_global",
    "disGB": "d_b_global",
    "disLA": "d_a_local",
    "disLB": "d_b_local",
}

_SPECTRAL = (  # as torch.nn.utils.parametrizations.spectral_norm calls what spectral_norm called otherwise
    (".parametrizations.weight.original", ".weight_orig"),
    (".parametrizations.weight.0._u", ".weight_u"),
    (".parametrizations.weight.0._v", ".weight_v"),
)


def recognise(tensors: Tensors) -> Network | None:
    if "DownBlock.1.weight" in tensors and "FC.0.weight" in tensors:
        return _generator(tensors)
    plain = {_plain(key): tensor for key, tensor in tensors.items()}
    return _discriminator(plain) if {"gap_fc.weight_orig", "model.1.weight_orig"} <= set(plain) else None


def _generator(tensors: Tensors) -> Network:
    first, seen = tensors["DownBlock.1.weight"], tensors["FC.0.weight"].shape[1]
    ngf = first.shape[0]
    blocks = {int(m[1]) for key in tensors if (m := re.match(r"UpBlock1_(\d+)\.", key))}
    names = {
        **{"DownBlock.1": "stem.conv", "DownBlock.5": "down.0.conv", "DownBlock.9": "down.1.conv"},
        **{"gap_fc": "gap_fc", "gmp_fc": "gmp_fc", "conv1x1": "mix", "FC.0": "mlp.0", "FC.2": "mlp.2"},
        **{"gamma": "gamma", "beta": "beta"},
        **{"UpBlock2.2": "up.0.conv", "UpBlock2.3": "up.0.norm", "UpBlock2.7": "up.1.conv", "UpBlock2.8": "up.1.norm"},
        "UpBlock2.11": "head",
    }
    for index in range(len(blocks)):
        down, up = f"DownBlock.{12 + index}.conv_block", f"UpBlock1_{index + 1}"
        names |= {f"{down}.1": f"encoder.{index}.conv1", f"{down}.5": f"encoder.{index}.conv2"}
        names |= {f"{up}.{layer}": f"decoder.{index}.{layer}" for layer in ("conv1", "norm1", "conv2", "norm2")}
    weights = rename(tensors, names, {"gamma": "scale", "beta": "shift"})
    weights = {
        key: tensor.flatten() if key.rpartition(".")[2] in _PER_CHANNEL else tensor for key, tensor in weights.items()
    }
    config = {"ngf": ngf, "n_blocks": len(blocks), "light": seen == 4 * ngf}
    if seen != 4 * ngf:
        side = math.isqrt(seen // (4 * ngf))
        if side * side * 4 * ngf != seen:
            raise Unlike(f"its fully connected layer sees {seen} values, which are no square picture's")
        config["size"] = 4 * side
    head = tensors.get("UpBlock2.11.weight")
    if head is None:
        raise Unlike("it lacks UpBlock2.11.weight")
    return Network(("ugatit",), weights, config, (first.shape[1], head.shape[0]), dropped=untracked(tensors, names))


def _discriminator(tensors: Tensors) -> Network:
    count = sum(bool(re.fullmatch(r"model\.\d+\.weight_orig", key)) for key in tensors)
    names = {f"model.{1 + 3 * index}": f"layers.{index}" for index in range(count)}
    names |= {"gap_fc": "gap_fc", "gmp_fc": "gmp_fc", "conv1x1": "mix", "conv": "head"}
    return Network(("ugatit",), rename(tensors, names), {"ndf": tensors["model.1.weight_orig"].shape[0]})


_PER_CHANNEL = {"rho", "scale", "shift"}


def _plain(key: str) -> str:
    for new, old in _SPECTRAL:
        key = key.removesuffix(new) + old if key.endswith(new) else key
    return key
